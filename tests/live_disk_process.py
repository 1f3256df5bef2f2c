"""Two disks in a process that a test kills: written in a known order, snapshotted twice together.

    python -m live_disk_process FOLDER

Each line of its output is the number of a write that was acknowledged on both disks.
``Model`` tells what the disks hold by then.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from live_disks import LiveDisk, LiveDisks

NAMES = ("a", "b")
NR_BLOCKS = 16
BLOCK = 4096
SIZE = NR_BLOCKS * BLOCK
WRITES = (24, 10, 10)  # before the first snapshot, between the two, after the second


class Model:
    """What each disk holds after a number of writes."""

    @staticmethod
    def write(number: int) -> tuple[int, bytes]:
        """(offset, data) of a write; every fifth is a discard."""
        data = bytes(BLOCK) if number % 5 == 0 else bytes([number]) * BLOCK
        return number * 7 % NR_BLOCKS * BLOCK, data

    @classmethod
    def after(cls, nr_writes: int) -> bytes:
        disk = bytearray(SIZE)
        for number in range(1, nr_writes + 1):
            offset, data = cls.write(number)
            disk[offset : offset + BLOCK] = data
        return bytes(disk)


def write(disk: LiveDisk, number: int) -> None:
    offset, data = Model.write(number)
    if any(data):
        disk.write(data, offset)
    else:
        disk.discard(BLOCK, offset)


def work(folder: Path) -> None:
    number = 0
    with LiveDisks(folder) as live:
        disks = [live.open(name, SIZE) for name in NAMES]
        for part, nr_writes in enumerate(WRITES):
            if part > 0:
                live.snapshot(*NAMES)
            for _ in range(nr_writes):
                number += 1
                for disk in disks:
                    write(disk, number)
                print(number, flush=True)
                if number == nr_writes // 2:
                    disks[0].flush()


def run(folder: Path, kill_at: str) -> tuple[int, int]:
    """(exit code, number of the last write that was acknowledged)."""
    environment = {**os.environ, "OBD_TEST_KILL_AT": kill_at, "TCMU_OVERLAYBD_TEST_BUILD": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-m", "live_disk_process", str(folder)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, int(([0, *done.stdout.split()])[-1])


if __name__ == "__main__":
    work(Path(sys.argv[1]))
