"""``tcmu-overlaybd upgrade``: a new daemon in the place of the one that runs."""

from __future__ import annotations

import time
from pathlib import Path

import click
import msgspec

from tcmu_overlaybd.cli.device import connect, daemon_socket
from tcmu_overlaybd.cli.options import is_quiet, json_output, print_json, verbosity
from tcmu_overlaybd.daemon.client import Client
from tcmu_overlaybd.daemon.messages import UpgradeStatus
from tcmu_overlaybd.errors import FailedError, TimeoutExpiredError, UnavailableError

POLL_S = 0.05
NOBODY_S = 5.0  # without a daemon that answers: then there is none


@click.command()
@click.option(
    "--timeout",
    type=click.FloatRange(1, 3600),
    default=120.0,
    help="Seconds that the new daemon may take to serve. [default: 120]",
)
@daemon_socket
@json_output
@verbosity
def upgrade(*, timeout: float, socket_path: Path | None, as_json: bool) -> None:
    """Let the program as it is installed now take over, while the disks are used.

    The daemon that runs starts its own command line anew, and leaves when the new one is
    ready to take its place; what programs do to the disks waits that long. If the new one
    cannot start, the old one goes on.
    """
    client = connect(socket_path)
    before = client.begin_upgrade()
    after = wait_for_successor(client, before.pid, time.monotonic() + timeout)
    if as_json:
        print_json(msgspec.to_builtins(after))
    elif not is_quiet():
        click.echo(f"pid {after.pid}, version {after.version}, serves instead of pid {before.pid}", err=True)


def wait_for_successor(client: Client, old: int, deadline: float) -> UpgradeStatus:
    """Raises FailedError when the old daemon stays, TimeoutExpiredError when nothing is decided in time,
    UnavailableError when neither is there any more."""
    while time.monotonic() < deadline:
        status = ask(client, deadline)
        if status.pid != old:
            return status
        if status.state == "failed":
            raise FailedError(f"{status.reason}; the daemon goes on (pid {old}, version {status.version})")
        time.sleep(POLL_S)
    raise TimeoutExpiredError(f"{client.path}: pid {old} has not been replaced in time")


def ask(client: Client, deadline: float) -> UpgradeStatus:
    """The old daemon may end while it answers: the new one is asked then, which has the same socket."""
    nobody_until = min(time.monotonic() + NOBODY_S, deadline)
    while True:
        try:
            return client.upgrade_status(max(deadline - time.monotonic(), 0.1))
        except UnavailableError:
            if time.monotonic() > nobody_until:
                raise
        time.sleep(POLL_S)
