"""The folder of the cache, seen from outside: what is in it, and whether that is right.

Looking needs no ownership: maps and data are read while a daemon changes them.  A
chunk that seems wrong is therefore looked at again, since it may have been evicted, or
be another by now; only one that its map goes on calling present is damaged.
Collecting garbage needs ownership: it is done by opening the cache with a lower limit.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tcmu_overlaybd.errors import FailedError, FormatError, MissingError
from tcmu_overlaybd.formats import chunk_map
from tcmu_overlaybd.formats.chunk_map import Chunk, ChunkMap
from tcmu_overlaybd.native.cache import Cache
from tcmu_overlaybd.native.source import crc32c

NAME = "tcmu-overlaybd"
NO_LIMIT = (1 << 64) - 1

LOOKS = 3  # at a chunk that seems damaged
LOOK_PAUSE = 0.05  # seconds; an eviction takes much less

Progress = Callable[[int, int], None]  # bytes done, bytes of all


def default_folder(environment: Mapping[str, str] = os.environ, uid: int | None = None) -> Path:
    """Where the daemon of this user keeps its cache: in /var/lib as root, else where the user's is."""
    if (os.geteuid() if uid is None else uid) == 0:
        return Path(environment.get("STATE_DIRECTORY") or Path("/var/lib", NAME), "cache", "v1")
    return user_folder(environment)


def user_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """In the XDG cache folder, root's too: for tools, which must keep no daemon from its cache."""
    return Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache", NAME, "cache", "v1")


@dataclass(frozen=True, slots=True)
class CachedBlob:
    """A blob of which chunks are present."""

    path: Path  # of the data
    used_at: float  # seconds since the epoch: when a chunk last came or went, or the blob was closed
    map: ChunkMap

    @property
    def digest(self) -> str:
        return f"sha256:{self.map.digest.hex()}"


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes that are not what was stored; offset and length within the blob."""

    digest: str
    chunk: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Verification:
    chunks: int  # that were checked
    damaged: tuple[Damage, ...]
    unreadable: tuple[str, ...]  # a sentence for each map that is none


@dataclass(frozen=True, slots=True)
class Collection:
    """Bytes in use, and blobs, before and after."""

    used_before: int
    used_after: int
    blobs_before: int
    blobs_after: int


def blobs(folder: Path) -> Iterator[CachedBlob | FormatError]:
    """Every blob in the folder, or why its map cannot be read, by name.

    Raises MissingError when there is no cache.
    """
    _require(folder)
    for path in sorted((folder / "blobs").glob("*.map")):
        if not re.fullmatch(r"[0-9a-f]{64}\.map", path.name):
            continue
        try:
            yield read_blob(path)
        except FileNotFoundError:
            continue  # evicted meanwhile
        except FormatError as error:
            yield error


def _require(folder: Path) -> None:
    if not (folder / "version").is_file():
        raise MissingError(f"{folder}: there is no cache")


def read_blob(path: Path) -> CachedBlob:
    """Of the map at path.  Raises FormatError; FileNotFoundError when it has just been removed."""
    with path.open("rb") as file:
        used_at = os.fstat(file.fileno()).st_mtime
        parsed = chunk_map.parse(file.read(), str(path), crc32c)
    if parsed.digest.hex() != path.stem:
        raise FormatError(f"{path}: it is the map of the blob {parsed.digest.hex()}")
    return CachedBlob(path.with_suffix(""), used_at, parsed)


def verify(folder: Path, progress: Progress = lambda _done, _all: None) -> Verification:
    """Reads every chunk that is present and checks its CRC."""
    found = list(blobs(folder))
    readable = [blob for blob in found if isinstance(blob, CachedBlob)]
    unreadable = tuple(str(error) for error in found if isinstance(error, FormatError))
    size, done, checked = sum(blob.map.present_bytes for blob in readable), 0, 0
    damaged: list[Damage] = []
    for blob in readable:
        for chunk in blob.map.chunks:
            if is_damaged(blob, chunk):
                damaged.append(Damage(blob.digest, chunk.number, chunk.offset, chunk.length))
            done, checked = done + chunk.length, checked + 1
            progress(done, size)
    return Verification(checked, tuple(damaged), unreadable)


def is_damaged(blob: CachedBlob, chunk: Chunk) -> bool:
    """Whether its bytes are wrong while its record stays what it is."""
    for look in range(LOOKS):
        if look > 0:
            time.sleep(LOOK_PAUSE)
            if not _is_still(blob, chunk):
                return False
        if _has_crc(blob, chunk):
            return False
    return True


def _has_crc(blob: CachedBlob, chunk: Chunk) -> bool:
    try:
        with blob.path.open("rb") as file:
            data = os.pread(file.fileno(), chunk.length, chunk.offset)
    except FileNotFoundError:
        return False
    return len(data) == chunk.length and crc32c(data, chunk.seed) == chunk.crc


def _is_still(blob: CachedBlob, chunk: Chunk) -> bool:
    """Its record says what it said before."""
    try:
        return chunk in read_blob(blob.path.with_suffix(".map")).map.chunks
    except (FileNotFoundError, FormatError):
        return False


def collect(folder: Path, limit_bytes: int) -> Collection:
    """Evicts, what was used longest ago first, until no more than limit_bytes are in use.

    Raises BusyError, with its name, while a daemon owns the cache.
    """
    _require(folder)
    before = _open_with_limit(folder, NO_LIMIT)
    after = _open_with_limit(folder, limit_bytes)
    if after[0] > limit_bytes:
        raise FailedError(f"{folder}: {after[0]} bytes cannot be removed: is the folder read-only?")
    return Collection(before[0], after[0], before[1], after[1])


def _open_with_limit(folder: Path, limit_bytes: int) -> tuple[int, int]:
    """Bytes in use, and blobs, once the limit holds."""
    chunk_size = chunk_map.CHUNK_SIZES[0]  # of blobs to come, of which there are none
    with Cache.open(str(folder), limit_bytes=limit_bytes, free_floor_bytes=0, chunk_size=chunk_size) as cache:
        stats = cache.stats()
    return stats.used_bytes, stats.blobs
