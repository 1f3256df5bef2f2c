"""The power of the whole machine goes: what was flushed is there afterwards.

The machine is a User-Mode Linux whose disk is a file of ours; its power is cut by
SIGKILL, with whatever its page cache held.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
GUEST = PROJECT / "tests/power/guest.py"
BLOCKS = 256

pytestmark = [
    pytest.mark.skipif(shutil.which("linux.uml") is None, reason="needs User-Mode Linux"),
    pytest.mark.timeout(240),
]


def guest(disk: Path, what: str) -> subprocess.Popen[str]:
    script = f"mount /dev/ubda /mnt && exec {sys.executable} {GUEST} {what} /mnt"
    command = [PROJECT / "vagrant/umlrun", "-t", "200", "-w", PROJECT, "-d", disk, "--", "bash", "-c", script]
    return subprocess.Popen(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        text=True,
        cwd=PROJECT,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
    )


def cut_power(machine: subprocess.Popen[str], disk: Path) -> None:
    """Kills every process of the guest: they are the ones that have its disk on their command line."""
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if f"ubd0={disk}".encode() in entry.read_bytes().split(b"\0"):
                os.kill(int(entry.parent.name), signal.SIGKILL)
        except (OSError, ProcessLookupError):
            continue
    machine.wait(60)


def numbers(line: str) -> set[int]:
    return {int(word) for word in line.split()[1:]}


def test_flushed_blocks_survive_a_power_cut_and_none_is_torn(tmp_path):
    disk = tmp_path / "machine.disk"
    with disk.open("wb") as file:
        file.truncate(256 << 20)
    subprocess.run(["mkfs.ext4", "-q", disk], check=True)
    machine = guest(disk, "write")
    lines = iter(machine.stdout.readline, "")
    assert any(line == "flushed\n" for line in lines)
    cut_power(machine, disk)

    again = guest(disk, "read")
    found = {line.split()[0]: numbers(line) for line in again.stdout if line.startswith(("kept", "zero"))}
    again.wait(60)
    assert set(range(0, BLOCKS, 2)) <= found["kept"], "a flushed block is lost"
    assert found["kept"] | found["zero"] == set(range(BLOCKS)), "a block is neither old nor new"
