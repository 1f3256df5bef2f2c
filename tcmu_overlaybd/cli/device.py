"""Disks of this machine: attach, detach, list, status.  All of them ask the daemon; only a
forced detach can do without one.

Paths are made absolute here, because the daemon has another working folder; a mount is
made here, because it belongs to the caller's mount namespace.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from tcmu_overlaybd.cli.options import is_quiet, json_output, on_timeout_option, print_json, verbosity
from tcmu_overlaybd.cli.tables import print_columns, print_fields
from tcmu_overlaybd.cli.values import BYTES
from tcmu_overlaybd.daemon.client import Client
from tcmu_overlaybd.daemon.folders import Folders
from tcmu_overlaybd.daemon.messages import AttachRequest, DetachRequest, DeviceStatus, ResizeRequest
from tcmu_overlaybd.errors import (
    BusyError,
    FailedError,
    MissingError,
    OverlayBDError,
    UnavailableError,
    UsageError,
)
from tcmu_overlaybd.lio.fabric import FabricKind
from tcmu_overlaybd.lio.iscsi import Chap

SOCKET_VARIABLE = "TCMU_OVERLAYBD_SOCKET"
MOUNT_TIMEOUT_S = 60
ANSWER_S = 5  # a daemon that lives has done so by then

F = TypeVar("F", bound=Callable[..., Any])


def daemon_socket(command: F) -> F:
    """Adds --socket, passed as ``socket_path``."""
    return click.option(
        "--socket",
        "socket_path",
        type=click.Path(path_type=Path),
        envvar=SOCKET_VARIABLE,
        help=f"The daemon's control socket (also ${SOCKET_VARIABLE}).",
    )(command)


def iscsi_options(command: F) -> F:
    """Adds what only --fabric iscsi has."""
    for option in (
        click.option("--no-chap", is_flag=True, help="No password; on a portal of this machine only."),
        click.option(
            "--chap-file",
            type=click.Path(path_type=Path),
            help="File with USER:PASSWORD for CHAP; else a password is made up, and lies in a file.",
        ),
        click.option("--initiator", default="", help="The only one that may log in, by its iSCSI name."),
        click.option(
            "--portal",
            default="",
            help="ADDRESS[:PORT] to listen at. [default: 127.0.0.1:3260, this machine]",
        ),
    ):
        command = option(command)
    return command


def connect(socket_path: Path | None) -> Client:
    return Client(socket_path or Folders.choose().socket)


@click.command()
@click.argument("source", nargs=-1, type=click.Path())
@click.option("--name", default="", help="What to call the device; else disk0, disk1, ...")
@click.option("--writable", is_flag=True, help="Let the disk be written: into an upper, which is kept.")
@click.option("--upper", type=click.Path(path_type=Path), help="Folder of the upper; made if absent.")
@click.option("--new", is_flag=True, help="A blank writable disk of --size bytes.")
@click.option("--size", type=BYTES, default=0, help="Size of the disk, in bytes or as 10G, for a new upper.")
@click.option("--sparse", is_flag=True, help="A new upper is a sparse file, written in place.")
@click.option(
    "--mount", "mount_point", type=click.Path(path_type=Path), help="Mount the disk on this folder."
)
@click.option("--fabric", default="loopback", help="loopback (a disk of this machine), iscsi, or none.")
@iscsi_options
@click.option(
    "--timeout", type=click.FloatRange(0.1, 3600), default=30.0, help="Seconds it may take. [default: 30]"
)
@on_timeout_option
@click.option("--drop-unflushed", is_flag=True, help="Give up a journal that does not belong to the upper.")
@daemon_socket
@json_output
@verbosity
def attach(
    *,
    source: tuple[str, ...],
    upper: Path | None,
    mount_point: Path | None,
    chap_file: Path | None,
    socket_path: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Make a disk of SOURCE; print /dev/sdX when it can be read, or the name of its iSCSI target.

    SOURCE is a registry reference (HOST[:PORT]/REPOSITORY[:TAG|@DIGEST]), an image
    configuration, a folder of one, or layer files, lowest first.
    """
    if mount_point is not None and not mount_point.is_dir():
        raise MissingError(f"{mount_point}: no such folder to mount on")
    request = AttachRequest(
        source=tuple(located(text) for text in source),
        upper="" if upper is None else absolute(upper),
        chap=None if chap_file is None else read_chap(chap_file),
        **options,
    )
    request.check()
    if mount_point is not None and request.fabric != FabricKind.LOOPBACK:
        raise UsageError(f"--mount: there is no disk to mount with --fabric {request.fabric}")
    for path in filter(os.path.isabs, request.source):
        require(path)
    client = connect(socket_path)
    status = client.attach(request)
    if mount_point is not None:
        mount_or_detach(client, status, mount_point)
    note_upper(status)
    note_chap(status)
    if as_json:
        print_json(msgspec.to_builtins(status))
    else:
        click.echo(status.disk or status.target or status.backstore)


