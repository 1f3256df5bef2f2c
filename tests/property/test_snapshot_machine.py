"""Disks against bytearrays: write, discard, flush, snapshot some together, fork, come back.

Every disk, and every fork of a fork, holds what was written to it and nothing else, also for
a reader that shares no line with us; every sealed file keeps what its disk held then.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from live_disks import LiveDisk, LiveDisks
from oracle.reader import read_layer, stack

from tcmu_overlaybd.config.image_config import load_image_config

SECTOR = 512
NR_SECTORS = 64
SIZE = NR_SECTORS * SECTOR
MAX_DISKS = 4
MAX_LAYERS = 12
IS_SOAK = os.environ.get("OBD_SOAK") == "1"

numbers = st.integers(0, MAX_DISKS - 1)  # of a disk, modulo how many there are
ranges = st.tuples(st.integers(0, NR_SECTORS - 1), st.integers(1, 20)).map(
    lambda pair: (pair[0] * SECTOR, min(pair[1], NR_SECTORS - pair[0]) * SECTOR)
)


class SnapshotMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="obd-snapshots-"))
        self.live = LiveDisks(self.folder)
        self.disks: list[LiveDisk] = []
        self.held: list[bytearray] = []
        self.sealed: list[tuple[list[str], bytes]] = []  # layers, lowest first, and what they show

    @initialize()
    def open_blank_disk(self):
        self.disks.append(self.live.open("disk0", SIZE))
        self.held.append(bytearray(SIZE))

    def disk(self, number):
        number %= len(self.disks)
        return self.disks[number], self.held[number]

    @rule(number=numbers, where=ranges, byte=st.integers(1, 255))
    def write(self, number, where, byte):
        (offset, length), (disk, held) = where, self.disk(number)
        disk.write(bytes([byte]) * length, offset)
        held[offset : offset + length] = bytes([byte]) * length

    @rule(number=numbers, where=ranges)
    def discard(self, number, where):
        (offset, length), (disk, held) = where, self.disk(number)
        disk.discard(length, offset)
        held[offset : offset + length] = bytes(length)

    @rule(number=numbers)
    def flush(self, number):
        self.disk(number)[0].flush()

    @rule(chosen=st.sets(numbers, min_size=1))
    def snapshot(self, chosen):
        chosen = {number % len(self.disks) for number in chosen}
        few = [number for number in chosen if len(self.layers(self.disks[number])) < MAX_LAYERS]
        if few:
            self.live.snapshot(*(self.disks[number].name for number in few))
        for number in few:
            self.sealed.append((self.layers(self.disks[number]), bytes(self.held[number])))

    @precondition(lambda self: len(self.disks) < MAX_DISKS)
    @rule(number=numbers)
    def fork(self, number):
        disk, held = self.disk(number)
        self.live.snapshot(disk.name)
        base = msgspec.structs.replace(load_image_config(disk.config), upper=None)
        self.disks.append(self.live.open(f"disk{len(self.disks)}", base=base))
        self.held.append(bytearray(held))

    @rule(number=numbers)
    def come_back(self, number):
        number %= len(self.disks)
        name = self.disks[number].name
        self.live.close(name)
        self.disks[number] = self.live.reopen(name)
        assert self.disks[number].read_all() == self.held[number]

    @rule(number=numbers)
    def read(self, number):
        disk, held = self.disk(number)
        assert disk.read_all() == held
        assert disk.seen_by_oracle() == held

    def teardown(self):
        try:
            for number in range(len(self.disks)):
                self.read(number)
            for layers, held in self.sealed:
                assert stack([read_layer(Path(path)) for path in layers]).read(0, SIZE) == held
        finally:
            with self.live:
                pass
            shutil.rmtree(self.folder)

    @staticmethod
    def layers(disk: LiveDisk) -> list[str]:
        return [lower.file for lower in load_image_config(disk.config).layers]


TestSnapshots = SnapshotMachine.TestCase
TestSnapshots.settings = settings(
    max_examples=200 if IS_SOAK else 15,
    stateful_step_count=40 if IS_SOAK else 25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
