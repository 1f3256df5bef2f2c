"""``tcmu-overlaybd nbd``: an image as an NBD server, from this process.

No daemon, no root, no kernel module.  It ends, flushed, at Ctrl-C, SIGTERM or
SIGHUP, or when the command of ``--run`` ends, whose exit code is then its own.
"""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click

from tcmu_overlaybd.cli.interrupt import interruptible
from tcmu_overlaybd.cli.options import PROGRAM, log, on_timeout_option, set_level, verbosity
from tcmu_overlaybd.cli.stop_signals import StopSignals
from tcmu_overlaybd.cli.store import open_store
from tcmu_overlaybd.cli.values import BYTES
from tcmu_overlaybd.daemon.logs import LogPump
from tcmu_overlaybd.daemon.metrics_server import MetricsServer, parse_address
from tcmu_overlaybd.image.open import open_image
from tcmu_overlaybd.logs.output import limit
from tcmu_overlaybd.metrics.exposition import Exposition
from tcmu_overlaybd.native import testing
from tcmu_overlaybd.native.core import OnTimeout
from tcmu_overlaybd.nbd.readings import NbdReadings
from tcmu_overlaybd.nbd.service import serve_image
from tcmu_overlaybd.nbd.socket_folder import socket_folder

COMMAND_GRACE_SECONDS = 5.0  # for the command of --run after SIGTERM


@click.command()
@click.argument("source", nargs=-1, required=True, type=click.Path())
@click.option(
    "--socket",
    "socket_path",
    type=click.Path(path_type=Path),
    help="Listen here instead of a private folder.",
)
@click.option("--writable", is_flag=True, help="Let clients write, into the upper.")
@click.option(
    "--upper", "upper_dir", type=click.Path(path_type=Path), help="Folder of the upper; made if absent."
)
@click.option("--size", type=BYTES, help="Size of the disk, in bytes or as 10G, for a new upper.")
@click.option("--sparse", is_flag=True, help="A new upper is a sparse file, written in place.")
@click.option("--drop-unflushed", is_flag=True, help="Give up a journal that does not belong to the upper.")
@click.option("--run", "command", help="Run this shell command, with $uri set, and end with it.")
@click.option(
    "--timeout",
    type=click.FloatRange(0.1, 3600),
    default=20.0,
    help="Seconds that a read waits for missing data. [default: 20]",
)
@on_timeout_option
@click.option("--metrics", metavar="ADDRESS:PORT", help="Serve metrics at http://ADDRESS:PORT/metrics.")
@verbosity
def nbd(
    *,
    source: tuple[str, ...],
    socket_path: Path | None,
    writable: bool,
    upper_dir: Path | None,
    size: int | None,
    sparse: bool,
    drop_unflushed: bool,
    command: str | None,
    timeout: float,
    on_timeout: str,
    metrics: str | None,
) -> int:
    """Serve SOURCE as NBD on a unix socket; print its URI when ready.

    SOURCE is a registry reference (HOST[:PORT]/REPOSITORY[:TAG|@DIGEST]), an image
    configuration, a folder of one, or layer files, lowest first.
    """
    testing.arm_from_environment()
    limit_log()
    policy = OnTimeout[on_timeout.upper()] if on_timeout else OnTimeout.ERROR
    with LogPump(), StopSignals() as signals, socket_at(socket_path) as path, open_store() as store:
        with signals.interrupting(), interruptible():  # a registry may be slow, or dead
            opened = open_image(
                source,
                writable=writable,
                upper_dir=upper_dir,
                size=size,
                sparse=sparse,
                drop_unflushed=drop_unflushed,
                holder=f"{PROGRAM} nbd",
                store=store,
            )
        if writable and opened.image.is_read_only:
            log.warning("%s: its upper has failed; what was flushed last is served, read-only", opened.name)
        with (
            serve_image(opened, path, io_timeout_ms=int(timeout * 1000), on_timeout=policy) as server,
            metrics_at(metrics, NbdReadings(opened, server.device, store)),
        ):
            if command is not None:
                return run_command(command, server.uri, signals)
            click.echo(server.uri)
            signals.wait()
    return 0


def limit_log() -> None:
    """It may run for days, beside a registry that is gone."""
    if log.level == logging.NOTSET:
        set_level(logging.WARNING)
    limit(log)


@contextmanager
def metrics_at(address: str | None, readings: NbdReadings) -> Iterator[None]:
    """While the context lasts readings are served at address, if there is one."""
    with ExitStack() as stack:
        if address is not None:
            stack.enter_context(MetricsServer(parse_address(address), Exposition(readings)))
        stack.enter_context(readings)
        yield


@contextmanager
def socket_at(path: Path | None) -> Iterator[Path]:
    """The path asked for, or one in a folder of our own that goes away with us."""
    if path is not None:
        yield path
        return
    with socket_folder() as path_of_our_own:
        yield path_of_our_own


def run_command(command: str, uri: str, signals: StopSignals) -> int:
    """Runs command with $uri set; a signal to us ends it too.  Returns its exit code."""
    process = subprocess.Popen(["/bin/sh", "-c", command], env={**os.environ, "uri": uri})
    pid_fd = os.pidfd_open(process.pid)
    try:
        if signals.wait(pid_fd):
            end_process(process)
        code = process.wait()
    finally:
        os.close(pid_fd)
    return code if code >= 0 else 128 - code


def end_process(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(COMMAND_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