@click.command()
@click.argument("name")
@click.option(
    "--force", is_flag=True, help="Even when it is in use, or no daemon runs: what it waits for fails."
)
@click.option(
    "--timeout", type=click.FloatRange(0.1, 3600), default=30.0, help="Seconds it may take. [default: 30]"
)
@daemon_socket
@json_output
@verbosity
def detach(*, name: str, force: bool, timeout: float, socket_path: Path | None, as_json: bool) -> None:
    """Remove the disk NAME. Refused while it is mounted or open.

    NAME may also be given as /dev/sdX, /dev/overlaybd/NAME, or any link to the disk,
    such as those in /dev/disk/by-id.
    """
    ask = detach_by_force if force else detach_by_daemon
    device = ask(connect(socket_path), device_name(name), timeout)
    note_upper(device)
    if as_json:
        print_json(msgspec.to_builtins(device))


def detach_by_daemon(client: Client, name: str, timeout_s: float) -> DeviceStatus:
    return client.detach(name, DetachRequest(timeout=timeout_s))


def daemon_answers(client: Client) -> bool:
    try:
        client.version(ANSWER_S)
    except UnavailableError:
        return False
    return True


def detach_by_force(client: Client, name: str, timeout_s: float) -> DeviceStatus:
    """By the daemon; when there is none, by this process."""
    try:
        return client.detach(name, DetachRequest(force=True, timeout=timeout_s))
    except UnavailableError as error:
        if daemon_answers(client):
            raise
        no_answer = error
    from tcmu_overlaybd.daemon import without_daemon

    try:
        return without_daemon.detach(Folders.choose(), name, timeout_s)
    except BusyError as error:
        raise type(no_answer)(f"{no_answer} ({error})") from error


@click.command()
@click.argument("name")
@click.argument("size", type=BYTES, metavar="BYTES")
@click.option(
    "--timeout", type=click.FloatRange(0.1, 3600), default=30.0, help="Seconds it may take. [default: 30]"
)
@daemon_socket
@json_output
@verbosity
def resize(*, name: str, size: int, timeout: float, socket_path: Path | None, as_json: bool) -> None:
    """Make the writable disk NAME larger, to BYTES in all, while it is used.

    The kernel sees the new size at once; the file system on it is grown by its own tool,
    such as resize2fs. Initiators of an iSCSI target have to rescan their session.
    """
    device = connect(socket_path).resize(device_name(name), ResizeRequest(size=size, timeout=timeout))
    if as_json:
        print_json(msgspec.to_builtins(device))


@click.command(name="list")
@daemon_socket
@json_output
@verbosity
def list_devices(*, socket_path: Path | None, as_json: bool) -> None:
    """List the devices that are attached."""
    devices = connect(socket_path).devices()
    if as_json:
        print_json(msgspec.to_builtins(devices))
        return
    print_columns([("NAME", "STATE", "DISK", "SIZE", "MODE", "CACHED", "SOURCE"), *map(row_of, devices)])


@click.command()
@click.argument("name", required=False)
@click.option("--cache", "of_cache", is_flag=True, help="Of the cache that all devices share, instead.")
@daemon_socket
@json_output
@verbosity
def status(*, name: str | None, of_cache: bool, socket_path: Path | None, as_json: bool) -> None:
    """Say everything about one device, or about all.

    NAME may also be given as /dev/sdX, /dev/overlaybd/NAME, or any link to the disk.
    """
    if of_cache and name is not None:
        raise UsageError("--cache is of all devices: leave NAME out")
    client = connect(socket_path)
    if of_cache:
        totals = msgspec.to_builtins(client.cache())
        (print_json if as_json else print_fields)(totals)
        return
    if name is not None:
        show(msgspec.to_builtins(client.status(device_name(name))), as_json=as_json)
        return
    devices = msgspec.to_builtins(client.devices())
    if as_json:
        print_json(devices)
        return
    for number, device in enumerate(devices):
        click.echo("", nl=number > 0)
        show(device, as_json=False)


