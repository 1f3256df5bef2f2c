"""A blob of a registry that is open: its source, and the numbers of what it took."""

from __future__ import annotations

from collections.abc import Callable

from tcmu_overlaybd.native.cache import CachedSource, CachedSourceStats
from tcmu_overlaybd.registry.reference import RepoBlobUrl


class RemoteBlob:
    """Owns its source; layers opened over that have references of their own."""

    def __init__(
        self,
        source: CachedSource,
        repository: RepoBlobUrl,
        digest: str,
        size: int,
        on_close: Callable[[], None],
    ) -> None:
        self.source = source
        self.repository = repository
        self.digest = digest
        self.size = size  # bytes
        self._on_close = on_close

    def stats(self) -> CachedSourceStats:
        return self.source.stats()

    def close(self) -> None:
        """After the layers that read it: nothing answers for the blob any more."""
        self.source.close()
        self._on_close()
