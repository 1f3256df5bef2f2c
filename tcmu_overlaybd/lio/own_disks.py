"""Does a path lie on a disk that we serve ourselves?

When memory is short the kernel writes dirty pages to our disk and waits for us.  If what we
write then lies on a file system on such a disk, that write waits for memory, too, and the
machine hangs.  So uppers and the state folder are refused there.

File systems without a block device of their own (overlay, btrfs, NFS) are not seen through.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from tcmu_overlaybd.errors import FailedError
from tcmu_overlaybd.scsi.disk import VENDOR

SYS = Path("/sys")


def check_not_ours(path: Path, what: str) -> None:
    """Raises FailedError when path, or the nearest folder above it that exists, is on our disk."""
    disk = own_disk_below(path)
    if disk:
        raise FailedError(
            f"{path}: {what} cannot lie on {disk}, a disk of ours: short of memory, the machine would hang"
        )


def own_disk_below(path: Path, sys: Path = SYS) -> str:
    """``sda`` when path, or its file system, is on a disk of ours, by whatever partitions and
    device-mapper layers; else ""."""
    existing = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    facts = existing.stat()
    number = facts.st_rdev if stat.S_ISBLK(facts.st_mode) else facts.st_dev
    start = sys / f"dev/block/{os.major(number)}:{os.minor(number)}"
    if not start.exists():
        return ""
    return next((disk.name for disk in disks_below(start.resolve()) if is_ours(disk)), "")


def disks_below(device: Path) -> Iterator[Path]:
    """The whole disks under a block device: of a partition its parent, of others their slaves."""
    if (device / "partition").exists():
        yield from disks_below(device.parent)
        return
    slaves = list((device / "slaves").glob("*"))
    for slave in slaves:
        yield from disks_below(slave.resolve())
    if not slaves:
        yield device


def is_ours(disk: Path) -> bool:
    try:
        return (disk / "device/vendor").read_text().strip() == VENDOR
    except OSError:
        return False
