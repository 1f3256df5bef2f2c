"""The lock that makes a daemon the only one, or its absence certain."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import IO

from tcmu_overlaybd.errors import BusyError, FailedError


def take_lock(path: Path) -> IO[str]:
    """The file whose flock makes us the only daemon; it ends with the process, however that ends.

    Raises BusyError with the pid of the one that has it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+")
    except OSError as error:
        raise FailedError(f"{path}: the lock cannot be opened: {error.strerror}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = file.read().strip() or "unknown"
        file.close()
        raise BusyError(f"{path}: another daemon runs (pid {holder})") from None
    file.seek(0)
    file.truncate()
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file
