"""Where the bytes of a layer are: a local file, or a blob of a registry.

A place has a *name* for messages, a *key* by which two uses of one layer know each other,
and is *opened* as a source of raw bytes, whatever is wrapped in what.
"""

from __future__ import annotations

import stat
from collections.abc import Hashable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tcmu_overlaybd.errors import CorruptError, MissingError, UsageError
from tcmu_overlaybd.native.source import Source
from tcmu_overlaybd.registry.reference import RepoBlobUrl
from tcmu_overlaybd.remote.blob import RemoteBlob
from tcmu_overlaybd.remote.store import BlobStore

# What opening a layer reads lies at its two ends: headers, and at the end trailer, jump
# table and index.  All of it is asked for at once, so that opening takes few round trips.
HEAD_SIZE = 4096
TAIL_SIZE = 256 << 10


class PlacedSource:
    """Raw bytes, and what owns them: a file's source itself, or the blob of a registry."""

    def __init__(self, source: Source, blob: RemoteBlob | None = None) -> None:
        self.source = source
        self.blob = blob
        self._owner: Source | RemoteBlob | None = blob or source

    def take_blob(self) -> RemoteBlob | None:
        """For who keeps a layer that reads it, and closes the blob after that layer."""
        if self.blob is not None:
            self._owner = None
        return self.blob

    def close(self) -> None:
        owner, self._owner = self._owner, None
        if owner is not None:
            owner.close()


class LayerPlace(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def path(self) -> Path | None:
        """Of a local file."""

    def size(self) -> int:
        """Bytes, as far as is known without reading."""

    def key(self) -> Hashable:
        """Equal for two uses of one layer.  Raises MissingError."""

    def open(self) -> PlacedSource:
        """Raises MissingError; UsageError for what is no regular file; what the store raises."""

    def forget(self) -> bool:
        """What is kept of its bytes is wrong; False when there are no others to be had."""


@dataclass(frozen=True)
class FilePlace:
    """A file is known by device, inode, size and time of change: two names of it are one
    layer, and a file that was replaced is another."""

    path: Path

    @property
    def name(self) -> str:
        return str(self.path)

    def size(self) -> int:
        return self.path.stat().st_size

    def key(self) -> Hashable:
        try:
            facts = self.path.stat()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise MissingError(f"{self.path}: no such layer file") from error
        # What is no file must not be opened: a fifo that somebody named by mistake would hang us.
        if not stat.S_ISREG(facts.st_mode):
            raise UsageError(f"{self.path}: not a regular file")
        return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns

    def open(self) -> PlacedSource:
        self.key()
        return PlacedSource(Source.open_file(str(self.path)))

    def forget(self) -> bool:
        return False


@dataclass(frozen=True)
class BlobPlace:
    """A blob is known by its digest, and its repository: one that does not answer delays
    nobody who reads the same blob from another.  What is cached is shared all the same."""

    store: BlobStore
    repository: RepoBlobUrl
    digest: str
    nr_bytes: int  # 0: the registry is asked

    @property
    def name(self) -> str:
        return f"{self.repository.host}/{self.repository.repository}@{self.digest}"

    @property
    def path(self) -> Path | None:
        return None

    def size(self) -> int:
        return self.nr_bytes

    def key(self) -> Hashable:
        return self.repository, self.digest

    def open(self) -> PlacedSource:
        with ExitStack() as undo:
            blob = self.store.open_blob(self.repository, self.digest, self.nr_bytes)
            undo.callback(blob.close)
            tail = min(TAIL_SIZE, blob.size)
            blob.source.prefetch(0, min(HEAD_SIZE, blob.size))
            blob.source.prefetch(blob.size - tail, tail)
            undo.pop_all()
        return PlacedSource(blob.source, blob)

    def forget(self) -> bool:
        blob = self.store.open_blob(self.repository, self.digest, self.nr_bytes)
        try:
            blob.source.discard(0, blob.size)
        except CorruptError:
            return False  # it is a local file by now
        finally:
            blob.close()
        return True
