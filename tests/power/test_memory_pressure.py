"""A process dirties more memory than the machine has, through a file system on our disk.

To free a page the kernel must write it to us, and we write it to the upper, for which the
kernel needs pages: a daemon that waited for those would never end.  Swap is off, and the
daemon may use little more than it has at its start.
"""

from __future__ import annotations

import shutil

import pytest
from power_machine import make_disk, start_machine

MIB = 1 << 20
MEMORY_MIB, WRITTEN_MIB, DAEMON_MIB = 384, 600, 128

pytestmark = [
    pytest.mark.skipif(shutil.which("linux.uml") is None, reason="needs User-Mode Linux"),
    pytest.mark.timeout(400),
]


def test_more_dirty_pages_than_memory_end_on_the_disk(tmp_path):
    disk = make_disk(tmp_path / "machine.disk", (2 * WRITTEN_MIB + 256) * MIB)
    machine = start_machine(
        "memory_guest.py", WRITTEN_MIB, DAEMON_MIB, disks=(disk,), memory=f"{MEMORY_MIB}M", seconds=300
    )
    said = machine.communicate(timeout=320)[0]
    print(*(line for line in said.splitlines() if line.startswith(("written", "peak"))), sep="\n")
    assert "all there" in said, said
    assert "score -1000" in said
