"""``tcmu-overlaybd image``: whole images as files, without a daemon, a kernel module or root."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tcmu_overlaybd.cli.image_transfer import pull, push
from tcmu_overlaybd.cli.options import json_output, print_json, verbosity
from tcmu_overlaybd.cli.progress import progress_bar
from tcmu_overlaybd.cli.store import open_store
from tcmu_overlaybd.cli.tables import print_fields
from tcmu_overlaybd.cli.values import BLOCK_SIZE

if TYPE_CHECKING:
    from tcmu_overlaybd.daemon.messages import CommitRequest
    from tcmu_overlaybd.image.layer_writer import LayerOptions, WrittenLayer
    from tcmu_overlaybd.image.verify import LayerReport

FILE = click.Path(path_type=Path)
F = TypeVar("F", bound=Callable[..., Any])

source_argument = click.argument("source", nargs=-1, required=True, type=click.Path())
output_option = click.option("-o", "--output", type=FILE, required=True, help="A new file.")


def commit_options(command: F) -> F:
    """How a layer is written; passed on as one ``how`` to ``layer_options``."""
    options = (
        click.option("--zfile", type=click.Choice(["lz4", "zstd"]), help="Compress; without it plain LSMT."),
        click.option("--block-size", type=BLOCK_SIZE, help="Of the ZFile: 4K (the default) to 64K."),
        click.option("--tar", is_flag=True, help="Wrap it in a tar, as OCI layers are."),
        click.option("--uuid", help="Of the new layer; default: the null UUID."),
        click.option("--parent-uuid", metavar="UUID", help="Of the layer below; default: the source's."),
        click.option("--message", default="", help="At most 256 bytes, kept in the header."),
        click.option(
            "--threads", type=click.IntRange(1, 256), help="That compress; default: one per processor."
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def layer_options(*, detect_zeros: bool, **how: Any) -> LayerOptions:
    """Raises UsageError for what does not fit together."""
    from tcmu_overlaybd.errors import UsageError
    from tcmu_overlaybd.formats import uuid_text, zfile
    from tcmu_overlaybd.image.layer_writer import LayerOptions

    if how["block_size"] and not how["zfile"]:
        raise UsageError("a block size is of use only with --zfile")
    values: dict[str, Any] = {"tar": how["tar"], "message": how["message"], "detect_zeros": detect_zeros}
    if how["zfile"]:
        values["codec"] = zfile.Codec[how["zfile"].upper()]
    if how["block_size"]:
        values["block_size"] = how["block_size"]
    if how["threads"]:
        values["nr_threads"] = how["threads"]
    for key in ("uuid", "parent_uuid"):
        if how[key] is not None:
            values[key] = uuid_text.from_user(how[key])
    return LayerOptions(**values)


def print_written(written: WrittenLayer, as_json: bool) -> None:
    if as_json:
        print_json({"path": str(written.path), "digest": written.digest, "size": written.size})
    else:
        click.echo(f"{written.digest} {written.size}")


def is_device_name(text: str) -> bool:
    """Whether text can only mean a disk of the daemon: no file, and no file's name."""
    return not Path(text).exists() and re.fullmatch(r"[A-Za-z0-9_-]+", text) is not None


def commit_request(output: Path, options: LayerOptions) -> CommitRequest:
    """What the daemon is asked for, whose working folder is another."""
    from tcmu_overlaybd.daemon.messages import CommitRequest

    codec: Any = options.codec.name.lower() if options.codec else ""
    return CommitRequest(
        output=str(output.absolute()),
        codec=codec,
        block_size=options.block_size,
        tar=options.tar,
        uuid=options.uuid,
        parent_uuid=options.parent_uuid or "",
        message=options.message,
        threads=options.nr_threads,
        detect_zeros=options.detect_zeros,
    )


def commit_device(name: str, output: Path, options: LayerOptions, as_json: bool) -> None:
    """Has the daemon commit the upper of its disk name."""
    from tcmu_overlaybd.cli.device import SOCKET_VARIABLE, connect
    from tcmu_overlaybd.errors import MissingError, UnavailableError
    from tcmu_overlaybd.image.layer_writer import WrittenLayer

    request = commit_request(output, options)
    socket_path = os.environ.get(SOCKET_VARIABLE)
    try:
        done = connect(Path(socket_path) if socket_path else None).commit(name, request)
    except (MissingError, UnavailableError) as error:  # it may have been meant as a file
        raise type(error)(f"there is no file {name}; as a disk: {error}") from error
    print_written(WrittenLayer(Path(done.path), done.digest, done.size, done.segments), as_json)


