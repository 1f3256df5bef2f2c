"""Overlapping writes at the same time leave memory and index in the same order.

Which of two concurrent writes wins is open; that reading before and after a reopening
gives the same winner is not, and neither is that a winner wins as a whole.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from tcmu_overlaybd.image.open import open_image
from tcmu_overlaybd.native import mem
from tcmu_overlaybd.native.core import CommandKind, Core, Device

SECTOR = 512
NR_SECTORS = 24  # few, so that they meet
LONG_MS = 60_000


class Change(NamedTuple):
    """A write, or a discard, of a range of sectors; in the test it gets a number of its own."""

    first: int
    nr: int
    is_discard: bool


ranges = st.integers(0, NR_SECTORS - 1).flatmap(
    lambda first: st.tuples(st.just(first), st.integers(1, NR_SECTORS - first))
)
changes = st.builds(lambda where, is_discard: Change(*where, is_discard), ranges, st.booleans())
# What goes at the same time, one after the other.
rounds = st.lists(st.lists(changes, min_size=2, max_size=12), min_size=1, max_size=6)


def submit(device: Device, change: Change, number: int) -> mem.Pending:
    offset, length = change.first * SECTOR, change.nr * SECTOR
    if change.is_discard:
        return mem.Pending(device, CommandKind.DISCARD, offset, length)
    data = number.to_bytes(2, "little") * (length // 2)
    return mem.Pending(device, CommandKind.WRITE, offset, length, data)


def owners(content: bytes) -> list[int]:
    """The number that each sector is full of; 0: zeros."""
    sectors = [content[i : i + SECTOR] for i in range(0, len(content), SECTOR)]
    assert all(sector == sector[:2] * (SECTOR // 2) for sector in sectors)
    return [int.from_bytes(sector[:2], "little") for sector in sectors]


def check_winners(before: list[int], after: list[int], batch: dict[int, Change]) -> None:
    """Each sector is one of the batch's that covers it; nobody has one that nobody wrote."""
    for sector, number in enumerate(after):
        covering = {
            0 if change.is_discard else own
            for own, change in batch.items()
            if change.first <= sector < change.first + change.nr
        }
        assert number in (covering or {before[sector]})


def run_rounds(device: Device, batches: list[list[Change]]) -> list[int]:
    content, number = [0] * NR_SECTORS, 0
    for changes in batches:
        batch = {number + i + 1: change for i, change in enumerate(changes)}
        number += len(changes)
        pending = [submit(device, change, own) for own, change in batch.items()]
        assert all(command.wait(LONG_MS) for command in pending)
        now = owners(mem.read(device, NR_SECTORS * SECTOR, 0))
        check_winners(content, now, batch)
        content = now
    return content


def check_order(batches: list[list[Change]]) -> None:
    with tempfile.TemporaryDirectory() as folder, Core.open(nr_workers=8) as core:
        upper = Path(folder) / "upper"
        with ExitStack() as stack:
            opened = stack.enter_context(
                open_image(None, writable=True, upper_dir=upper, size=NR_SECTORS * SECTOR)
            )
            device = stack.enter_context(Device.open(core, opened.image, name="concurrent"))
            content = run_rounds(device, batches)
        with open_image([str(upper / "config.v1.json")]) as opened:
            assert owners(opened.image.read(NR_SECTORS * SECTOR, 0, LONG_MS)) == content


@settings(deadline=None, max_examples=60)
@given(rounds)
def test_a_reopened_image_has_the_winners_that_were_read_before(batches: list[list[Change]]) -> None:
    check_order(batches)
