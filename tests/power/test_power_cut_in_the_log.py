"""A power cut at each flush of the disk below: what was committed is there, and nothing is broken.

The upper lies on ext4 over dm-log-writes while fio and SQLite write to the disk; the log is
replayed up to some of its flushes (``make soak``: all), and each time a machine starts with
what is there then.  The seam between two file systems and our upper is thereby tried as
the kernel orders the writes, not as we believe that it does.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from power_machine import make_disk, start_machine
from write_log import Entry, read_entries, replay

MIB = 1 << 20
IS_SOAK = os.environ.get("OBD_SOAK") == "1"
TRANSACTIONS = 200 if IS_SOAK else 60
POINTS = 6  # of make test; the soak tries all
AT_ONCE = 6  # disks of one machine
BOOT_S = 400

pytestmark = [
    pytest.mark.skipif(shutil.which("linux.uml") is None, reason="needs User-Mode Linux"),
    pytest.mark.skipif(shutil.which("dmsetup") is None, reason="needs dmsetup: apt-get install dmsetup"),
    pytest.mark.timeout(7200 if IS_SOAK else 600),
]


class Recording:
    """What one machine wrote: the disk before, and its log."""

    def __init__(self, folder: Path, **env: str) -> None:
        self.before = make_disk(folder / "before", 128 * MIB)
        self.log = make_disk(folder / "log", 1024 * MIB, ext4=False)
        disk = folder / "disk"
        shutil.copyfile(self.before, disk)
        machine = start_machine(
            "transactions_guest.py", "write", TRANSACTIONS, "logged", disks=(disk, self.log), **env
        )
        said = machine.communicate(timeout=BOOT_S)[0]
        assert "written" in said, said
        self.entries = list(read_entries(self.log))

    def points(self) -> list[int]:
        """Numbers of entries up to which to replay: each after a flush, from the first commit on."""
        first = next(i for i, entry in enumerate(self.entries) if entry.mark.startswith("committed"))
        last = max(i for i, entry in enumerate(self.entries) if entry.mark.startswith("committed"))
        return [i + 1 for i, entry in enumerate(self.entries) if first < i <= last and entry.is_durable_point]

    def disk_at(self, point: int, path: Path) -> Path:
        shutil.copyfile(self.before, path)
        replay(self.log, self.entries[:point], path)
        return path


def committed_by(entries: list[Entry]) -> int:
    """The last transaction that had been acknowledged by then."""
    marks = (entry.mark.split("-") for entry in entries)
    return max((int(mark[1]) for mark in marks if mark[0] == "committed"), default=0)


def evenly(points: list[int], count: int) -> list[int]:
    return (
        points
        if len(points) <= count
        else [points[i * (len(points) - 1) // (count - 1)] for i in range(count)]
    )


def rows_after(disks: list[Path]) -> list[int]:
    """Starts a machine with all of them; how many transactions each has, sound from the first to the last."""
    machine = start_machine("transactions_guest.py", "check", len(disks), disks=disks)
    said = machine.communicate(timeout=BOOT_S)[0]
    assert machine.returncode == 0, said
    return [int(line.split()[1]) for line in said.splitlines() if line.startswith("rows ")]


def lost(recording: Recording, points: list[int], folder: Path) -> list[str]:
    """What is missing at each point."""
    found = []
    for begin in range(0, len(points), AT_ONCE):
        some = points[begin : begin + AT_ONCE]
        disks = [recording.disk_at(point, folder / f"disk{number}") for number, point in enumerate(some)]
        for point, rows in zip(some, rows_after(disks), strict=True):
            wanted = committed_by(recording.entries[:point])
            if rows < wanted:
                found.append(f"after entry {point}: {rows} transactions of {wanted}")
    return found


def test_every_transaction_committed_before_a_flush_is_there_after_it(tmp_path):
    recording = Recording(tmp_path)
    flushes = recording.points()
    points = flushes if IS_SOAK else evenly(flushes, POINTS)
    print(f"{len(recording.entries)} entries, {len(flushes)} flushes, {len(points)} of them tried")
    assert len(flushes) > POINTS
    assert lost(recording, points, tmp_path) == []


def test_an_upper_that_forgets_to_sync_its_data_is_found_out(tmp_path):
    """The counterpart: the same test fails when syncs of the upper's data do nothing."""
    recording = Recording(tmp_path, OBD_TEST_FILE_FAULT="upper/data:forget:1:5:sticky")
    try:
        missing = lost(recording, evenly(recording.points(), POINTS), tmp_path)
    except AssertionError:  # the machine does not even find a sound file system
        return
    assert missing
