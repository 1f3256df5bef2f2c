"""The lower layers of an image: where each lies, and all of them opened, lowest first."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from tcmu_overlaybd.config.image_config import ImageConfig, Lower
from tcmu_overlaybd.errors import FormatError, LimitError, MissingError, OverlayBDError, UnavailableError
from tcmu_overlaybd.image.layer_table import LAYERS, SharedLayer
from tcmu_overlaybd.native.image import MAX_LAYERS

# What lies in a lower's ``dir``, in the order of spec/config.md section 2.
CANDIDATES = ("overlaybd.commit", ".commit", "overlaybd.sealed")

# A warm local layer opens in less time than a thread starts; when that much has passed,
# a disk is slow, and the layers that are left are opened side by side.
PATIENCE_S = 0.005
MAX_THREADS = 32


def lower_path(lower: Lower, config: ImageConfig) -> Path:
    """The local file of lower.  Raises MissingError, or UnavailableError for a blob in a registry."""
    if lower.target_file or lower.target_digest or lower.gzip_index:
        raise UnavailableError(f"{lower.file or lower.digest}: TurboOCI layers cannot be read yet")
    # An empty dir would mean the root folder, as it does in the reference.
    candidates = [Path(lower.file)] if lower.file else []
    candidates += [Path(lower.dir) / name for name in CANDIDATES] if lower.dir else []
    for path in candidates:
        if path.exists():
            return path
    if lower.digest and config.repo_blob_url:
        raise UnavailableError(
            f"{lower.digest}: not here, and it cannot be fetched from {config.repo_blob_url} yet"
        )
    if candidates:
        raise MissingError(f"{candidates[0]}: no such layer file")
    raise FormatError("the configuration names neither a file, a dir nor a blob for it")


def open_lowers(config: ImageConfig) -> list[SharedLayer]:
    """All layers of config, lowest first.  A failure closes those that were open by then."""
    lowers = config.layers
    if len(lowers) > MAX_LAYERS:
        raise LimitError(f"the image has {len(lowers)} lower layers, at most {MAX_LAYERS} can be stacked")
    tasks = [_Task(number, len(lowers), lower, config) for number, lower in enumerate(lowers, 1)]
    with ExitStack() as undo:
        opened: list[SharedLayer] = []
        started = time.monotonic()
        while len(opened) < len(tasks) and time.monotonic() - started < PATIENCE_S:
            opened.append(_kept(tasks[len(opened)], undo))
        opened += _open_side_by_side(tasks[len(opened) :], undo)
        undo.pop_all()
    return opened


def lowers_size(layers: list[SharedLayer]) -> int:
    """Bytes of the disk that layers make: the topmost that has a size counts; 0 when none has."""
    sizes = (layer.file.trailer.virtual_size for layer in reversed(layers))
    return next((size for size in sizes if size), 0)


class _Task:
    """Opens one layer; its messages say which of the stack it is."""

    def __init__(self, number: int, total: int, lower: Lower, config: ImageConfig) -> None:
        self.name = f"layer {number} of {total}"
        self.lower = lower
        self.config = config

    def __call__(self) -> SharedLayer:
        try:
            return LAYERS.acquire(lower_path(self.lower, self.config))
        except OverlayBDError as error:
            raise type(error)(f"{self.name}: {error}") from error


def _kept(task: Callable[[], SharedLayer], undo: ExitStack) -> SharedLayer:
    layer = task()
    undo.callback(layer.close)
    return layer


def _open_side_by_side(tasks: Sequence[_Task], undo: ExitStack) -> list[SharedLayer]:
    if not tasks:
        return []
    with ThreadPoolExecutor(min(len(tasks), MAX_THREADS), thread_name_prefix="open-layer") as pool:
        futures = [pool.submit(task) for task in tasks]
    for future in futures:
        if not future.exception():
            undo.callback(_result(future).close)
    return [_result(future) for future in futures]


def _result(future: Future[SharedLayer]) -> SharedLayer:
    return future.result(timeout=0)
