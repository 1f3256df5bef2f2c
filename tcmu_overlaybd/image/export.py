"""``image export``: an image as a raw disk, into a sparse file or onto a block device."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Callable
from pathlib import Path

from tcmu_overlaybd.errors import BusyError, FailedError, NoSpaceError, UsageError
from tcmu_overlaybd.image.layer_writer import READ_TIMEOUT_MS, Progress, no_progress
from tcmu_overlaybd.image.output_file import OutputFile, write_all
from tcmu_overlaybd.native.image import EXTENT_DATA, Extent, Image

STEP_BYTES = 4 << 20
PIECE = 64 << 10  # zeros are looked for, and left out, in pieces of so many bytes
_ZEROS = bytes(PIECE)

# ioctls of <linux/fs.h>
BLKZEROOUT = 0x127F
BLKGETSIZE64 = 0x80081272


def export_image(image: Image, output: Path, *, progress: Progress = no_progress) -> None:
    """Writes image to output: a file, made or replaced when all is there, or a device.

    Raises FailedError when output exists and is neither, UsageError when the device is too small,
    BusyError when it is in use, and what reading the image raises.
    """
    if output.is_block_device():
        _export_to_device(image, output, progress)
        return
    with OutputFile(output, replace=True) as file:
        os.ftruncate(file.fd, image.size)
        _copy(image, file.fd, lambda _extent: None, progress)


def _export_to_device(image: Image, device: Path, progress: Progress) -> None:
    fd = _open_device(device)
    try:
        room = struct.unpack("Q", fcntl.ioctl(fd, BLKGETSIZE64, bytes(8)))[0]
        if room < image.size:
            raise UsageError(f"{device}: it has {room} bytes, the image {image.size}")
        _copy(image, fd, lambda extent: _zero_device(fd, extent), progress)
        os.fsync(fd)
    except OSError as error:
        kind = NoSpaceError if error.errno == errno.ENOSPC else FailedError
        raise kind(f"{device}: cannot be written: {error.strerror}") from error
    finally:
        os.close(fd)


def _open_device(device: Path) -> int:
    """O_EXCL: not while it is mounted or part of another device."""
    try:
        fd = os.open(device, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC)
    except OSError as error:
        kind = BusyError if error.errno == errno.EBUSY else FailedError
        raise kind(f"{device}: cannot be opened for writing: {error.strerror}") from error
    if not stat.S_ISBLK(os.fstat(fd).st_mode):
        os.close(fd)
        raise FailedError(f"{device}: was a block device a moment ago, and is none now")
    return fd


def _copy(image: Image, fd: int, zero: Callable[[Extent], None], progress: Progress) -> None:
    """Data extents are copied; for the others zero is called."""
    buffer = memoryview(bytearray(STEP_BYTES))
    for extent in image.extents(0, image.size):
        if extent.kind != EXTENT_DATA:
            zero(extent)
            progress(extent.offset + extent.length, image.size)
            continue
        for offset in range(extent.offset, extent.offset + extent.length, STEP_BYTES):
            piece = buffer[: min(STEP_BYTES, extent.offset + extent.length - offset)]
            image.read_into(piece, offset, READ_TIMEOUT_MS)
            _write_nonzero(fd, piece, offset, zero)
            progress(offset + len(piece), image.size)


def _write_nonzero(fd: int, data: memoryview, offset: int, zero: Callable[[Extent], None]) -> None:
    """Writes data, in as few calls as its pieces of zeros allow."""
    begin = 0
    for at in range(0, len(data), PIECE):
        piece = data[at : at + PIECE]
        if piece != _ZEROS[: len(piece)]:
            continue
        write_all(fd, data[begin:at], offset + begin)
        zero(Extent(offset + at, len(piece), EXTENT_DATA, -1))
        begin = at + len(piece)
    write_all(fd, data[begin:], offset + begin)


def _zero_device(fd: int, extent: Extent) -> None:
    """A device holds what it held: zeros have to be written, by itself where it can."""
    try:
        fcntl.ioctl(fd, BLKZEROOUT, struct.pack("QQ", extent.offset, extent.length))
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL):
            raise
        for offset in range(0, extent.length, PIECE):
            write_all(fd, memoryview(_ZEROS)[: extent.length - offset], extent.offset + offset)
