"""The open layers of this process: one per place, however many images use it.

A layer is known by its place's key (``layer_place.py``) and closes with its last user.

Thread-safe.  ``LayerTable._lock`` guards the dictionary and the counts and is never
held while a layer is read; an entry's own lock makes later comers wait for the first.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable
from dataclasses import dataclass, field

from tcmu_overlaybd.image.layer_file import OPEN_TIMEOUT_S, OpenLayer, open_layer
from tcmu_overlaybd.image.layer_place import LayerPlace
from tcmu_overlaybd.registry.deadline import Deadline


@dataclass
class _Entry:
    lock: threading.Lock = field(default_factory=threading.Lock)
    nr_users: int = 0
    opened: OpenLayer | None = None

    def open(self, place: LayerPlace, deadline: Deadline) -> OpenLayer:
        """Who comes second waits for the first, but not longer than its own time."""
        if not self.lock.acquire(timeout=deadline.remaining()):
            raise deadline.expired(f"{place.name}: being opened by another image")
        try:
            if self.opened is None:
                self.opened = open_layer(place, deadline)
            return self.opened
        finally:
            self.lock.release()


class SharedLayer:
    """One use of an open layer; ``close`` gives it back, once."""

    def __init__(self, table: LayerTable, key: Hashable, opened: OpenLayer) -> None:
        self._table: LayerTable | None = table
        self._key = key
        self.file = opened.file
        self.layer = opened.layer
        self.blob = opened.blob

    def close(self) -> None:
        table, self._table = self._table, None
        if table is not None:
            table.release(self._key)


class LayerTable:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[Hashable, _Entry] = {}

    def acquire(self, place: LayerPlace, deadline: Deadline | None = None) -> SharedLayer:
        """The layer at place, opened unless it is open.  Raises what open_layer does."""
        key = place.key()
        deadline = deadline or Deadline.after(OPEN_TIMEOUT_S)
        with self._lock:
            entry = self._entries.setdefault(key, _Entry())
            entry.nr_users += 1
        try:
            return SharedLayer(self, key, entry.open(place, deadline))
        except BaseException:
            self.release(key)
            raise

    def release(self, key: Hashable) -> None:
        with self._lock:
            entry = self._entries[key]
            entry.nr_users -= 1
            if entry.nr_users:
                return
            del self._entries[key]
        if entry.opened is not None:
            entry.opened.close()

    def __len__(self) -> int:
        return len(self._entries)


# Of the whole process: a daemon's images share their layers through it.
LAYERS = LayerTable()
