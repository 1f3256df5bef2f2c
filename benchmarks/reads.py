"""4 KiB random reads of warm layers, through the whole core, against bare loops."""

from __future__ import annotations

import os
import random
from array import array
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import images
from benchmarks.baseline import Baseline, Numbers
from benchmarks.pairs import Result, compare
from tcmu_overlaybd.formats import zfile
from tcmu_overlaybd.image.open import open_image
from tcmu_overlaybd.native import mem
from tcmu_overlaybd.native.core import Core, Device

NR_READS = 60_000
PLAIN_GOAL = 0.7
ZFILE_GOAL = 0.8
TWO_THREADS_GOAL = 0.85


@contextmanager
def device_on(path: Path) -> Iterator[Device]:
    with ExitStack() as stack:
        image = stack.enter_context(open_image(images.config_of(path))).image
        core = stack.enter_context(Core.open())
        yield stack.enter_context(Device.open(core, image, name=path.name))


def random_offsets() -> Numbers:
    """The same ones in every run."""
    choose = random.Random(4096)
    nr_blocks = images.DISK_BYTES // images.BLOCK
    return array("Q", (choose.randrange(nr_blocks) * images.BLOCK for _ in range(NR_READS)))


@dataclass(frozen=True)
class Reads:
    """The same reads for both sides: offsets on the disk, and where the baseline finds them."""

    name: str
    path: Path
    offsets: Numbers
    places: Numbers
    lengths: Numbers | None = None  # of stored blocks, CRC included


def plain(folder: Path) -> Reads:
    offsets = random_offsets()
    places = array("Q", (offset + images.LSMT_HEADER for offset in offsets))
    return Reads("plain layer", images.layer(folder, None), offsets, places)


def compressed(folder: Path) -> Reads:
    path = images.layer(folder, zfile.Codec.LZ4)
    stored = images.StoredBlocks(path)
    offsets = random_offsets()
    blocks = [(offset + images.LSMT_HEADER) // images.BLOCK for offset in offsets]
    places = array("Q", (stored.places[block] for block in blocks))
    return Reads("ZFile lz4 4K", path, offsets, places, array("I", (stored.lengths[b] for b in blocks)))


def measure(reads: Reads, baseline: Baseline, nr_threads: int, at_least: float, nr_pairs: int) -> Result:
    fd = os.open(reads.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with device_on(reads.path) as device:
            return compare(
                f"{reads.name}, 4 KiB random reads, {nr_threads} thread{'s' if nr_threads > 1 else ''}",
                lambda: _rate(mem.read_loop(device, reads.offsets, images.BLOCK, nr_threads)),
                lambda: _rate(baseline.read_loop(fd, images.BLOCK, nr_threads, reads.places, reads.lengths)),
                unit="reads/s",
                at_least=at_least,
                nr_pairs=nr_pairs,
                is_in_process=True,
            )
    finally:
        os.close(fd)


def _rate(elapsed_ns: int) -> float:
    return NR_READS / elapsed_ns * 1e9
