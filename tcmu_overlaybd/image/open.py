"""``open_image``: whatever SOURCE is, as one image that can be read, and perhaps written.

The size of the disk (spec/lsmt.md sections 6.2, 10) is the upper's, or, without one or
when that is 0, the size of the topmost lower that has one.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from tcmu_overlaybd.config.image_config import ImageConfig
from tcmu_overlaybd.config.upper_dir import UpperDir
from tcmu_overlaybd.errors import FormatError, ReadOnlyError, UsageError
from tcmu_overlaybd.image.layer_place import FilePlace
from tcmu_overlaybd.image.layer_table import LAYERS, SharedLayer
from tcmu_overlaybd.image.lowers import lowers_size, open_lowers
from tcmu_overlaybd.image.snapshot_intent import settle_snapshot
from tcmu_overlaybd.image.source import Source, resolve_source
from tcmu_overlaybd.image.upper_folder import make_upper_dir, remove_upper, reopened_upper_dir
from tcmu_overlaybd.image.upper_pair import UpperPair, read_upper_pair, store_virtual_size
from tcmu_overlaybd.native import image as native
from tcmu_overlaybd.native.testing import is_test_build
from tcmu_overlaybd.registry.deadline import Deadline
from tcmu_overlaybd.remote.blob import RemoteBlob
from tcmu_overlaybd.remote.store import BlobStore

FLUSH_INTERVAL_MS = 5000


@dataclass(frozen=True)
class OpenOptions:
    name: str = "image"
    read_only: bool = False
    drop_unflushed: bool = False
    lose_nothing: bool = False
    holder: str = "tcmu-overlaybd"
    flush_interval_ms: int = FLUSH_INTERVAL_MS
    size: int = 0  # of the disk, where no layer says it


@dataclass
class OpenImage:
    """An image and what keeps it open.  ``layers`` are its sealed lowers, lowest first."""

    image: native.Image
    name: str
    config: ImageConfig
    layers: list[SharedLayer]
    upper: UpperPair | None = None
    made_dir: UpperDir | None = None  # the upper's folder, when this opening made it
    options: OpenOptions = OpenOptions()  # of another upper on top of it

    @property
    def remote_blobs(self) -> list[RemoteBlob]:
        """Those of its layers that are read from registries, lowest first."""
        return [layer.blob for layer in self.layers if layer.blob is not None]

    def note_size(self, size: int) -> None:
        """Its headers say size by now."""
        if self.upper is not None:
            self.upper = replace(self.upper, virtual_size=size)

    def close(self) -> None:
        """Flushes and closes; raises what went wrong with that."""
        try:
            self.image.close()
        finally:
            for layer in self.layers:
                layer.close()

    def undo(self) -> None:
        """Closes, and removes the upper if it was made by this opening: nothing came of it."""
        try:
            self.close()
        finally:
            if self.made_dir is not None:
                remove_upper(self.made_dir)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def open_image(
    source: Source | None,
    *,
    writable: bool = False,
    upper_dir: Path | str | None = None,
    size: int | None = None,
    sparse: bool = False,
    drop_unflushed: bool = False,
    lose_nothing: bool = False,
    holder: str = "tcmu-overlaybd",
    flush_interval_ms: int | None = None,
    name: str | None = None,
    store: BlobStore | None = None,
    deadline: Deadline | None = None,
) -> OpenImage:
    """Opens the image that source names; source None is a blank disk.

    With upper_dir (which needs writable) writes go to the upper in that folder, made if
    absent with a disk of size bytes (None: that of the lowers), as a sparse file if asked; else
    to the upper of the configuration.  holder is how a process that is kept out is told of us.  Without a
    store no layer may be a blob of a registry; deadline is for what comes from there.

    Raises MissingError, AuthenticationError, UsageError, UnavailableError (a registry,
    TurboOCI), CorruptError, BusyError (the upper is held), JournalError, ReadOnlyError.
    """
    if upper_dir is not None and not writable:
        raise UsageError("an upper's folder is of use only to a writable image")
    if sparse and upper_dir is None:
        raise UsageError("--sparse says how an upper is made, and none is to be made here")
    base = ImageConfig() if source is None else resolve_source(source, store, deadline)
    if writable:
        base = settle_snapshot(base)
    options = OpenOptions(
        name=name or _default_name(source),
        read_only=not writable,
        drop_unflushed=drop_unflushed,
        lose_nothing=lose_nothing,
        holder=holder,
        flush_interval_ms=FLUSH_INTERVAL_MS if flush_interval_ms is None else flush_interval_ms,
        size=size or 0,
    )
    folder = None if upper_dir is None else UpperDir(Path(upper_dir).absolute())
    config, made_dir = base, None
    if folder is not None and folder.exists():
        config = reopened_upper_dir(base, folder, size, sparse=sparse)
    with ExitStack() as undo:
        layers = open_lowers(config, store, deadline)
        for layer in layers:
            undo.callback(layer.close)
        if folder is not None and not folder.exists():
            config, made_dir = make_upper_dir(base, folder, size, layers, sparse=sparse), folder
            undo.callback(remove_upper, folder)
        pair = _read_pair(config, layers, options)
        image = _open_native(layers, pair, options)
        undo.pop_all()
    return OpenImage(image, options.name, config, layers, pair, made_dir, options)


def _read_pair(config: ImageConfig, layers: list[SharedLayer], options: OpenOptions) -> UpperPair | None:
    """The upper of config, if it has one; raises what makes the whole impossible."""
    upper = config.writable
    if upper is None:
        if not options.read_only:
            raise UsageError(f"{options.name}: it has no upper to write to, and no folder for one is given")
        if not layers:
            raise FormatError(f"{options.name}: the configuration names neither layers nor an upper")
        return None
    pair = read_upper_pair(Path(upper.data), Path(upper.index))
    if pair.kind == "sealed" and not options.read_only:
        raise ReadOnlyError(f"{pair.data}: sealed, so it is a lower layer now and cannot be written")
    return pair


def _open_native(layers: list[SharedLayer], pair: UpperPair | None, options: OpenOptions) -> native.Image:
    size = (pair.virtual_size if pair else 0) or lowers_size(layers) or options.size
    if size == 0:
        raise FormatError(f"{options.name}: no layer says how large the disk is")
    lowers = [layer.layer for layer in layers]
    with ExitStack() as tops:  # the image has references of its own
        upper = None
        if pair is not None and pair.kind != "sealed":
            upper = open_upper(pair, size, len(layers), options)
        elif pair is not None:
            top = LAYERS.acquire(FilePlace(pair.data))
            tops.callback(top.close)
            lowers.append(top.layer)
        return native.Image.open(lowers, upper, virtual_size=size, name=options.name)


def open_upper(pair: UpperPair, size: int, nr_lowers: int, options: OpenOptions) -> native.Upper:
    """The upper of a disk of size bytes on top of nr_lowers layers."""
    upper = native.Upper.open(
        str(pair.data),
        str(pair.index),
        uuid=pair.uuid,
        holder=options.holder,
        virtual_size=size,
        tag=nr_lowers,
        read_only=options.read_only,
        sparse=pair.kind == "sparse",
        drop_unflushed=options.drop_unflushed,
        lose_nothing=options.lose_nothing,
        no_journal=_test_number("NO_JOURNAL") == 1,
        flush_interval_ms=_test_number("FLUSH_INTERVAL_MS", options.flush_interval_ms),
    )
    if not options.read_only and (pair.virtual_size == 0 or pair.data_virtual_size != size):
        store_virtual_size(pair, size)  # it is locked by now
    return upper


def _default_name(source: Source | None) -> str:
    if source is None or isinstance(source, ImageConfig):
        return "image"
    return str(source) if isinstance(source, (str, Path)) else str(source[-1])


def _test_number(what: str, default: int = 0) -> int:
    """TCMU_OVERLAYBD_TEST_<what>, in the test build only."""
    value = os.environ.get(f"TCMU_OVERLAYBD_TEST_{what}") if is_test_build() else None
    return default if value is None else int(value)
