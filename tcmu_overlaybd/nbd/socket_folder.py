"""A private folder for a socket, gone with the process that made it, or else with the next.

A process holds a lock (flock) on its folder while it lives, so a folder that can be
locked is nobody's any more: its process was killed.  A start removes such folders of
the same user.

A new folder is not locked yet for a moment, in which another start may take it for a
dead one.  So its maker looks, once it has the lock, whether it is still there.
"""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "tcmu-overlaybd-nbd-"
SOCKET = "nbd.sock"


@contextmanager
def socket_folder() -> Iterator[Path]:
    """The path for a socket, in a folder of its own that only this user may look into."""
    remove_dead_folders(Path(tempfile.gettempdir()))
    folder, fd = make_locked()
    try:
        yield folder / SOCKET
    finally:
        remove(folder)
        os.close(fd)


def make_locked() -> tuple[Path, int]:
    """A new folder, and the descriptor that holds its lock."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        with suppress(FileNotFoundError):
            fd = open_folder(folder)
            fcntl.flock(fd, fcntl.LOCK_EX)  # who else locks it is about to remove it
            if os.fstat(fd).st_nlink > 0:
                return folder, fd
            os.close(fd)


def remove_dead_folders(where: Path) -> None:
    """Never fails: what cannot be removed, or is not ours, stays."""
    for folder in where.glob(f"{PREFIX}*"):
        with suppress(OSError):
            remove_if_dead(folder)


def remove_if_dead(folder: Path) -> None:
    fd = open_folder(folder)
    try:
        if os.fstat(fd).st_uid == os.geteuid():
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove(folder)
    finally:
        os.close(fd)


def open_folder(folder: Path) -> int:
    """Raises OSError for a link: the temporary folder is open to everybody."""
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def remove(folder: Path) -> None:
    """The folder and the socket in it; with anything else in it, it stays."""
    path = folder / SOCKET
    with suppress(FileNotFoundError):
        if stat.S_ISSOCK(path.lstat().st_mode):
            path.unlink()
    with suppress(FileNotFoundError):
        folder.rmdir()
