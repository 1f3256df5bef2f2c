"""A device over one layer of which a server has the bytes: image, core and device, and no daemon."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tcmu_overlaybd.image.importing import import_raw
from tcmu_overlaybd.image.layer_file import LayerFile, open_zfile, read_layer_file
from tcmu_overlaybd.image.layer_place import FilePlace
from tcmu_overlaybd.image.layer_writer import LayerOptions
from tcmu_overlaybd.native.core import Core, Device, OnTimeout
from tcmu_overlaybd.native.image import Image, Layer
from tcmu_overlaybd.native.source import Source
from tcmu_overlaybd.registry.deadline import Deadline
from tests.remote.cached_blob import Blobs

OPEN_TIMEOUT_MS = 60_000


def make_layer(folder: Path, plain: bytes, options: LayerOptions | None = None) -> Path:
    """A layer file of a disk that holds plain; the disk is beside it in ``raw``."""
    raw, layer = folder / "raw", folder / "layer"
    raw.write_bytes(plain)
    import_raw(raw, layer, options or LayerOptions())
    return layer


def random_disk(size: int, seed: int) -> bytes:
    """Of which no part is like another."""
    return random.Random(seed).randbytes(size)


@contextmanager
def open_disk(
    blobs: Blobs,
    url: str,
    layer: Path,
    *,
    io_timeout_ms: int = 0,
    on_timeout: OnTimeout = OnTimeout.ERROR,
) -> Iterator[Device]:
    """layer tells what is at url; its bytes come from there."""
    file = read_layer_file(FilePlace(layer))
    with ExitStack() as stack:
        source = _unwrapped(blobs.open(url, layer.read_bytes()), file, stack)
        opened = stack.enter_context(
            Layer.open(
                source,
                index_offset=file.trailer.index_offset,
                nr_entries=file.trailer.index_size,
                virtual_size=file.trailer.virtual_size,
                timeout_ms=OPEN_TIMEOUT_MS,
            )
        )
        image = stack.enter_context(
            Image.open([opened], None, virtual_size=file.trailer.virtual_size, name="disk")
        )
        core = stack.enter_context(Core.open())
        yield stack.enter_context(
            Device.open(core, image, name="disk", io_timeout_ms=io_timeout_ms, on_timeout=on_timeout)
        )


def _unwrapped(source: Source, file: LayerFile, stack: ExitStack) -> Source:
    index = file.containers.zfile_index
    if index is None:
        return source
    return stack.enter_context(open_zfile(source, index, Deadline.after(OPEN_TIMEOUT_MS / 1000)))
