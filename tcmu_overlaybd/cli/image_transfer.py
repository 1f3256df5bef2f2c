"""``tcmu-overlaybd image push`` and ``pull``: images to and from a registry."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from tcmu_overlaybd.cli.options import json_output, print_json, verbosity
from tcmu_overlaybd.cli.progress import layer_bars
from tcmu_overlaybd.cli.store import chosen_settings
from tcmu_overlaybd.cli.values import BYTES

if TYPE_CHECKING:
    from tcmu_overlaybd.registry.client import RegistryClient
    from tcmu_overlaybd.registry.platforms import Platform
    from tcmu_overlaybd.remote.pull import PulledImage
    from tcmu_overlaybd.remote.push import PushedImage

# Each wait inside is bounded much tighter, by a connection on which nothing moves.
TIMEOUT_S = 24 * 3600.0
# A registry reads all of a large blob before it answers to its end.
STALL_TIMEOUT_S = 60.0

FILE = click.Path(path_type=Path)
F = TypeVar("F", bound=Callable[..., object])


def registry_options(command: F) -> F:
    """How the registry is reached; passed on as ``platform``, ``ca_file`` and ``insecure``."""
    options = (
        click.option("--platform", metavar="OS/ARCH[/VARIANT]", help="Default: of this machine."),
        click.option("--ca-file", type=FILE, help="Trust this CA (PEM) and no other."),
        click.option("--insecure", multiple=True, metavar="HOST", help="Speak plain HTTP to HOST, too."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@contextmanager
def clients(ca_file: Path | None, insecure: tuple[str, ...]) -> Iterator[Callable[[str], RegistryClient]]:
    """Gives a function from hosts to clients, which know who we are as ``login`` has kept it.

    The options add to what the configuration of tools says (store.py).
    """
    from tcmu_overlaybd.registry.client import RegistryClient

    settings = chosen_settings()
    transport = replace(
        settings.transport,
        ca_file=ca_file or settings.transport.ca_file,
        stall_timeout_s=STALL_TIMEOUT_S,
    )
    credentials = settings.credentials
    insecure_hosts = settings.insecure_hosts | {host.lower() for host in insecure}
    made: dict[str, RegistryClient] = {}
    with ExitStack() as stack:

        def client_of(host: str) -> RegistryClient:
            if host not in made:
                client = RegistryClient(host, transport, credentials, insecure_hosts=insecure_hosts)
                made[host] = stack.enter_context(client)
            return made[host]

        yield client_of


@contextmanager
def ending_in_order() -> Iterator[None]:
    """SIGTERM and SIGHUP are as Ctrl-C: uploads end between two chunks, where a registry lets them go on."""
    signals = (signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.default_int_handler) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@click.command()
@click.argument("source", nargs=-1, required=True)
@click.argument("reference")
@click.option(
    "--oci", is_flag=True, help="With OCI's media types; else docker's, or those of the image below."
)
@click.option("--message", default="", help="For the history of the image.")
@click.option("--chunk-size", type=BYTES, default=8 << 20, help="Of an upload; 8M by default.")
@registry_options
@json_output
@verbosity
def push(
    *,
    source: tuple[str, ...],
    reference: str,
    oci: bool,
    message: str,
    chunk_size: int,
    platform: str | None,
    ca_file: Path | None,
    insecure: tuple[str, ...],
    as_json: bool,
) -> None:
    """Push an image to HOST[:PORT]/REPOSITORY[:TAG]; print the name under which it can be attached.

    SOURCE is layer files, lowest first; or a configuration (config.v1.json, or its folder) or an
    image in a registry, and perhaps layer files on top of it.
    """
    from tcmu_overlaybd.image.push_source import push_source
    from tcmu_overlaybd.registry.deadline import Deadline
    from tcmu_overlaybd.registry.kept_uploads import KeptUploads
    from tcmu_overlaybd.registry.media_types import OCI
    from tcmu_overlaybd.registry.reference import Reference
    from tcmu_overlaybd.registry.upload import Uploader
    from tcmu_overlaybd.remote.push import ImagePush

    target = Reference.parse(reference)
    deadline = Deadline.after(TIMEOUT_S)
    kept = KeptUploads(uploads_folder())
    kept.forget_old()
    with ending_in_order(), clients(ca_file, insecure) as client_of, layer_bars() as progress:
        uploader = Uploader(client_of(target.host), target.repository, chunk_size, kept)
        image_push = ImagePush(client_of, uploader, target, deadline, progress)
        layers, base = push_source(source, client_of, deadline, wanted_platform(platform))
        pushed = image_push.run(layers, replace(base, family=OCI) if oci else base, message)
    print_pushed(pushed, as_json)


@click.command()
@click.argument("reference")
@click.option("-o", "--output", type=FILE, required=True, help="A folder: a new one, or of an earlier pull.")
@registry_options
@json_output
@verbosity
def pull(
    *,
    reference: str,
    output: Path,
    platform: str | None,
    ca_file: Path | None,
    insecure: tuple[str, ...],
    as_json: bool,
) -> None:
    """Pull an image into a folder: its layers, and a config.v1.json that can be attached.

    One that was interrupted goes on when it is run again.
    """
    from tcmu_overlaybd.registry.deadline import Deadline
    from tcmu_overlaybd.registry.reference import Reference
    from tcmu_overlaybd.remote.pull import ImagePull

    wanted = Reference.parse(reference)
    with ending_in_order(), clients(ca_file, insecure) as client_of, layer_bars() as progress:
        image_pull = ImagePull(client_of(wanted.host), Deadline.after(TIMEOUT_S), progress)
        pulled = image_pull.run(wanted, output, wanted_platform(platform))
    print_pulled(pulled, as_json)


def wanted_platform(text: str | None) -> Platform | None:
    from tcmu_overlaybd.registry.platforms import Platform

    return Platform.parse(text) if text else None


def uploads_folder() -> Path:
    """Where uploads are remembered: beside the cache of an ordinary user."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "tcmu-overlaybd" / "uploads"


def print_pushed(pushed: PushedImage, as_json: bool) -> None:
    if not as_json:
        click.echo(f"{pushed.reference}@{pushed.digest}")
        return
    facts = {"reference": str(pushed.reference), "digest": pushed.digest, "mediaType": pushed.media_type}
    print_json({**facts, "layers": [vars(layer) for layer in pushed.layers]})


def print_pulled(pulled: PulledImage, as_json: bool) -> None:
    if not as_json:
        click.echo(pulled.config)
        return
    facts = {"reference": str(pulled.reference), "digest": pulled.digest, "config": str(pulled.config)}
    print_json({**facts, "layers": [{**vars(layer), "path": str(layer.path)} for layer in pulled.layers]})
