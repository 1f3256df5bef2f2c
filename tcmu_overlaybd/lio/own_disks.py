"""Does a path lie on a disk that we serve ourselves?

When memory is short the kernel writes dirty pages to our disk and waits for us.  If what we
write then lies on a file system on such a disk, that write waits for memory, too, and the
machine hangs.  So uppers, the cache and the state folder are refused there.

File systems without a block device (overlay, NFS) are not seen through.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from tcmu_overlaybd.errors import FailedError
from tcmu_overlaybd.scsi.disk import VENDOR

SYS = Path("/sys")
MOUNTS = Path("/proc/self/mountinfo")


def check_not_ours(path: Path, what: str) -> None:
    """Raises FailedError when path, or the nearest folder above it that exists, is on our disk."""
    disk = own_disk_below(path)
    if disk:
        raise FailedError(
            f"{path}: {what} cannot lie on {disk}, a disk of ours: short of memory, the machine would hang"
        )


def own_disk_below(path: Path, sys: Path = SYS, mounts: Path = MOUNTS) -> str:
    """``sda`` when path, or its file system, is on a disk of ours, by whatever partitions,
    device-mapper layers and loop devices; else ""."""
    device = device_below(path, sys, mounts)
    if device is None:
        return ""
    return next((disk.name for disk in disks_below(device, sys) if is_ours(disk)), "")


def device_below(path: Path, sys: Path = SYS, mounts: Path = MOUNTS) -> Path | None:
    """In /sys: the block device that path is, or that the file system of it, or of the nearest
    folder above it that exists, lies on."""
    existing = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    facts = existing.stat()
    device = _device(facts.st_rdev if stat.S_ISBLK(facts.st_mode) else facts.st_dev, sys)
    if device is not None:
        return device
    source = mount_source(existing.resolve(), mounts)  # btrfs gives each subvolume a number of its own
    return _device(source.stat().st_rdev, sys) if source is not None and source.is_block_device() else None


def _device(number: int, sys: Path) -> Path | None:
    entry = sys / f"dev/block/{os.major(number)}:{os.minor(number)}"
    return entry.resolve() if entry.exists() else None


def mount_source(path: Path, mounts: Path = MOUNTS) -> Path | None:
    """What is mounted where path lies: the device, when it is one."""
    found: dict[str, str] = {}
    for line in mounts.read_text().splitlines():
        before, _, after = line.partition(" - ")
        found[before.split()[4]] = after.split()[1]  # a later mount hides an earlier one
    point = next((str(folder) for folder in (path, *path.parents) if str(folder) in found), "")
    return Path(found[point]) if found.get(point, "").startswith("/dev/") else None


def disks_below(device: Path, sys: Path = SYS) -> Iterator[Path]:
    """The whole disks under a block device: of a partition its parent, of a loop device those of
    its file, of others their slaves."""
    if (device / "partition").exists():
        yield from disks_below(device.parent, sys)
        return
    below = [slave.resolve() for slave in (device / "slaves").glob("*")]
    backing = device / "loop/backing_file"
    if backing.exists():
        of_file = device_below(Path(backing.read_text().strip()), sys)
        below += [of_file] if of_file is not None else []
    for lower in below:
        yield from disks_below(lower, sys)
    if not below:
        yield device


def is_ours(disk: Path) -> bool:
    try:
        return (disk / "device/vendor").read_text().strip() == VENDOR
    except OSError:
        return False