@click.group()
def image() -> None:
    """Import, export, commit, merge, verify, push, pull images.

    SOURCE is a registry reference (HOST[:PORT]/REPOSITORY[:TAG|@DIGEST]), a configuration
    (config.v1.json), or layer files, the lowest first.
    """


image.add_command(push)
image.add_command(pull)


@image.command()
@source_argument
@json_output
@verbosity
def info(source: tuple[str, ...], as_json: bool) -> None:
    """Show everything the headers of an image's layers say."""
    from tcmu_overlaybd.image.info import image_info

    with open_store() as store:
        facts = image_info(source, store)
    if as_json:
        print_json(facts)
    else:
        print_fields(facts)


@image.command()
@source_argument
@click.option(
    "-o", "--output", type=FILE, required=True, help="A file, replaced at the end, or a block device."
)
@verbosity
def export(source: tuple[str, ...], output: Path) -> None:
    """Write the stacked image as a raw, sparse file, or onto a block device."""
    from tcmu_overlaybd.image.export import export_image
    from tcmu_overlaybd.image.open import open_image

    with (
        open_store() as store,
        open_image(source, holder="tcmu-overlaybd image export", store=store) as opened,
        progress_bar("export") as progress,
    ):
        export_image(opened.image, output, progress=progress)


@image.command("import")
@click.argument("raw", type=FILE)
@output_option
@commit_options
@click.option("--no-detect-zeros", is_flag=True, help="Store blocks of zeros; holes never are.")
@json_output
@verbosity
def import_command(raw: Path, output: Path, no_detect_zeros: bool, as_json: bool, **how: Any) -> None:
    """Make one committed layer of the raw disk RAW; print its digest and size."""
    from tcmu_overlaybd.image.importing import import_raw

    options = layer_options(detect_zeros=not no_detect_zeros, **how)
    with progress_bar("import") as progress:
        written = import_raw(raw, output, options, progress=progress)
    print_written(written, as_json)


@image.command()
@source_argument
@output_option
@commit_options
@click.option("--detect-zeros", is_flag=True, help="Do not store blocks of zeros.")
@json_output
@verbosity
def commit(source: tuple[str, ...], output: Path, detect_zeros: bool, as_json: bool, **how: Any) -> None:
    """Make a sealed layer of an image's upper; print its digest and size.

    SOURCE may also be the name of an attached disk: the daemon commits it while it is in use.
    """
    from tcmu_overlaybd.image.commit import commit_image

    options = layer_options(detect_zeros=detect_zeros, **how)
    if len(source) == 1 and is_device_name(source[0]):
        commit_device(source[0], output, options, as_json)
        return
    with open_store() as store, progress_bar("commit") as progress:
        written = commit_image(source, output, options, progress=progress, store=store)
    print_written(written, as_json)


@image.command()
@source_argument
@output_option
@commit_options
@click.option("--detect-zeros", is_flag=True, help="Do not store blocks of zeros.")
@json_output
@verbosity
def merge(source: tuple[str, ...], output: Path, detect_zeros: bool, as_json: bool, **how: Any) -> None:
    """Flatten an image into one layer; print its digest and size."""
    from tcmu_overlaybd.image.merge import merge_image

    options = layer_options(detect_zeros=detect_zeros, **how)
    with open_store() as store, progress_bar("merge") as progress:
        written = merge_image(source, output, options, progress=progress, store=store)
    print_written(written, as_json)


@image.command()
@source_argument
@json_output
@verbosity
def verify(source: tuple[str, ...], as_json: bool) -> None:
    """Check every checksum of every layer; exit code 5 when something is damaged."""
    from tcmu_overlaybd.errors import CorruptError
    from tcmu_overlaybd.image.verify import verify_image

    with open_store() as store, progress_bar("verify") as progress:
        reports = verify_image(source, progress=progress, store=store)
    problems = [problem for report in reports for problem in report.problems]
    if as_json:
        print_json({"sound": not problems, "layers": [vars(report) for report in reports]})
    else:
        for number, report in enumerate(reports, 1):
            _print_report(number, len(reports), report)
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise CorruptError(problems[0] + more)


def _print_report(number: int, total: int, report: LayerReport) -> None:
    verdict = "DAMAGED" if report.problems else "sound"
    click.echo(f"layer {number} of {total}: {report.path}: {verdict}, {report.checksums} checksums checked")
    for problem in report.problems:
        click.echo(f"  problem: {problem}")
    for note in report.notes:
        click.echo(f"  note: {note}")
