"""What runs inside the VM, as root: our daemon's disk beside a bare handler's, under fio.

Both disks are attached at the same time with the same tunables, and fio reads one, then
the other, again and again.  Prints one JSON object a figure, as __main__ does.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import msgspec

from benchmarks.pairs import compare, limit
from benchmarks.resident import LIMIT_MB, resident_mb
from tcmu_overlaybd.daemon.client import Client
from tcmu_overlaybd.daemon.messages import AttachRequest, DetachRequest
from tcmu_overlaybd.errors import OverlayBDError
from tcmu_overlaybd.lio import helper
from tcmu_overlaybd.lio.backstore import HBA, serial_number
from tcmu_overlaybd.lio.fabric import LoopbackPort

GOAL = 0.7
WRITE_GOAL = 0.5
FIO_SECONDS = 0.7
FIO_WRITES = 2500  # the log of the upper grows by each, in the memory of the guest
TIMEOUT_S = 60.0
BARE = "bare"


@contextmanager
def daemon(folder: Path, config: Path | None = None) -> Iterator[tuple[Client, int]]:
    """Our daemon, ready, and its process id."""
    environment = {**os.environ, "STATE_DIRECTORY": f"{folder}/state", "RUNTIME_DIRECTORY": f"{folder}/run"}
    client = Client(folder / "run/control.socket")
    command = [sys.executable, "-m", "tcmu_overlaybd", "serve"]
    if config is not None:
        command += ["--config", str(config)]
    with subprocess.Popen(command, env=environment) as process:
        try:
            deadline = time.monotonic() + TIMEOUT_S
            while not _answers(client):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError("the daemon does not become ready")
                time.sleep(0.05)
            yield client, process.pid
        finally:
            process.terminate()


def _answers(client: Client) -> bool:
    try:
        client.version(5)
    except OverlayBDError:
        return False
    return True


@contextmanager
def our_disk(client: Client, name: str, layers: list[Path], upper: Path | None = None) -> Iterator[str]:
    """Read-only, or with an upper that is gone afterwards."""
    request = AttachRequest(source=tuple(map(str, layers)), name=name)
    if upper is not None:
        request = msgspec.structs.replace(request, writable=True, upper=str(upper))
    status = client.attach(request)
    try:
        yield status.disk
    finally:
        client.detach(name, DetachRequest(force=True))
        if upper is not None:
            shutil.rmtree(upper)


@contextmanager
def bare_disk(program: Path, raw: Path) -> Iterator[str]:
    """The bare handler's; nobody is asked over netlink, because nobody would answer for it."""
    serial = serial_number("benchmark", BARE)
    port = LoopbackPort.of_serial(serial)
    options: dict[str, str | int] = {
        "hba": HBA,
        "name": BARE,
        "port": port.port,
        "nexus": port.nexus,
        "config": "bare/disk,nl_reply_supported=-1",
        "size": raw.stat().st_size,
        "serial": serial,
    }
    with subprocess.Popen([program, BARE, raw]) as handler:
        try:
            yield f"/dev/{helper.run('attach', options, TIMEOUT_S).disk}"
        finally:
            helper.detach(HBA, BARE, port, TIMEOUT_S, claim=False)
            handler.terminate()


def read_rate(disk: str, depth: int) -> float:
    """4 KiB random reads a second."""
    return _rate(disk, depth, "read", ["--time_based", f"--runtime={FIO_SECONDS}"])


def write_rate(disk: str, depth: int) -> float:
    """4 KiB random writes a second, acknowledged and not flushed."""
    return _rate(disk, depth, "write", [f"--number_ios={FIO_WRITES}"])


def _rate(disk: str, depth: int, direction: str, length: list[str]) -> float:
    command = ["fio", f"--name={direction}", f"--filename={disk}", f"--rw=rand{direction}", "--bs=4k"]
    command += ["--direct=1", "--ioengine=libaio", f"--iodepth={depth}", *length]
    command += ["--randrepeat=1", "--norandommap", "--output-format=json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout[done.stdout.index("{") :])["jobs"][0][direction]["iops"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bare", type=Path, required=True, help="the program bare_handler")
    parser.add_argument("--raw", type=Path, required=True, help="a flat disk")
    parser.add_argument("--layer", type=Path, required=True, help="the same as a plain layer")
    parser.add_argument("--ten", type=Path, nargs="*", help="the layers of a 10-layer image")
    parser.add_argument("--pairs", type=int, required=True)
    arguments = parser.parse_args()
    prepare_kernel()
    folder = Path(tempfile.mkdtemp())
    raw, layer = warm_copy(arguments.raw, folder), warm_copy(arguments.layer, folder)
    with daemon(folder) as (client, pid):
        with our_disk(client, "idle", arguments.ten):
            result = limit(
                "resident memory of the daemon, one idle 10-layer device",
                [resident_mb(pid)],
                unit="MB",
                at_most=LIMIT_MB,
            )
            print(result.as_json(), flush=True)
        with our_disk(client, "plain", [layer]) as ours, bare_disk(arguments.bare, raw) as bare:
            for depth in (1, 32):
                result = compare(
                    f"TCMU in the VM, plain layer, 4 KiB random reads, QD {depth}",
                    partial(read_rate, ours, depth),
                    partial(read_rate, bare, depth),
                    unit="reads/s",
                    at_least=GOAL,
                    nr_pairs=arguments.pairs,
                )
                print(result.as_json(), flush=True)
        for depth in (1, 32):
            upper = folder / f"upper-{depth}"
            with our_disk(client, "writable", [layer], upper) as ours, bare_disk(arguments.bare, raw) as bare:
                result = compare(
                    f"TCMU in the VM, 4 KiB random writes, QD {depth}",
                    partial(write_rate, ours, depth),
                    partial(write_rate, bare, depth),
                    unit="writes/s",
                    at_least=WRITE_GOAL,
                    nr_pairs=arguments.pairs,
                )
                print(result.as_json(), flush=True)


def prepare_kernel() -> None:
    for module in ("target_core_user", "tcm_loop", "sd_mod"):
        subprocess.run(["modprobe", module], check=True)
    if not Path("/sys/kernel/config/target").is_dir():
        subprocess.run(["mount", "-t", "configfs", "none", "/sys/kernel/config"], check=True)


def warm_copy(path: Path, folder: Path) -> Path:
    """In the guest's memory: neither side waits for a disk."""
    copy = folder / path.name
    copy.write_bytes(path.read_bytes())
    return copy


if __name__ == "__main__":
    main()
