"""``tcmu-overlaybd layer``: single layer files."""

from __future__ import annotations

from pathlib import Path

import click

from tcmu_overlaybd.cli.options import json_output, print_json, verbosity
from tcmu_overlaybd.cli.tables import print_fields
from tcmu_overlaybd.cli.values import BYTES

FILE = click.Path(path_type=Path)


@click.group()
def layer() -> None:
    """Create a writable layer, look into a layer file."""


@layer.command()
@click.argument("data", type=FILE)
@click.argument("index", type=FILE)
@click.argument("size", type=BYTES)
@click.option("--sparse", is_flag=True, help="A sparse data file, written in place.")
@click.option("--parent-uuid", metavar="UUID", help="Of the layer below.")
@json_output
@verbosity
def create(
    *, data: Path, index: Path, size: int, sparse: bool, parent_uuid: str | None, as_json: bool
) -> None:
    """Make the files DATA and INDEX of a new writable layer of SIZE bytes.

    SIZE 0 is that of the layers below.  Prints the layer's UUID.
    """
    from tcmu_overlaybd.formats import uuid_text
    from tcmu_overlaybd.image.create import create_layer

    parent = uuid_text.from_user(parent_uuid) if parent_uuid else uuid_text.NULL
    uuid = create_layer(data, index, size, sparse=sparse, parent_uuid=parent)
    if as_json:
        print_json({"data": str(data), "index": str(index), "size": size, "uuid": uuid})
    else:
        click.echo(uuid)


@layer.command()
@click.argument("file", type=FILE)
@json_output
@verbosity
def info(file: Path, as_json: bool) -> None:
    """Show everything the headers of the layer FILE say."""
    from tcmu_overlaybd.image.info import layer_info

    facts = layer_info(file)
    if as_json:
        print_json(facts)
    else:
        print_fields(facts)
