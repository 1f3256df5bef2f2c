"""``tcmu-overlaybd abandon``: what a machine that shuts down does last with our disks."""

from __future__ import annotations

import click

from tcmu_overlaybd.cli.options import is_quiet, verbosity
from tcmu_overlaybd.daemon.folders import Folders


@click.command()
@click.option(
    "--timeout", type=click.FloatRange(0.1, 3600), default=10.0, help="Seconds it may take. [default: 10]"
)
@verbosity
def abandon(*, timeout: float) -> None:
    """Let nothing wait for our disks any more, for the shutdown of the machine.

    The kernel does not flush them any more. When no daemon runs, what waits for one
    fails, now and from now on; acknowledged writes are kept in the journals.
    """
    from tcmu_overlaybd.daemon import without_daemon

    is_alone = without_daemon.let_go_of_all(Folders.choose(), timeout)
    if not is_quiet():
        what = (
            "all I/O to our disks fails" if is_alone else "a daemon runs, so our disks are not flushed only"
        )
        click.echo(what, err=True)
