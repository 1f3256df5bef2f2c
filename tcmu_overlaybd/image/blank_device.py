"""A block device that is to hold an upper's data: claimed, seen to be blank, and given its header."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from tcmu_overlaybd.errors import BusyError, FailedError

LOOKED_AT = 1 << 20  # bytes; every file system and volume manager leaves a mark in the first ones


def write_first_block(device: Path, block: bytes) -> None:
    """Writes block at the beginning of device, and syncs it.

    Raises BusyError when it is mounted or otherwise in use, FailedError when it is not blank
    or cannot be written.
    """
    descriptor = _claim(device)
    try:
        if any(os.pread(descriptor, LOOKED_AT, 0)):
            raise FailedError(
                f"{device}: there is something on it already;"
                f" blkdiscard -z -l {LOOKED_AT} {device} gives that up"
            )
        os.pwrite(descriptor, block, 0)
        os.fsync(descriptor)
    except OSError as error:
        raise FailedError(f"{device}: cannot be written: {error.strerror}") from error
    finally:
        os.close(descriptor)


def _claim(device: Path) -> int:
    try:
        return os.open(device, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise BusyError(f"{device}: in use: mounted, or part of another device") from error
        raise FailedError(f"{device}: cannot be opened: {error.strerror}") from error
