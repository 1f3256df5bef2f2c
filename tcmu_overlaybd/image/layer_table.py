"""The open layers of this process: one per file, however many images use it.

A layer is known by its file's device, inode, size and time of change, so two names of
one file share it and a file that was replaced does not.  The layer closes with its
last user.

Thread-safe.  ``LayerTable._lock`` guards the dictionary and the counts and is never
held while a file is read; an entry's own lock makes later comers wait for the first.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path

from tcmu_overlaybd.errors import MissingError
from tcmu_overlaybd.image.layer_file import LayerFile, open_layer_file
from tcmu_overlaybd.native.image import Layer

Key = tuple[int, int, int, int]


@dataclass
class _Entry:
    lock: threading.Lock = field(default_factory=threading.Lock)
    nr_users: int = 0
    opened: tuple[LayerFile, Layer] | None = None


class SharedLayer:
    """One use of an open layer; ``close`` gives it back, once."""

    def __init__(self, table: LayerTable, key: Key, file: LayerFile, layer: Layer) -> None:
        self._table: LayerTable | None = table
        self._key = key
        self.file = file
        self.layer = layer

    def close(self) -> None:
        table, self._table = self._table, None
        if table is not None:
            table.release(self._key)


class LayerTable:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[Key, _Entry] = {}

    def acquire(self, path: Path) -> SharedLayer:
        """The layer at path, opened unless it is open.  Raises what open_layer_file does."""
        key = _key(path)
        with self._lock:
            entry = self._entries.setdefault(key, _Entry())
            entry.nr_users += 1
        try:
            with entry.lock:
                if entry.opened is None:
                    entry.opened = open_layer_file(path)
                return SharedLayer(self, key, *entry.opened)
        except BaseException:
            self.release(key)
            raise

    def release(self, key: Key) -> None:
        with self._lock:
            entry = self._entries[key]
            entry.nr_users -= 1
            if entry.nr_users:
                return
            del self._entries[key]
        if entry.opened is not None:
            entry.opened[1].close()

    def __len__(self) -> int:
        return len(self._entries)


def _key(path: Path) -> Key:
    try:
        facts = path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MissingError(f"{path}: no such layer file") from error
    return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns


# Of the whole process: a daemon's images share their layers through it.
LAYERS = LayerTable()