REMOTE_KEYS = ("bytes_fetched", "bytes_cached", "requests", "fetch_errors", "remote_layers", "download")


def show(device: dict[str, Any], *, as_json: bool) -> None:
    """One device; as text without what there is nothing to say of."""
    if as_json:
        print_json(device)
        return
    for key in ("source", "registry", "sealed"):
        device[key] = " ".join(device[key])
    if not device["remote_layers"]:  # then these are zeros, and no news
        device = {key: value for key, value in device.items() if key not in REMOTE_KEYS}
    print_fields({key: value for key, value in device.items() if value not in ("", {})})


def located(source: str) -> str:
    """What the daemon understands: a registry reference as it is, else an absolute path."""
    return source if not Path(source).exists() and looks_remote(source) else absolute(source)


def absolute(path: str | Path) -> str:
    return os.path.abspath(path)  # noqa: PTH100 ".." is to go, symbolic links are to stay


def require(path: str) -> None:
    """Raises MissingError for a path that is not there: a slip of the pen needs no daemon to be seen.

    What we may not look at, the daemon perhaps may; it says what it finds.
    """
    try:
        Path(path).stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MissingError(f"{path}: no such file") from error
    except OSError:
        pass


def looks_remote(text: str) -> bool:
    from tcmu_overlaybd.image.source import is_reference

    return is_reference(text)


def device_name(text: str) -> str:
    """``sda`` for ``/dev/sda`` or a link to it, ``web`` for ``/dev/overlaybd/web``, else as it is."""
    if text.startswith("/dev/overlaybd/"):
        return Path(text).name
    return Path(text).resolve().name if text.startswith("/dev/") else text


def note_upper(device: DeviceStatus) -> None:
    if device.upper and not is_quiet():
        click.echo(f"what is written lies in {device.upper}", err=True)


def read_chap(path: Path) -> Chap:
    """Raises MissingError, UsageError."""
    require(absolute(path))
    return Chap.parse(path.read_text(), str(path))


def note_chap(device: DeviceStatus) -> None:
    if device.chap_file and not is_quiet():
        click.echo(f"USER:PASSWORD for CHAP lies in {device.chap_file}", err=True)


def mount_or_detach(client: Client, device: DeviceStatus, point: Path) -> None:
    """Mounts the disk on point; when that fails there is no disk either."""
    try:
        mount(device, point)
    except OverlayBDError:
        client.detach(device.name, DetachRequest())
        raise


def mount(device: DeviceStatus, point: Path) -> None:
    program = shutil.which("mount")
    if program is None:
        raise UnavailableError("there is no mount program: apt-get install mount")
    options = [] if device.writable else ["-o", "ro"]
    try:
        result = subprocess.run(
            [program, *options, device.disk, os.fspath(point)],
            capture_output=True,
            text=True,
            timeout=MOUNT_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise FailedError(f"{device.disk}: not mounted within {MOUNT_TIMEOUT_S} s") from None
    if result.returncode != 0:
        reason = " ".join(result.stderr.split()) or f"mount: exit code {result.returncode}"
        raise FailedError(f"{device.disk}: not mounted on {point}: {reason}")


def row_of(device: DeviceStatus) -> tuple[str, ...]:
    mode = "rw" if device.writable else "ro"
    source = device.source[-1] if device.source else "(new)"
    more = f" (+{len(device.source) - 1})" if len(device.source) > 1 else ""
    return (
        device.name,
        device.state,
        device.disk or device.target or "-",
        str(device.size),
        mode,
        cached_part(device),
        source + more,
    )


def cached_part(device: DeviceStatus) -> str:
    """How much of the layers that come from registries is here: ``37%``, rounded down."""
    if any(not layer.is_local for layer in device.remote_layers):
        here = sum(layer.size if layer.is_local else layer.cached for layer in device.remote_layers)
        return f"{here * 100 // sum(layer.size for layer in device.remote_layers)}%"
    return "local"
