"""The lower layers of an image: where each lies, and all of them opened, lowest first."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tcmu_overlaybd.config.image_config import ImageConfig, Lower
from tcmu_overlaybd.errors import FormatError, LimitError, MissingError, OverlayBDError, UnavailableError
from tcmu_overlaybd.image.layer_file import OPEN_TIMEOUT_S
from tcmu_overlaybd.image.layer_place import BlobPlace, FilePlace, LayerPlace
from tcmu_overlaybd.image.layer_table import LAYERS, SharedLayer
from tcmu_overlaybd.native.image import MAX_LAYERS
from tcmu_overlaybd.registry.deadline import Deadline
from tcmu_overlaybd.registry.reference import RepoBlobUrl, is_digest
from tcmu_overlaybd.remote.blob_download import WantedBlob
from tcmu_overlaybd.remote.partial_file import COMMIT_NAME
from tcmu_overlaybd.remote.store import BlobStore

# What lies in a lower's ``dir``, in the order of spec/config.md section 2.
CANDIDATES = (COMMIT_NAME, ".commit", "overlaybd.sealed")

# A warm local layer opens in less time than a thread starts; when that much has passed,
# a disk is slow, and the layers that are left are opened side by side.  Blobs of a registry
# are from the start: each takes several round trips.
PATIENCE_S = 0.005
MAX_THREADS = 32


def lower_place(lower: Lower, config: ImageConfig, store: BlobStore | None) -> LayerPlace:
    """Where lower is: a local file if there is one, else a blob of store.

    Raises MissingError; UnavailableError for a blob when there is no store, and for TurboOCI.
    """
    if lower.target_file or lower.target_digest or lower.gzip_index:
        raise UnavailableError(f"{lower.file or lower.digest}: TurboOCI layers cannot be read yet")
    # An empty dir would mean the root folder, as it does in the reference.
    candidates = [Path(lower.file)] if lower.file else []
    candidates += [Path(lower.dir) / name for name in CANDIDATES] if lower.dir else []
    if store is not None and is_digest(lower.digest):
        candidates.append(store.layer_folder(lower.digest) / COMMIT_NAME)
    for path in candidates:
        if path.exists():
            return FilePlace(path)
    if lower.digest and config.repo_blob_url:
        return _blob_place(lower, config, store)
    if candidates:
        raise MissingError(f"{candidates[0]}: no such layer file")
    raise FormatError("the configuration names neither a file, a dir nor a blob for it")


def whole_blobs(config: ImageConfig, layers: Sequence[SharedLayer], store: BlobStore) -> list[WantedBlob]:
    """For background download: those of layers that are blobs, and the folders that ``lower_place``
    will look into when they are opened the next time."""
    return [
        WantedBlob(
            layer.blob.source,
            lower.digest,
            Path(lower.dir) if lower.dir else store.layer_folder(lower.digest),
        )
        for lower, layer in zip(config.layers, layers, strict=True)
        if layer.blob is not None
    ]


def _blob_place(lower: Lower, config: ImageConfig, store: BlobStore | None) -> BlobPlace:
    if store is None:
        raise UnavailableError(f"{lower.digest}: not here, and nothing is to be fetched from a registry now")
    return BlobPlace(store, RepoBlobUrl.parse(config.repo_blob_url), lower.digest, lower.size)


def open_lowers(
    config: ImageConfig, store: BlobStore | None, deadline: Deadline | None = None
) -> list[SharedLayer]:
    """All layers of config, lowest first.  A failure closes those that were open by then."""
    lowers = config.layers
    if len(lowers) > MAX_LAYERS:
        raise LimitError(f"the image has {len(lowers)} lower layers, at most {MAX_LAYERS} can be stacked")
    deadline = deadline or Deadline.after(OPEN_TIMEOUT_S)
    tasks = [
        _Task(f"layer {number} of {len(lowers)}", lower, config, store, deadline)
        for number, lower in enumerate(lowers, 1)
    ]
    patience = PATIENCE_S if all(task.is_local for task in tasks) else 0
    with ExitStack() as undo:
        opened: list[SharedLayer] = []
        started = time.monotonic()
        while len(opened) < len(tasks) and time.monotonic() - started < patience:
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

    def __init__(
        self, name: str, lower: Lower, config: ImageConfig, store: BlobStore | None, deadline: Deadline
    ) -> None:
        self._name = name
        self._deadline = deadline
        with self._named_errors():
            self._place = lower_place(lower, config, store)

    @property
    def is_local(self) -> bool:
        return self._place.path is not None

    def __call__(self) -> SharedLayer:
        with self._named_errors():
            return LAYERS.acquire(self._place, self._deadline)

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except OverlayBDError as error:
            raise type(error)(f"{self._name}: {error}") from error


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
