"""Runs ``obd-lio-helper``, the program that does what may sleep in the kernel (csrc/helper).

The helper has a deadline of its own and takes back what it did.  When it sleeps where
no signal reaches, it misses it; then ``on_late`` is called, which makes the daemon fail
the commands that the kernel waits for, and after a grace the process is killed.  What it
asked for may still happen, so whoever called looks again, or runs ``detach``.
"""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tcmu_overlaybd.errors import (
    BusyError,
    FailedError,
    KilledError,
    OverlayBDError,
    TimeoutExpiredError,
    UnavailableError,
)
from tcmu_overlaybd.lio.backstore import Backstore
from tcmu_overlaybd.lio.fabric import LoopbackPort

logger = logging.getLogger(__name__)

IS_TEST = os.environ.get("TCMU_OVERLAYBD_TEST_BUILD") == "1"  # as native/_binding.py
PROGRAM = Path(__file__).with_name("obd-lio-helper-test" if IS_TEST else "obd-lio-helper")
GRACE_S = 6.0  # the helper allows itself 5 to take back

# enum outcome of csrc/helper/step.h
OUTCOMES: dict[int, type[OverlayBDError]] = {
    1: FailedError,
    2: FailedError,
    3: BusyError,
    4: UnavailableError,
    5: TimeoutExpiredError,
}


@dataclass(slots=True)
class HelperReport:
    """What the helper said: steps with the microseconds each took, and what it found."""

    steps: list[tuple[str, int]] = field(default_factory=list)
    found: dict[str, str] = field(default_factory=dict)

    @property
    def disk(self) -> str:
        """``sda``; "" when there is none."""
        return self.found.get("disk", "")


def attach(
    backstore: Backstore,
    port: LoopbackPort | None,
    timeout_s: float,
    on_late: Callable[[], None] = lambda: None,
) -> HelperReport:
    """Makes the device and, with a port, its disk; returns when that can be read.

    When it raises, nothing is left of the device, except after TimeoutExpiredError and
    KilledError: then the kernel may still be at it.
    """
    tunables = backstore.tunables
    options = {
        **_identity(backstore.hba, backstore.name, port),
        "config": backstore.config.format(),
        "size": backstore.size,
        "serial": backstore.serial,
        "queue_depth": tunables.queue_depth,
        "data_area_mb": tunables.data_area_mb,
        "ring_mb": tunables.ring_mb,
        "max_sectors": tunables.max_sectors,
        "qfull_time_out": tunables.qfull_time_out,
        "disk_timeout": tunables.disk_timeout,
        "read_ahead_kb": tunables.read_ahead_kb,
        "kernel_waits": int(backstore.kernel_waits),
    }
    return run("attach", options, timeout_s, on_late)


def detach(
    hba: str,
    name: str,
    port: LoopbackPort | None,
    timeout_s: float,
    *,
    claim: bool,
    spare_flush: bool = False,
    abandon: bool = False,
) -> HelperReport:
    """Removes what there is of the device.

    claim refuses (BusyError) a disk that is mounted or otherwise held; spare_flush sends
    no SYNCHRONIZE CACHE, which may take as long as a disk below hangs; abandon makes all
    fail that waits for a daemon: only for who holds the daemon's lock.
    """
    flags = {"claim": int(claim), "spare_flush": int(spare_flush), "abandon": int(abandon)}
    return run("detach", {**_identity(hba, name, port), **flags}, timeout_s)


@contextmanager
def failing_ring(hba: str, name: str, timeout_s: float) -> Iterator[None]:
    """Meanwhile all commands to the device fail: only for who holds the daemon's lock."""
    options = {"deadline_ms": int(timeout_s * 1000), "hba": hba, "name": name}
    process = _start([str(PROGRAM), "fail-ring", *(f"{key}={value}" for key, value in options.items())])
    try:
        yield
    finally:
        process.kill()
        process.communicate()


def spare_flush(timeout_s: float) -> None:
    """The kernel flushes no disk of ours any more, whoever made it: the machine shuts down."""
    run("spare-flush", {}, timeout_s)


def abandon(timeout_s: float) -> None:
    """That, and all commands to disks of ours fail: only for who holds the daemon's lock."""
    run("abandon", {}, timeout_s)


def rescan(disk: str, timeout_s: float, disk_timeout: int = 0) -> HelperReport:
    """Makes the kernel ask for the size of disk (``sda``) again, and read its partitions; with
    disk_timeout, that is how many seconds a command may take."""
    return run("rescan", {"disk": disk, "disk_timeout": disk_timeout}, timeout_s)


def resize(hba: str, name: str, size: int, disk: str, timeout_s: float) -> HelperReport:
    """Tells the kernel that the device has size bytes; disk (``sda``, or "") is asked again."""
    return run("resize", {"hba": hba, "name": name, "size": size, "disk": disk}, timeout_s)


def _identity(hba: str, name: str, port: LoopbackPort | None) -> dict[str, str | int]:
    if port is None:
        return {"hba": hba, "name": name}
    return {"hba": hba, "name": name, "port": port.port, "nexus": port.nexus}


def run(
    verb: str,
    options: dict[str, str | int],
    timeout_s: float,
    on_late: Callable[[], None] = lambda: None,
) -> HelperReport:
    """One run of ``obd-lio-helper``."""
    command = [str(PROGRAM), verb, f"deadline_ms={int(timeout_s * 1000)}"]
    command += [f"{key}={value}" for key, value in options.items()]
    return run_program(command, f"{PROGRAM.name} {verb}", timeout_s, on_late)


def run_program(
    command: list[str],
    what: str,
    timeout_s: float,
    on_late: Callable[[], None] = lambda: None,
    stdin: str = "",
) -> HelperReport:
    """One run of a program that reports like the helper.  what: its name in messages.

    Raises what its exit code means, with its sentence.
    """
    process = _start(command)
    try:
        out, error = process.communicate(stdin, timeout=timeout_s + 0.5)
    except subprocess.TimeoutExpired:
        on_late()
        out, error = _end(process, what)
    report = parse_report(out)
    logger.debug("%s: exit %d: %s", what, process.returncode, " ".join(out.split("\n")))
    if process.returncode < 0:
        raise KilledError(f"{what}: killed by signal {-process.returncode}")
    if process.returncode != 0:
        sentence = error.strip().partition("\n")[0] or f"{what}: exit code {process.returncode}"
        raise OUTCOMES.get(process.returncode, FailedError)(sentence)
    return report


def _start(command: list[str]) -> subprocess.Popen[str]:
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            close_fds=True,  # a UIO device inherited by the helper would be busy for our successor
            start_new_session=True,  # Ctrl-C is for the daemon
        )
    except OSError as error:
        raise UnavailableError(
            f"{command[0]}: cannot be run: {error.strerror}; install the package again"
        ) from error


def _end(process: subprocess.Popen[str], what: str) -> tuple[str, str]:
    """What it still says within the grace; else it is killed, and may die only later."""
    with suppress(subprocess.TimeoutExpired):
        return process.communicate(timeout=GRACE_S)
    process.kill()
    with suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=0.5)
    raise TimeoutExpiredError(f"{what}: still in the kernel after its deadline (pid {process.pid})")


def parse_report(text: str) -> HelperReport:
    """Lines that are not understood are ignored: a killed helper's last one may be half."""
    report = HelperReport()
    for line in text.splitlines():
        match line.split(" "):
            case ["done", step, micros] if micros.isdecimal():
                report.steps.append((step, int(micros)))
            case ["found", word, value]:
                report.found[word] = value
    return report
