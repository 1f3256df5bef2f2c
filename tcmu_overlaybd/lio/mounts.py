"""Is a disk in use?  Looked for wherever the kernel shows it, in every mount namespace.

This is for the sentence that tells the user what to close; what really keeps a disk
from being taken away is the exclusive claim of the helper (``claim`` of detach).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from tcmu_overlaybd.lio.kernel_text import read_kernel_text

SYS = Path("/sys")
PROC = Path("/proc")
MAX_USES = 5  # named in one sentence


def uses_of_disk(disk: str, *, sys: Path = SYS, proc: Path = PROC) -> list[str]:
    """What holds ``sda`` or a partition of it, each as ``sda1 is mounted at /mnt``; [] when nothing."""
    numbers = device_numbers(disk, sys=sys)
    uses = dict.fromkeys([*_mounts(numbers, proc), *_holders(disk, sys), *_swaps(numbers, proc)])
    return list(uses) or list(dict.fromkeys(_open_files(numbers, proc)))


def device_numbers(disk: str, *, sys: Path = SYS) -> dict[str, str]:
    """``{"8:0": "sda", "8:1": "sda1"}``: the disk and its partitions."""
    folder = sys / "block" / disk
    found = {}
    for entry in [folder, *folder.glob(f"{disk}*")]:
        with suppress(OSError):
            found[(entry / "dev").read_text().strip()] = entry.name
    return found


def parse_mountinfo(text: str) -> Iterator[tuple[str, str]]:
    """(device number, mount point) of each line; see proc(5)."""
    for line in text.splitlines():
        fields = line.split(" ")
        if len(fields) > 4:
            yield fields[2], fields[4].encode().decode("unicode_escape")


def _mounts(numbers: dict[str, str], proc: Path) -> Iterator[str]:
    """One look per mount namespace, ours first: processes share them."""
    seen = set()
    for pid in ["self", *_pids(proc)]:
        namespace = _link(proc / pid / "ns/mnt")
        if namespace and namespace in seen:
            continue
        text = read_kernel_text(proc / pid / "mountinfo")
        if text:
            seen.add(namespace)
        for number, point in parse_mountinfo(text):
            if number in numbers:
                where = "" if pid == "self" else f" in another mount namespace (that of pid {pid})"
                yield f"{numbers[number]} is mounted at {point}{where}"


def _holders(disk: str, sys: Path) -> Iterator[str]:
    folder = sys / "block" / disk
    for holder in [*folder.glob("holders/*"), *folder.glob(f"{disk}*/holders/*")]:
        yield f"{holder.parts[-3]} is held by {holder.name}"


def _swaps(numbers: dict[str, str], proc: Path) -> Iterator[str]:
    for line in read_kernel_text(proc / "swaps").splitlines()[1:]:
        device = Path(line.split(" ", 1)[0])
        if device.name in numbers.values():
            yield f"{device.name} is swap space"


def _open_files(numbers: dict[str, str], proc: Path) -> Iterator[str]:
    wanted = {_device(number): name for number, name in numbers.items()}
    for pid in _pids(proc):
        for file in _entries(proc / pid / "fd"):
            with suppress(OSError):
                status = file.stat()
                if stat.S_ISBLK(status.st_mode) and status.st_rdev in wanted:
                    yield f"{wanted[status.st_rdev]} is open in pid {pid} ({_command(proc / pid)})"


def _device(number: str) -> int:
    major, _, minor = number.partition(":")
    return os.makedev(int(major), int(minor))


def _command(process: Path) -> str:
    return read_kernel_text(process / "comm").strip() or "?"


def _pids(proc: Path) -> list[str]:
    return sorted((entry.name for entry in proc.iterdir() if entry.name.isdecimal()), key=int)


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:  # the process has ended, or is not ours to look at
        return []


def _link(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:
        return ""
