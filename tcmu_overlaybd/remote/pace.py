"""A limit in bytes a second, shared by whoever takes bytes under it."""

from __future__ import annotations

import threading
import time


class Pace:
    """Each taker goes when the bytes of those before it have had their time.

    So in any stretch of time no more is taken than the limit allows, and one taking.
    """

    def __init__(self, bytes_per_s: int | None) -> None:
        """None is no limit."""
        self.bytes_per_s = bytes_per_s
        self._lock = threading.Lock()
        self._free_at = 0.0  # time.monotonic()

    def take(self, nr_bytes: int, stop: threading.Event) -> bool:
        """Waits for the turn of nr_bytes; False when stop was set first."""
        return not stop.wait(self._reserve(nr_bytes))

    def _reserve(self, nr_bytes: int) -> float:
        """Seconds until they may be taken."""
        if self.bytes_per_s is None:
            return 0
        with self._lock:
            now = time.monotonic()
            begin = max(now, self._free_at)
            self._free_at = begin + nr_bytes / self.bytes_per_s
        return begin - now
