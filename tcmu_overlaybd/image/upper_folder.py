"""``--upper DIR``: the folder's upper made for an image, or found there and fitted to it."""

from __future__ import annotations

import shutil
from pathlib import Path

from tcmu_overlaybd.config.image_config import ImageConfig
from tcmu_overlaybd.config.upper_dir import UpperDir, same_lowers
from tcmu_overlaybd.errors import FormatError, UsageError
from tcmu_overlaybd.formats import uuid_text
from tcmu_overlaybd.image.create import check_size, create_layer
from tcmu_overlaybd.image.layer_table import SharedLayer
from tcmu_overlaybd.image.lowers import lowers_size
from tcmu_overlaybd.image.snapshot_intent import settle_snapshot
from tcmu_overlaybd.image.upper_pair import read_upper_pair
from tcmu_overlaybd.native.testing import hook


def make_upper_dir(
    base: ImageConfig, folder: UpperDir, size: int | None, layers: list[SharedLayer], *, sparse: bool
) -> ImageConfig:
    """The image of base's layers, which are open, and a new upper in folder."""
    if base.writable is not None:
        raise UsageError(f"the image has an upper already ({base.writable.data}); it is used without --upper")
    below = lowers_size(layers)
    wanted = below if size is None else size
    check_size(wanted)
    if wanted < below or wanted == 0:
        raise UsageError(f"a disk of {wanted} bytes is too small: its lowers hold one of {below}")
    return _make_upper(base, folder, wanted, layers, sparse)


def reopened_upper_dir(base: ImageConfig, folder: UpperDir, size: int | None, *, sparse: bool) -> ImageConfig:
    """The image in folder, which must be the one that is asked for: base's layers, and perhaps
    some on top that were uppers in folder before a snapshot sealed them."""
    config = settle_snapshot(folder.load())
    nr_layers = len(base.layers)
    own = config.layers[nr_layers:]
    if not same_lowers(config.layers[:nr_layers], base.layers) or not all(map(folder.holds, own)):
        raise UsageError(f"{folder.path}: the upper there belongs to an image of other layers")
    if config.writable is None:
        raise FormatError(f"{folder.config}: it names no upper")
    if base.writable is not None and base.writable != config.writable:
        raise UsageError(f"the image has an upper already ({base.writable.data}); it is used without --upper")
    if size is None and not sparse:
        return config
    pair = read_upper_pair(Path(config.writable.data), Path(config.writable.index))
    if size is not None and pair.virtual_size not in (0, size):
        raise UsageError(f"{folder.path}: the disk there has {pair.virtual_size} bytes, not {size}")
    if sparse and pair.kind != "sparse":
        raise UsageError(f"{folder.path}: the upper there is not sparse; it is used without --sparse")
    return config


def _make_upper(
    base: ImageConfig, folder: UpperDir, size: int, layers: list[SharedLayer], sparse: bool
) -> ImageConfig:
    parent = layers[-1].file.trailer.uuid if layers else uuid_text.NULL
    is_new = not folder.path.exists()
    folder.path.mkdir(mode=0o700, parents=True, exist_ok=True)
    hook("attach.upper_folder_made")
    try:
        create_layer(folder.data, folder.index, size, sparse=sparse, parent_uuid=parent)
    except BaseException:
        if is_new:
            shutil.rmtree(folder.path, ignore_errors=True)
        raise
    hook("attach.upper_files_made")
    try:
        return folder.save(base)
    except BaseException:
        remove_upper(folder)
        raise


def remove_upper(folder: UpperDir) -> None:
    """Takes back what _make_upper made; other files in the folder stay, and so does it then."""
    beside = [folder.index.with_name(f"{folder.index.name}.{kind}") for kind in ("journal", "sectors")]
    for path in (folder.config, folder.data, folder.index, *beside):
        path.unlink(missing_ok=True)
    if folder.path.is_dir() and not any(folder.path.iterdir()):
        folder.path.rmdir()
