"""Reads a log of dm-log-writes, and makes of it what the disk held at a point of it.

::

    sector 0          magic u64, version u64, number of entries u64, sector size u32
    then each entry   one sector: first sector u64, sectors u64, flags u64, data length u64
                      (and of a mark its text); then the sectors that were written

All numbers are little-endian.  A write is in the log from the moment that a flush made it
durable, so what comes before an entry with FLUSH or FUA is what a power cut right after
it must leave (https://docs.kernel.org/admin-guide/device-mapper/log-writes.html).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MAGIC = 0x6A736677736872
FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8
SUPER = struct.Struct("<QQQI")
ENTRY = struct.Struct("<QQQQ")


@dataclass(frozen=True)
class Entry:
    offset: int  # bytes, on the disk that was logged
    length: int
    flags: int
    mark: str
    data_at: int  # in the log

    @property
    def is_durable_point(self) -> bool:
        return bool(self.flags & (FLUSH | FUA))


def read_entries(log: Path) -> Iterator[Entry]:
    """Raises ValueError for a file that is no such log."""
    with log.open("rb") as file:
        magic, version, nr_entries, sector = SUPER.unpack(file.read(SUPER.size))
        if (magic, version) != (MAGIC, 1):
            raise ValueError(f"{log}: no log of dm-log-writes, version 1")
        at = sector
        for _ in range(nr_entries):
            file.seek(at)
            head = file.read(sector)
            first, sectors, flags, length = ENTRY.unpack_from(head)
            mark = head[ENTRY.size : ENTRY.size + length].split(b"\0")[0].decode() if flags & MARK else ""
            yield Entry(first * sector, sectors * sector, flags, mark, at + sector)
            at += sector + (0 if flags & DISCARD else sectors * sector)


def replay(log: Path, entries: list[Entry], disk: Path) -> None:
    """Applies entries to disk; a discard leaves what there was, as it may."""
    with log.open("rb") as source, disk.open("r+b") as target:
        for entry in entries:
            if entry.length and not entry.flags & DISCARD:
                source.seek(entry.data_at)
                os.pwrite(target.fileno(), source.read(entry.length), entry.offset)
