"""Upload sessions that outlive a process: where each goes on is kept in a file of its own.

A file is named after what is uploaded and where to, and locked while a process works on
it: a second one that uploads the same begins a session of its own, and keeps none.  The
URL may be signed, so folder and files are for their owner only.  Keeping is a favour: a
disk that does not take it costs nothing but the favour.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from pathlib import Path

import msgspec

from tcmu_overlaybd.config.decoding import decode_json

MAX_SIZE = 64 << 10  # bytes of a file
MAX_AGE_S = 7 * 86400  # a registry has long forgotten what is older


class _Record(msgspec.Struct):
    url: str


class KeptUpload:
    """One session's memory; without a descriptor it keeps nothing.

    ``url`` is what an earlier process kept, "" when there is nothing.
    """

    def __init__(self, descriptor: int | None, path: Path | None = None) -> None:
        self._descriptor = descriptor
        self._path = path
        self.url = "" if descriptor is None else _read(descriptor)

    def keep(self, url: str) -> None:
        if self._descriptor is None:
            return
        text = msgspec.json.encode(_Record(url))
        try:
            # A reader finds all of it or no JSON; a half-written one is as good as none.
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, text, 0)
        except OSError:
            self.forget()

    def forget(self) -> None:
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """Lets another process go on; a file in which nothing was kept is removed."""
        if self._descriptor is None:
            return
        if not os.fstat(self._descriptor).st_size:
            self.forget()
        os.close(self._descriptor)
        self._descriptor = None


class KeptUploads:
    """The folder of such files, made when it is needed; for any number of threads and processes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open(self, key: str) -> KeptUpload:
        """The memory of what key names, for us alone; one that keeps nothing when it is taken."""
        path = self._folder / f"{hashlib.sha256(key.encode()).hexdigest()}.json"
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError:
            return KeptUpload(None)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return KeptUpload(None)
        return KeptUpload(descriptor, path)

    def forget_old(self) -> None:
        """Removes what nobody came back for."""
        for path in self._folder.glob("*.json"):
            try:
                if time.time() - path.stat().st_mtime > MAX_AGE_S:
                    path.unlink(missing_ok=True)
            except OSError:
                continue


def _read(descriptor: int) -> str:
    try:
        return decode_json(os.pread(descriptor, MAX_SIZE, 0), _Record).url
    except (OSError, msgspec.DecodeError):
        return ""
