"""Damages the files of a cache, by a seed: bits of data and of maps, cut files, lost files."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path


class Vandal:
    """``spared``: digests whose data is left alone by ``damage_live``.

    A layer without checksums of its own is at the mercy of its chunks': those are checked
    when a chunk is first read by a process, not at every read.
    """

    def __init__(self, folder: Path, rng: random.Random, spared: frozenset[str] = frozenset()) -> None:
        self._blobs = folder / "blobs"
        self._rng = rng
        self._spared = {digest.removeprefix("sha256:") for digest in spared}

    def damage_live(self) -> str:
        """One piece of damage under a process that has the cache open; says which."""
        return self._damage([path for path in self._data_files() if path.name not in self._spared])

    def damage_idle(self) -> str:
        """One piece of damage, while nobody has the cache."""
        return self._damage(self._data_files())

    def _data_files(self) -> list[Path]:
        if not self._blobs.is_dir():
            return []
        return sorted(path for path in self._blobs.iterdir() if path.suffix != ".map")

    def _damage(self, files: list[Path]) -> str:
        if not files:
            return "nothing is there"
        data = self._rng.choice(files)
        chosen = self._rng.choice(["bits", "bits", "bits", "bits", "map", "map", "cut", "cut map", "lose"])
        path = data.with_suffix(".map") if "map" in chosen else data
        if chosen in ("bits", "map"):
            number = self._rng.randrange(1, 20)
            return f"{number} bits of {path.name[:12]}{path.suffix}: {self._flip(path, number)}"
        if chosen == "lose":
            path.unlink(missing_ok=True)
            return f"lost {path.name[:12]}"
        with path.open("r+b") as file:
            size = self._rng.randrange(path.stat().st_size + 1)
            file.truncate(size)
        return f"cut {path.name[:12]}{path.suffix} at {size}"

    def _flip(self, path: Path, number: int) -> list[int]:
        """Where there is data; a hole stays one."""
        flipped = []
        descriptor = os.open(path, os.O_RDWR)
        try:
            size = os.fstat(descriptor).st_size
            for _ in range(number if size else 0):
                place = self._data_after(descriptor, self._rng.randrange(size))
                byte = os.pread(descriptor, 1, place)
                if byte:
                    os.pwrite(descriptor, bytes([byte[0] ^ 1 << self._rng.randrange(8)]), place)
                    flipped.append(place)
        finally:
            os.close(descriptor)
        return flipped

    def _data_after(self, descriptor: int, place: int) -> int:
        try:
            begin = os.lseek(descriptor, place, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return 0
        return begin + (self._rng.randrange(4096) if begin > place else 0)
