"""A disk whose registry misbehaves, and lies: what is read is right, or it is an error.

A blob's own bytes can be wrong too, and no header says so.  The checksums of its ZFile
find that out; the chunk is then fetched again.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tcmu_overlaybd.errors import CorruptError, OverlayBDError, UnavailableError
from tcmu_overlaybd.formats.zfile import Codec
from tcmu_overlaybd.image.layer_writer import LayerOptions
from tcmu_overlaybd.native import mem
from tcmu_overlaybd.native.core import Device
from tests.registry.http_faults import Fault, OtherBytes, Status
from tests.registry.scripted_server import ScriptedServer
from tests.remote.cached_blob import Blobs
from tests.remote.remote_disk import make_layer, open_disk
from tests.remote.test_fetch_faults import MOMENTARY, QUICK

SIZE = 16 << 20
SECTOR = 512
PATH = "/v2/t/disk/blobs/layer"
LIE = OtherBytes(100, step=1024)  # in every block
MAX_TRIES = 3  # of a block: as it came, and twice after its chunk was dropped


def half_random(seed: int) -> bytes:
    """Which compresses to half, so that blocks lie across the borders of chunks."""
    source = random.Random(seed)
    return b"".join(source.randbytes(2048) + bytes(2048) for _ in range(SIZE // 4096))


PLAIN = half_random(41)


@dataclass
class Disk:
    device: Device
    server: ScriptedServer

    def reads_right(self, offset: int, length: int) -> bool:
        return mem.read(self.device, length, offset) == PLAIN[offset : offset + length]


@pytest.fixture(scope="module")
def layer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_layer(tmp_path_factory.mktemp("layer"), PLAIN, LayerOptions(codec=Codec.LZ4, tar=False))


@contextmanager
def disk(layer: Path, folder: Path) -> Iterator[Disk]:
    """Nothing of its data is in the cache, but for what was read ahead when it was opened."""
    with ScriptedServer() as server, Blobs(folder, transport=QUICK) as blobs:
        server.put(PATH, layer.read_bytes())
        with open_disk(blobs, server.url + PATH, layer) as device:
            yield Disk(device, server)


@pytest.mark.parametrize("nr_lies", [1, MAX_TRIES - 1])
def test_a_chunk_that_came_wrong_is_fetched_again(layer, tmp_path, nr_lies):
    with disk(layer, tmp_path) as it:
        before = it.server.count()
        it.server.fault(PATH, *[LIE] * nr_lies)
        assert it.reads_right(SIZE // 2, 4096)
        assert it.server.count() - before >= nr_lies + 1
        assert it.device.stats().errors == {}


def test_a_chunk_that_always_comes_wrong_is_an_error_and_no_data(layer, tmp_path):
    with disk(layer, tmp_path) as it:
        it.server.always(PATH, LIE)
        with pytest.raises(CorruptError, match="block"):
            it.reads_right(SIZE // 2, 4096)
        it.server.always(PATH, None)
        assert it.reads_right(SIZE // 2, 4096), "a later read tries anew"


LIES = st.builds(OtherBytes, st.integers(0, 511), st.sampled_from([1000, 100_000]))
ANY_FAULT = st.one_of(st.sampled_from(MOMENTARY), LIES)
READS = st.tuples(st.integers(0, SIZE // SECTOR - 1), st.integers(1, 512))  # sectors


@settings(max_examples=settings().max_examples // 3)
@given(script=st.lists(ANY_FAULT, max_size=8), wanted=st.lists(READS, min_size=1, max_size=4))
def test_whatever_faults_come_no_wrong_byte_is_read(layer, tmp_path_factory, script, wanted):
    with disk(layer, tmp_path_factory.mktemp("cache")) as it:
        it.server.fault(PATH, *script)
        for first, number in wanted:
            offset = first * SECTOR
            failure = failure_of_read(it, offset, min(number * SECTOR, SIZE - offset))
            assert failure is None or is_warranted(failure, script), failure


def failure_of_read(it: Disk, offset: int, length: int) -> OverlayBDError | None:
    """None when it reads right, which it does when it reads at all."""
    try:
        assert it.reads_right(offset, length)
    except OverlayBDError as error:
        return error
    return None


def is_warranted(error: OverlayBDError, script: list[Fault]) -> bool:
    """A refusal that comes back at once is an error, and data that was wrong at every try."""
    if isinstance(error, CorruptError):
        return sum(isinstance(fault, OtherBytes) for fault in script) >= MAX_TRIES
    refusals = [fault.code for fault in script if isinstance(fault, Status) and 300 <= fault.code < 500]
    return isinstance(error, UnavailableError) and any(str(code) in str(error) for code in refusals)
