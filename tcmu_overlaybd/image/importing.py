"""``image import``: a raw disk as one committed layer.

Holes of the file are not stored, and blocks of zeros only when asked: the layer is a
lowest one, so what it does not have reads as zeros.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tcmu_overlaybd.errors import MissingError, UsageError
from tcmu_overlaybd.formats import lsmt, uuid_text
from tcmu_overlaybd.image.layer_writer import LayerOptions, Progress, WrittenLayer, no_progress, write_layer
from tcmu_overlaybd.native.image import Image, Layer


def import_raw(
    raw: Path, output: Path, options: LayerOptions, *, progress: Progress = no_progress
) -> WrittenLayer:
    """Writes the disk in the file raw as the layer output; its size is rounded up to 512.

    Raises MissingError, UsageError when raw is no file or empty, and what write_layer raises.
    """
    if not raw.exists():
        raise MissingError(f"{raw}: no such file")
    if not raw.is_file():
        raise UsageError(f"{raw}: not a regular file")
    length = raw.stat().st_size
    size = -(-length // lsmt.SECTOR_SIZE) * lsmt.SECTOR_SIZE
    if size == 0:
        raise UsageError(f"{raw}: it is empty, which is no disk")
    with (
        Layer.open_raw(str(raw)) as layer,
        Image.open([layer], None, virtual_size=size, name=str(raw)) as image,
    ):
        return write_layer(image, output, replace(options, drop_zeros=True), uuid_text.NULL, progress)
