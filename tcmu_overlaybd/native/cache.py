"""The cache of blobs, and sources that read a registry's blob through it (csrc/cache)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Self

from tcmu_overlaybd.errors import UsageError
from tcmu_overlaybd.native._binding import check, ffi, lib, status_name
from tcmu_overlaybd.native.fetcher import Origin
from tcmu_overlaybd.native.handle import Handle, opened
from tcmu_overlaybd.native.source import Source


@dataclass(frozen=True, slots=True)
class CacheStats:
    """See struct obd_cache_stats; the last five count chunks."""

    limit_bytes: int
    used_bytes: int
    blobs: int
    evicted: int
    damaged: int
    not_kept: int
    hits: int
    misses: int


class Cache(Handle):
    """A folder with blobs, of which this process is the only owner.  Its sources are closed first."""

    def __init__(self, pointer: Any) -> None:
        super().__init__(pointer, lib.obd_cache_close)

    @classmethod
    def open(cls, folder: str, *, limit_bytes: int, free_floor_bytes: int, chunk_size: int) -> Self:
        """Raises BusyError, with the owner's name, when another process has the folder."""
        params = ffi.new("struct obd_cache_params *")
        path = ffi.new("char[]", os.fsencode(folder))
        params.folder, params.chunk_size = path, chunk_size
        params.limit_bytes, params.free_floor_bytes = limit_bytes, free_floor_bytes
        return cls(opened(lib.obd_cache_open, "struct cache", params))

    def stats(self) -> CacheStats:
        stats = ffi.new("struct obd_cache_stats *")
        lib.obd_cache_stats(self.handle, stats)
        return CacheStats(
            stats.limit_bytes,
            stats.used_bytes,
            stats.nr_blobs,
            stats.nr_evicted,
            stats.nr_damaged,
            stats.nr_not_kept,
            stats.nr_hits,
            stats.nr_misses,
        )


@dataclass(frozen=True, slots=True)
class CachedSourceStats:
    """See struct obd_cached_source_stats."""

    fetched_bytes: int
    requests: int
    errors: dict[str, int]  # chunks, by the word for the status; only those that happened
    cached_bytes: int
    present_bytes: int
    chunk_size: int
    is_local: bool  # a local file has taken over


class CachedSource(Source):
    """A blob in a registry, through the cache.  Keeps the origin by itself, not the cache."""

    @classmethod
    def open(cls, cache: Cache, origin: Origin, digest: bytes) -> Self:
        """digest is the SHA-256 of the blob, 32 bytes.  Size and name are the origin's."""
        if len(digest) != 32:
            raise UsageError(f"a digest of SHA-256 has 32 bytes, not {len(digest)}")
        arguments = (cache.handle, origin.handle, digest)
        return cls(opened(lib.obd_source_open_cached, "struct source", *arguments))

    def prefetch(self, offset: int, length: int) -> None:
        """Starts fetching what is absent of the range, behind whatever somebody waits for."""
        check(lib.obd_source_prefetch(self.handle, offset, length))

    def switch_to(self, local: Source) -> None:
        """From now on everything is read from local, a file with the same bytes; once.

        Should local fail later, reads go to the registry again.  Raises UsageError when its
        size differs, or another has taken over before.
        """
        check(lib.obd_source_switch_to(self.handle, local.handle))

    def stats(self) -> CachedSourceStats:
        stats = ffi.new("struct obd_cached_source_stats *")
        check(lib.obd_cached_source_stats(self.handle, stats))
        errors = {status_name(i): n for i, n in enumerate(stats.nr_errors) if n}
        return CachedSourceStats(
            stats.fetched_bytes,
            stats.nr_requests,
            errors,
            stats.cached_bytes,
            stats.present_bytes,
            stats.chunk_size,
            bool(stats.is_local),
        )
