"""``image commit``: the top of an image as a new, dense, sealed layer (spec/lsmt.md section 7)."""

from __future__ import annotations

from pathlib import Path

import msgspec

from tcmu_overlaybd.config.image_config import ImageConfig
from tcmu_overlaybd.errors import UsageError
from tcmu_overlaybd.image.layer_file import read_layer_file
from tcmu_overlaybd.image.layer_writer import LayerOptions, Progress, WrittenLayer, no_progress, write_layer
from tcmu_overlaybd.image.lowers import lower_place, lowers_size, open_lowers
from tcmu_overlaybd.image.open import OpenImage, open_image
from tcmu_overlaybd.image.source import Source, resolve_source
from tcmu_overlaybd.image.upper_pair import read_upper_pair
from tcmu_overlaybd.remote.store import BlobStore


def commit_image(
    source: Source,
    output: Path,
    options: LayerOptions,
    *,
    holder: str = "tcmu-overlaybd image commit",
    progress: Progress = no_progress,
    store: BlobStore | None = None,
) -> WrittenLayer:
    """Writes the upper that source names, or its sealed top layer, as the layer output.

    The source stays as it is.  Raises UsageError when there is nothing to commit, BusyError
    when another process holds the upper, and what write_layer raises.
    """
    config = resolve_source(source, store)
    top, parent, size = _top_of(config, store)
    with open_image(top, size=size, name=str(output), holder=holder, store=store) as opened:
        return write_layer(opened.image, output, options, parent, progress)


def commit_open_image(
    opened: OpenImage, output: Path, options: LayerOptions, *, progress: Progress = no_progress
) -> WrittenLayer:
    """Writes the upper of an image that is in use: everything acknowledged by now, nothing later.

    Raises UsageError when the image is not writable, or is written in place, so that later
    writes would be in the layer too; and what write_layer raises.
    """
    if opened.upper is None or opened.image.is_read_only:
        raise UsageError(f"{opened.name}: there is nothing to commit: it is not writable")
    if opened.upper.kind == "sparse":
        raise UsageError(
            f"{opened.name}: a sparse upper cannot be committed while it is written: detach it first"
        )
    opened.image.flush()
    parent = opened.upper.parent_uuid
    return write_layer(opened.image, output, options, parent, progress, upper_only=True)


def _top_of(config: ImageConfig, store: BlobStore | None) -> tuple[ImageConfig, str, int]:
    """What is to be committed, as an image of its own; its parent's UUID; the size of its disk."""
    if config.writable is not None:
        pair = read_upper_pair(Path(config.writable.data), Path(config.writable.index))
        size = pair.virtual_size or _size_below(config, store)
        return ImageConfig(upper=config.upper), pair.parent_uuid, size
    if not config.layers:
        raise UsageError("there is nothing to commit: the image has no layers")
    place = lower_place(config.layers[-1], config, store)
    file = read_layer_file(place)
    if len(config.layers) > 1 and file.kind == "committed":
        raise UsageError(
            f"there is nothing to commit: the image has no upper, and {place.name} is committed already;"
            " image merge makes one layer of all"
        )
    return (
        msgspec.structs.replace(config, lowers=config.layers[-1:], acceleration_layer=False),
        file.header.parent_uuid,
        file.header.virtual_size,
    )


def _size_below(config: ImageConfig, store: BlobStore | None) -> int:
    """The size of the lowers' disk, which an upper made with 0 has too."""
    layers = open_lowers(config, store)
    for layer in layers:
        layer.close()
    return lowers_size(layers)
