"""Disks of 200 MiB whose cache has room for next to nothing: every read ends, and right.

Also: what the cache takes of its disk is never more than its limit, whoever reads.
"""

from __future__ import annotations

import os
import random
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from small_disk import small_tmpfs

from tcmu_overlaybd.formats.zfile import Codec
from tcmu_overlaybd.image.layer_writer import LayerOptions
from tcmu_overlaybd.native import mem
from tcmu_overlaybd.native.core import Device
from tests.registry.nginx import serving
from tests.remote.cached_blob import Blobs
from tests.remote.remote_disk import make_layer, open_disk, random_disk

MIB = 1 << 20
SIZE = 200 * MIB
NR_READERS = 32
NR_IMAGES = 4


@dataclass(frozen=True)
class Served:
    """An image, and where its only layer is."""

    layer: Path
    url: str

    def open(self, blobs: Blobs) -> AbstractContextManager[Device]:
        return open_disk(blobs, self.url, self.layer)

    def plain(self, offset: int, length: int) -> bytes:
        """What its disk holds there."""
        with self.layer.with_name("raw").open("rb") as raw:
            return os.pread(raw.fileno(), length, offset)


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Iterator[list[Served]]:
    """Random bytes, so that a layer is as large as its disk; one of them compressed all the same."""
    root = tmp_path_factory.mktemp("images")
    with serving(tmp_path_factory.mktemp("nginx"), root) as nginx:
        yield [make_image(root / str(seed), seed, f"http://{nginx.host}/{seed}") for seed in range(NR_IMAGES)]
    shutil.rmtree(root)


def make_image(folder: Path, seed: int, url: str) -> Served:
    folder.mkdir()
    options = LayerOptions(codec=Codec.LZ4) if seed == 0 else LayerOptions()
    layer = make_layer(folder, random_disk(SIZE, seed), options)
    return Served(layer, f"{url}/{layer.name}")


def read_everywhere(device: Device, image: Served) -> None:
    """All of it by many readers, a MiB each, in no order and not aligned to anything."""
    offsets = [number * MIB + 4096 * (number % 5) for number in range(SIZE // MIB - 1)]
    random.Random(1).shuffle(offsets)

    def reads_right(offset: int) -> bool:
        return mem.read(device, MIB, offset) == image.plain(offset, MIB)

    with ThreadPoolExecutor(NR_READERS) as pool:
        assert all(pool.map(reads_right, offsets))
    assert device.stats().errors == {}


@pytest.mark.parametrize("number", [0, 1], ids=["lz4", "plain"])
def test_32_readers_of_a_cache_of_1_mib(images, tmp_path, number):
    with (
        Blobs(tmp_path, limit_bytes=MIB) as blobs,
        images[number].open(blobs) as device,
        watched(blobs, lambda: used_by_file(tmp_path)) as largest,
    ):
        read_everywhere(device, images[number])
    assert largest() <= MIB


def test_32_readers_of_a_cache_whose_disk_is_full(images, tmp_path):
    with (
        small_tmpfs(tmp_path / "small", "3m") as folder,
        Blobs(folder) as blobs,
        images[0].open(blobs) as device,
    ):
        read_everywhere(device, images[0])
        assert blobs.cache.stats().not_kept > 0, "the disk was not full"


def test_four_images_at_once_take_no_more_of_the_disk_than_the_limit(images, tmp_path):
    """On a file system of its own, that is asked: files looked at one after the other are no moment."""
    limit = 64 * MIB
    with (
        small_tmpfs(tmp_path / "own", "256m") as folder,
        Blobs(folder, limit_bytes=limit) as blobs,
        ExitStack() as stack,
    ):
        devices = [stack.enter_context(image.open(blobs)) for image in images]
        maps = used_of_disk(folder)
        with watched(blobs, lambda: used_of_disk(folder) - maps) as largest, ThreadPoolExecutor() as pool:
            list(pool.map(read_everywhere, devices, images))
        assert blobs.cache.stats().evicted > 0
    assert limit // 2 < largest() <= limit


@contextmanager
def watched(blobs: Blobs, usage: Callable[[], int]) -> Iterator[Callable[[], int]]:
    """The most that the cache was seen to use: by its own count, and by that of the file system.

    There is no "in flight" to add: a chunk has its room before it is written, and what
    has none is never written.
    """
    largest, ended = [0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.003):
            largest.append(max(blobs.cache.stats().used_bytes, usage()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield lambda: max(largest)
    finally:
        ended.set()
        watcher.join()


def used_by_file(folder: Path) -> int:
    """Bytes that the one blob's data takes, as du counts them."""
    (data,) = (path for path in (folder / "blobs").iterdir() if path.suffix != ".map")
    return data.stat().st_blocks * 512


def used_of_disk(folder: Path) -> int:
    facts = os.statvfs(folder)
    return (facts.f_blocks - facts.f_bfree) * facts.f_frsize
