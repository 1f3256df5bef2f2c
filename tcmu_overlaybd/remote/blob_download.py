"""One blob, fetched whole in the background into its folder, which then takes over.

::

   fetch what is missing --> sha256 of the file --> overlaybd.commit --> the source reads it

Bytes are read through the cached source by a background reader: what the cache has is not
fetched again, what a command wants goes first, and the limit of the cache does not matter.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path

from tcmu_overlaybd.errors import CorruptError, FailedError, NoSpaceError, TimeoutExpiredError
from tcmu_overlaybd.native.cache import CachedSource
from tcmu_overlaybd.native.source import BackgroundReader, Source
from tcmu_overlaybd.remote.pace import Pace
from tcmu_overlaybd.remote.partial_file import COMMIT_NAME, PartialFile, digest_of

# Asked for at once; the fetcher makes of it what the line carries in a quarter of a second.
LONGEST_STEP = 4 << 20
STEPS_PER_S = 4  # of a limit

# Nothing for so long: commands go first, or the line is slow, and less is asked for.
READ_TIMEOUT_MS = 60_000


class StoppedError(Exception):
    """Nobody wants the blob any more."""


class WrongDigestError(FailedError):
    """What came is not the blob; it has been removed."""


@dataclass(frozen=True, slots=True)
class WantedBlob:
    """A blob that is read from a registry, and the folder that shall have it."""

    source: CachedSource
    digest: str  # sha256:...
    folder: Path


class BlobDownload:
    """One thread runs it, any may stop it.  Has handles of its own, until ``close``."""

    def __init__(self, wanted: WantedBlob, pace: Pace, *, block_size: int, free_floor: int) -> None:
        """block_size: asked for at once, at least; free_floor: left free on the disk; bytes."""
        self.digest = wanted.digest
        self.folder = wanted.folder
        self.size = wanted.source.size
        self.length = 0  # bytes in the file
        self._source = wanted.source.share()
        self._reader = BackgroundReader.open(self._source)
        self._pace = pace
        self._block_size = block_size
        self._free_floor = free_floor
        self._stop = threading.Event()
        self._has_resumed = False  # the last try began with what an earlier one had left

    @property
    def is_stopped(self) -> bool:
        return self._stop.is_set()

    def stop(self) -> None:
        self._stop.set()
        self._reader.stop()

    def close(self) -> None:
        self._reader.close()
        self._source.close()

    def run(self) -> None:
        """Fetches, checks and switches.

        Raises StoppedError; BusyError, another download has it; NoSpaceError, with nothing
        left behind; WrongDigestError; CorruptError, another file stands in the way; and
        what fetching raises: then what came is kept for the next try.
        """
        is_there = self._source.stats().is_local and (self.folder / COMMIT_NAME).exists()
        if not is_there:
            self._switch_to(self._find() or self._fetch())
        self.length = self.size

    def _find(self) -> Path | None:
        """The file that somebody else has put there meanwhile, if it is the blob."""
        path = self.folder / COMMIT_NAME
        try:
            with path.open("rb") as file:
                found = self._digest_of(file.fileno())
        except FileNotFoundError:
            return None
        if found != self.digest:
            raise CorruptError(f"{path}: it is in the way of {self.digest}, its own digest is {found}")
        return path

    def _digest_of(self, fd: int) -> str:
        size = os.fstat(fd).st_size
        return digest_of(fd, self._stop) if size == self.size else f"not looked at, as it has {size} bytes"

    def _fetch(self) -> Path:
        with PartialFile(self.folder, self.size) as file:
            try:
                self._fill(file)
            except NoSpaceError:
                file.remove()  # others need the disk more
                raise
            found = file.digest(self._stop)
            if found != self.digest:
                self._drop_wrong(file)
                raise WrongDigestError(f"{self.digest}: what came of it has the digest {found}")
            return file.commit()

    def _drop_wrong(self, file: PartialFile) -> None:
        """The next try begins anew: without what the cache has, unless only the file was old."""
        file.remove()
        if not self._has_resumed:
            self._source.discard(0, self.size)

    def _fill(self, file: PartialFile) -> None:
        unit = self._unit()
        step = longest = self._longest_step(unit)
        buffer = memoryview(bytearray(longest))
        file.keep_whole_units(unit)
        self._has_resumed = file.length > 0
        while file.length < file.size:
            self.length = file.length
            file.require_space(self._free_floor)
            piece = buffer[: min(step, file.size - file.length)]
            if not self._pace.take(len(piece), self._stop):
                raise StoppedError
            try:
                self._reader.read_into(piece, file.length, READ_TIMEOUT_MS)
            except TimeoutExpiredError:
                step = max(unit, step // 2 // unit * unit)
                continue
            file.append(piece)
            step = min(longest, 2 * step)

    def _unit(self) -> int:
        """Whole chunks, or each would be fetched twice; no less than a block."""
        chunk_size = self._source.stats().chunk_size
        return -(-self._block_size // chunk_size) * chunk_size

    def _longest_step(self, unit: int) -> int:
        longest = LONGEST_STEP
        if self._pace.bytes_per_s is not None:
            longest = min(longest, self._pace.bytes_per_s // STEPS_PER_S)
        return max(unit, longest // unit * unit)

    def _switch_to(self, path: Path) -> None:
        if self._source.stats().is_local:
            return  # another image has the blob in a folder of its own, and was quicker
        with Source.open_file(str(path)) as local:
            self._source.switch_to(local)
