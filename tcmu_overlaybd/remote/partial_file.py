"""``.download``: a blob on its way into a local file, from its first byte on.

::

   .download --grows at its end--> whole --digest is right--> overlaybd.commit
       |                             +--digest is wrong--> removed
       +--process ends--> resumed by the next one, from its length on

Only its length says how much is there: after a power cut the end may be zeros, which the
digest finds out, and then it begins anew.  A flock keeps two downloads of one file apart,
also those of two processes.  What is written is synced piece by piece, so that no heap
of dirty pages stands before a disk that others write to, and leaves the page cache.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from tcmu_overlaybd.config.json_file import sync_folder
from tcmu_overlaybd.errors import BusyError, FailedError, NoSpaceError

PARTIAL_NAME = ".download"
COMMIT_NAME = "overlaybd.commit"

SYNC_BYTES = 16 << 20
HASH_BYTES = 4 << 20


class PartialFile:
    """Ours alone while it is open.  Raises FailedError, NoSpaceError when the disk says so."""

    def __init__(self, folder: Path, size: int) -> None:
        """size in bytes, of the whole.  Raises BusyError while another download has it."""
        self.path = folder / PARTIAL_NAME
        self.target = folder / COMMIT_NAME
        self.size = size
        self._unsynced = 0
        with _explained(self.path, "cannot be opened"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._fd = _open_locked(self.path)
        self.length = os.fstat(self._fd).st_size

    def keep_whole_units(self, unit: int) -> None:
        """Forgets what is behind the last whole unit, and all when it is longer than the blob."""
        if self.length > self.size:
            self._cut(0)
        elif self.length < self.size:
            self._cut(self.length - self.length % unit)

    def require_space(self, floor: int) -> None:
        """Raises NoSpaceError unless what is missing fits, with floor bytes to spare."""
        with _explained(self.path, "free space is not known"):
            stats = os.fstatvfs(self._fd)
        free, missing = stats.f_bavail * stats.f_frsize, self.size - self.length
        if free < missing + floor:
            raise NoSpaceError(
                f"{self.path}: no space for {missing} bytes, as of the {free} that are free "
                f"{floor} shall stay so"
            )

    def append(self, data: memoryview) -> None:
        with _explained(self.path, "cannot be written"):
            while data:
                written = os.pwrite(self._fd, data, self.length)
                self.length += written
                self._unsynced += written
                data = data[written:]
            if self._unsynced >= SYNC_BYTES:
                self._sync()

    def digest(self, stop: threading.Event) -> str:
        """sha256:... of what is on the disk.  Raises FailedError when stop is set meanwhile."""
        with _explained(self.path, "cannot be read again"):
            self._sync()
            return digest_of(self._fd, stop)

    def commit(self) -> Path:
        """The file under its final name, which is durable."""
        with _explained(self.target, "cannot be made"):
            self._sync()
            self.path.rename(self.target)
            sync_folder(self.target.parent)
        return self.target

    def remove(self) -> None:
        with _explained(self.path, "cannot be removed"):
            self.path.unlink(missing_ok=True)

    def close(self) -> None:
        os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _cut(self, length: int) -> None:
        with _explained(self.path, "cannot be cut"):
            os.ftruncate(self._fd, length)
            self.length = length

    def _sync(self) -> None:
        os.fdatasync(self._fd)
        os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)
        self._unsynced = 0


def digest_of(fd: int, stop: threading.Event) -> str:
    """sha256:... of a file.  Raises FailedError when stop is set meanwhile."""
    total, offset = hashlib.sha256(), 0
    while data := os.pread(fd, HASH_BYTES, offset):
        if stop.is_set():
            raise FailedError("stopped")
        total.update(data)
        os.posix_fadvise(fd, offset, len(data), os.POSIX_FADV_DONTNEED)
        offset += len(data)
    return f"sha256:{total.hexdigest()}"


def _open_locked(path: Path) -> int:
    """A file that still has its name once the lock is ours."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(fd), path.lstat()):
                    return fd
        except BlockingIOError:
            os.close(fd)
            raise BusyError(f"{path}: another download has it") from None
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)  # it was finished or removed while we opened it


@contextmanager
def _explained(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        kind = NoSpaceError if error.errno in (errno.ENOSPC, errno.EDQUOT) else FailedError
        raise kind(f"{path}: {what}: {error.strerror}") from error
