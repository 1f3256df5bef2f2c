"""The process is killed at every step of a snapshot of two disks, and each disk comes back.

Each is before the snapshot or after it, and holds all that was acknowledged; what was left
of the snapshot is gone; and it can be snapshotted again.
"""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest
from live_disk_process import NAMES, SIZE, WRITES, Model, run
from live_disks import LiveDisk, LiveDisks

from tcmu_overlaybd.config.image_config import load_image_config

ROOT = Path(__file__).parents[2]

# Passed once for each disk of each snapshot, in this order; then once for each snapshot.
OF_A_DISK = [
    "snapshot.intent_written",
    "snapshot.upper_made",
    "snapshot.flushed",
    "seal.index_synced",
    "seal.trailer_written",
    "seal.trailer_synced",
    "seal.marked",
    "snapshot.image_replaced",
    "snapshot.config_switched",
    "snapshot.configs_switched",
    "snapshot.index_removed",
    "snapshot.completed",
]
OF_A_SNAPSHOT = ["snapshot.held", "snapshot.resumed"]
NTH = (1, 2, 3) if os.environ.get("OBD_SOAK") == "1" else (1, 3)
PASSES = [(step, n) for step in OF_A_DISK for n in NTH] + [(step, 2) for step in OF_A_SNAPSHOT]


def test_list_of_steps_is_complete():
    sources = [*ROOT.glob("csrc/image/*.c"), *ROOT.glob("tcmu_overlaybd/**/*.py")]
    text = "".join(path.read_text() for path in sources)
    named = set(re.findall(r'(?:HOOK|hook)\("((?:seal|snapshot)\.[^"]+)"\)', text))
    assert named == {*OF_A_DISK, *OF_A_SNAPSHOT}


def check_folder(disk: LiveDisk) -> None:
    """Nothing lies there but what the configuration names, and its configurations agree."""
    config = load_image_config(disk.config)
    beside = load_image_config(disk.upper / "config.v1.json")
    assert (config.lowers, config.upper) == (beside.lowers, beside.upper)
    upper = config.writable
    assert upper is not None
    named = {lower.file for lower in config.layers} | {upper.data, upper.index}
    named |= {f"{upper.index}.journal", str(disk.upper / "config.v1.json")}
    assert {str(path) for path in disk.upper.iterdir()} == named


def check_disk(disks: LiveDisks, name: str, allowed: list[bytes]) -> None:
    disk = disks.reopen(name)
    found = disk.read_all()
    assert found in allowed
    assert disk.seen_by_oracle() == found
    check_folder(disk)
    disks.snapshot(name)
    disk.write(b"x" * 512, 0)
    assert disk.seen_by_oracle() == b"x" * 512 + found[512:]
    check_folder(disk)


@pytest.mark.parametrize(("step", "nth"), PASSES)
def test_killed_in_a_snapshot_a_disk_is_before_or_after_it(tmp_path, step, nth):
    code, last = run(tmp_path, f"{step}:{nth}")
    assert code == -signal.SIGKILL, "the step was not reached"
    assert last in (WRITES[0], WRITES[0] + WRITES[1], sum(WRITES)), "a snapshot, not a write, was killed"
    with LiveDisks(tmp_path) as disks:
        for name in NAMES:
            check_disk(disks, name, [Model.after(last)])


# Passes before the first snapshot: two disks, and a discard writes no data.
BEFORE = {"upper.data_written": 2 * (WRITES[0] - WRITES[0] // 5), "upper.record_written": 2 * WRITES[0]}


@pytest.mark.parametrize("step", BEFORE)
def test_killed_in_a_write_after_a_snapshot_nothing_acknowledged_is_lost(tmp_path, step):
    code, last = run(tmp_path, f"{step}:{BEFORE[step] + 3}")
    assert code == -signal.SIGKILL
    assert WRITES[0] < last < WRITES[0] + WRITES[1]
    with LiveDisks(tmp_path) as disks:
        for name in NAMES:
            check_disk(disks, name, [Model.after(last), Model.after(last + 1)])


def test_process_that_is_not_killed_leaves_what_it_wrote(tmp_path):
    code, last = run(tmp_path, "")
    assert (code, last) == (0, sum(WRITES))
    with LiveDisks(tmp_path) as disks:
        for name in NAMES:
            assert len(load_image_config(disks.state.config_path(name)).layers) == 2
            assert disks.reopen(name).read(SIZE, 0) == Model.after(last)
