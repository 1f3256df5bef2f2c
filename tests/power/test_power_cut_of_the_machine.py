"""The power of the whole machine goes: what was flushed, or committed, is there afterwards.

The machine is a User-Mode Linux whose disk is a file of ours; its power is cut by
SIGKILL, with whatever its page cache held.
"""

from __future__ import annotations

import os
import random
import shutil
import time
from pathlib import Path

import pytest
from power_machine import cut_power, make_disk, start_machine

BLOCKS = 256
MIB = 1 << 20
NR_CUTS = 50 if os.environ.get("OBD_SOAK") == "1" else 5
NR_ENDLESS = 1_000_000  # transactions: until the power goes
FIRST, LONGEST_S = 3, 4.0  # transactions before the cut, and seconds after those
SEED = int(os.environ.get("OBD_POWER_SEED", "2026"))

pytestmark = [
    pytest.mark.skipif(shutil.which("linux.uml") is None, reason="needs User-Mode Linux"),
    pytest.mark.timeout(240 * NR_CUTS),
]


def numbers(line: str) -> set[int]:
    return {int(word) for word in line.split()[1:]}


def test_flushed_blocks_survive_a_power_cut_and_none_is_torn(tmp_path):
    disk = make_disk(tmp_path / "machine.disk", 256 * MIB)
    machine = start_machine("guest.py", "write", disks=(disk,))
    assert any(line == "flushed\n" for line in iter(machine.stdout.readline, ""))
    cut_power(machine, disk)

    again = start_machine("guest.py", "read", disks=(disk,))
    found = {line.split()[0]: numbers(line) for line in again.stdout if line.startswith(("kept", "zero"))}
    again.wait(60)
    assert set(range(0, BLOCKS, 2)) <= found["kept"], "a flushed block is lost"
    assert found["kept"] | found["zero"] == set(range(BLOCKS)), "a block is neither old nor new"


def committed_until_the_cut(disk: Path, after_s: float) -> int:
    """Starts a machine, cuts its power; the last transaction that it had said to be committed."""
    machine = start_machine("transactions_guest.py", "write", NR_ENDLESS, disks=(disk,))
    assert any(line == f"committed {FIRST}\n" for line in iter(machine.stdout.readline, ""))
    time.sleep(after_s)
    cut_power(machine, disk)
    lines = machine.stdout.read().splitlines()
    said = [
        int(line.split()[1])
        for line in lines
        if line.startswith("committed ") and line.split()[1].isdecimal()
    ]
    return max(said, default=FIRST)


def test_committed_transactions_survive_power_cuts_at_random_moments(tmp_path):
    """File systems, the one below and the one on the disk, are clean then."""
    chance = random.Random(SEED)
    for _ in range(NR_CUTS):
        disk = make_disk(tmp_path / "machine.disk", 256 * MIB)
        committed = committed_until_the_cut(disk, chance.uniform(0, LONGEST_S))
        machine = start_machine("transactions_guest.py", "check", 1, disks=(disk,))
        said = machine.communicate(timeout=200)[0]
        assert machine.returncode == 0, said
        (rows,) = (int(line.split()[1]) for line in said.splitlines() if line.startswith("rows "))
        print(f"{committed} transactions had been said to be committed, {rows} are there")
        assert rows >= committed
