"""An image against a bytearray: write, discard, flush, kill, reopen, stack, commit, read.

The image lives in another process, so that killing it is killing it.  Whatever happens,
what was acknowledged is there, in an upper of either kind.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from image_process import SECTOR, ImageProcess, make_pair

from tcmu_overlaybd.config.image_config import ImageConfig, Upper
from tcmu_overlaybd.formats.zfile import Codec
from tcmu_overlaybd.image.commit import commit_image
from tcmu_overlaybd.image.layer_writer import LayerOptions

NR_SECTORS = 200
SIZE = NR_SECTORS * SECTOR
IS_SOAK = os.environ.get("OBD_SOAK") == "1"

ranges = st.tuples(st.integers(0, NR_SECTORS - 1), st.integers(1, 40)).map(
    lambda pair: (pair[0] * SECTOR, min(pair[1], NR_SECTORS - pair[0]) * SECTOR)
)
layer_options = st.builds(
    LayerOptions,
    codec=st.sampled_from([None, Codec.LZ4, Codec.ZSTD]),
    block_size=st.sampled_from([4096, 16384]),
    tar=st.booleans(),
    nr_threads=st.integers(1, 3),
    detect_zeros=st.booleans(),
)


class ImageMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="obd-machine-"))
        self.disk = bytearray(SIZE)
        self.nr_lowers = 0
        self.process: ImageProcess | None = None

    @initialize(
        flush_interval_ms=st.sampled_from([0, 1]),
        journal_slots=st.sampled_from([4, 64]),
        sparse=st.booleans(),
    )
    def open_blank_disk(self, flush_interval_ms, journal_slots, sparse):
        self.options = {"flush_interval_ms": flush_interval_ms, "journal_slots": journal_slots}
        self.sparse = sparse
        make_pair(self.folder, SIZE, sparse=sparse)
        self.process = ImageProcess(self.folder, **self.options)

    @rule(where=ranges, seed=st.integers(0, 255))
    def write(self, where, seed):
        offset, length = where
        data = bytes((seed + i // SECTOR) % 256 for i in range(length))
        self.process.write(offset, data)
        self.disk[offset : offset + length] = data

    @rule(where=ranges)
    def discard(self, where):
        offset, length = where
        self.process.discard(offset, length)
        self.disk[offset : offset + length] = bytes(length)

    @rule()
    def flush(self):
        self.process.flush()
        assert self.process.stats().unflushed_bytes == 0

    @rule(where=ranges)
    def read(self, where):
        offset, length = where
        assert self.process.read(offset, length) == self.disk[offset : offset + length]

    @rule()
    def kill_and_open_again(self):
        self.process.kill()
        self.process = ImageProcess(self.folder, **self.options)
        self.everything_is_there()

    @rule()
    def close_and_open_again(self):
        self.process.close()
        assert not (self.folder / "index.journal").exists()
        self.process = ImageProcess(self.folder, **self.options)
        assert self.process.stats().replayed == 0
        self.everything_is_there()

    @rule()
    def look_with_a_tool_at_what_a_killed_process_left(self):
        self.process.kill()
        before = {path.name: path.read_bytes() for path in self.folder.iterdir()}
        with ImageProcess(self.folder, read_only=True) as tool:
            assert tool.read(0, SIZE) == self.disk
            tool.close()
        assert {path.name: path.read_bytes() for path in self.folder.iterdir()} == before
        self.process = ImageProcess(self.folder, **self.options)

    @rule(options=layer_options, is_killed=st.booleans())
    def commit_and_stack(self, options, is_killed):
        """The upper becomes a lower, under a fresh one; unflushed writes of a killed process too."""
        if is_killed:
            self.process.kill()
        else:
            self.process.close()
        upper = Upper(data=str(self.folder / "data"), index=str(self.folder / "index"))
        commit_image(ImageConfig(upper=upper), self.folder / f"lower-{self.nr_lowers:03}", options)
        self.nr_lowers += 1
        for name in ("data", "index", "index.journal", "index.sectors"):
            (self.folder / name).unlink(missing_ok=True)
        make_pair(self.folder, SIZE, sparse=self.sparse)
        self.process = ImageProcess(self.folder, **self.options)
        self.everything_is_there()

    @invariant()
    def upper_is_alive(self):
        assert self.process is None or self.process.exit_code is None

    def everything_is_there(self):
        assert self.process.read(0, SIZE) == self.disk

    def teardown(self):
        try:
            if self.process is not None and self.process.exit_code is None:
                self.everything_is_there()
                self.process.close()
        finally:
            if self.process is not None and self.process.exit_code is None:
                self.process.kill()
            shutil.rmtree(self.folder)


TestImageMachine = ImageMachine.TestCase
TestImageMachine.pytestmark = [pytest.mark.timeout(3600 if IS_SOAK else 280)]
TestImageMachine.settings = settings(
    max_examples=300 if IS_SOAK else 12,
    stateful_step_count=60 if IS_SOAK else 30,
    deadline=None,  # it starts processes
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
