"""Disks in use, taken as they are at one moment: snapshot and fork."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec

from tcmu_overlaybd.cli.device import absolute, connect, daemon_socket, device_name
from tcmu_overlaybd.cli.image import FILE, commit_options, commit_request, layer_options
from tcmu_overlaybd.cli.options import is_quiet, json_output, print_json, verbosity
from tcmu_overlaybd.daemon.messages import ForkRequest, SnapshotRequest, Snapshotted
from tcmu_overlaybd.errors import UsageError

hold_timeout_option = click.option(
    "--timeout",
    type=click.FloatRange(0.1, 3600),
    default=10.0,
    help="Seconds that writes which run may take to end. [default: 10]",
)


@click.command()
@click.argument("name", nargs=-1, required=True)
@click.option("-o", "--output", type=FILE, help="A new file: the sealed layer, committed.")
@commit_options
@click.option("--detect-zeros", is_flag=True, help="Do not store blocks of zeros.")
@hold_timeout_option
@daemon_socket
@json_output
@verbosity
def snapshot(
    *,
    name: tuple[str, ...],
    output: Path | None,
    detect_zeros: bool,
    timeout: float,
    socket_path: Path | None,
    as_json: bool,
    **how: Any,
) -> None:
    """Seal what the disk NAME has written so far; print the sealed file.

    The disk goes on: new writes go to a new upper on top. Several disks are sealed in one
    pause, so that they fit together. The file system above is as after a power cut: sync or
    freeze it before. With --output the sealed layer is committed, too; its digest and size
    are printed then.
    """
    options = layer_options(detect_zeros=detect_zeros, **how)
    if output is None and (how["zfile"] or how["tar"] or detect_zeros):
        raise UsageError("how a layer is written is of use only with --output")
    request = SnapshotRequest(
        names=tuple(map(device_name, name)),
        timeout=timeout,
        commit=None if output is None else commit_request(output, options),
    )
    request.check()
    made = connect(socket_path).snapshot(request)
    note_pause(made)
    if as_json:
        print_json(msgspec.to_builtins(made))
    elif made.committed is not None:
        click.echo(f"{made.committed.digest} {made.committed.size}")
    else:
        for one in made.devices:
            click.echo(one.sealed)


@click.command()
@click.argument("name")
@click.option("--name", "new_name", required=True, help="What to call the second disk.")
@click.option("--upper", type=click.Path(path_type=Path), help="Folder of its upper; made if absent.")
@click.option("--fabric", default="loopback", help="loopback (a disk of this machine) or none.")
@click.option(
    "--timeout", type=click.FloatRange(0.1, 3600), default=30.0, help="Seconds it may take. [default: 30]"
)
@daemon_socket
@json_output
@verbosity
def fork(
    *,
    name: str,
    new_name: str,
    upper: Path | None,
    fabric: str,
    timeout: float,
    socket_path: Path | None,
    as_json: bool,
) -> None:
    """Make a second writable disk of what the disk NAME holds now; print /dev/sdX.

    Nothing is copied: what NAME has written is sealed, and both go on with uppers of their
    own on top. The sealed file belongs to both, and is never removed by a detach.
    """
    request = ForkRequest(
        name=new_name, upper="" if upper is None else absolute(upper), fabric=fabric, timeout=timeout
    )
    made = connect(socket_path).fork(device_name(name), request)
    note_pause(made.snapshot)
    if as_json:
        print_json(msgspec.to_builtins(made))
    else:
        click.echo(made.device.disk or made.device.backstore)


def note_pause(made: Snapshotted) -> None:
    if is_quiet():
        return
    for one in made.devices:
        click.echo(f"{one.name}: {one.sealed} is sealed, what is written now lies in {one.upper}", err=True)
    click.echo(f"writes waited for {made.pause_ms:.1f} ms", err=True)
