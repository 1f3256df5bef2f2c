"""A disk whose layer lies in a registry that goes away and comes back, by policy of the device."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tcmu_overlaybd.errors import UnavailableError
from tcmu_overlaybd.native import mem
from tcmu_overlaybd.native.core import Device, OnTimeout
from tests.registry.docker_registry import DockerRegistry
from tests.registry.images import Blob
from tests.remote.cached_blob import Blobs
from tests.remote.remote_disk import make_layer, open_disk, random_disk
from tests.remote.test_cached_reads import pushed

SIZE = 16 << 20
IO_TIMEOUT_MS = 3000
PIECE = 64 << 10
PLAIN = random_disk(SIZE, 21)


@dataclass
class Disk:
    """A device over a layer of PLAIN in a registry of its own, nothing of it read yet."""

    device: Device
    registry: DockerRegistry

    def read(self, number: int) -> bytes:
        """Piece number, as the kernel would ask for it."""
        return mem.read(self.device, PIECE, number * PIECE)

    def reads_right(self, number: int) -> bool:
        return self.read(number) == PLAIN[number * PIECE :][:PIECE]


@pytest.fixture(scope="module")
def layer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_layer(tmp_path_factory.mktemp("layer"), PLAIN)


@contextmanager
def disk(layer: Path, folder: Path, client_of, policy: OnTimeout) -> Iterator[Disk]:
    with DockerRegistry(folder / "registry") as registry, Blobs(folder / "cache") as blobs:
        url = pushed(client_of, registry, "t/disk", Blob(layer.read_bytes()))
        with open_disk(blobs, url, layer, io_timeout_ms=IO_TIMEOUT_MS, on_timeout=policy) as device:
            yield Disk(device, registry)


def test_error_ends_every_command_in_time_with_the_reason_and_recovers(layer, tmp_path, client_of):
    with disk(layer, tmp_path, client_of, OnTimeout.ERROR) as it, ThreadPoolExecutor(16) as pool:
        assert it.reads_right(0)
        it.registry.stop()

        def fails(number: int) -> str:
            with pytest.raises(UnavailableError) as caught:
                it.read(number)
            return str(caught.value)

        began = time.monotonic()
        reasons = list(pool.map(fails, range(40, 72)))
        assert time.monotonic() - began < 30, "two rounds of 3 s"
        assert any("127.0.0.1" in reason and "connect" in reason for reason in reasons), reasons
        it.registry.start()
        assert all(pool.map(it.reads_right, range(SIZE // PIECE)))


def test_freeze_and_retry_see_only_a_pause(layer, tmp_path, client_of):
    for policy in (OnTimeout.FREEZE, OnTimeout.RETRY):
        with disk(layer, tmp_path / policy.name, client_of, policy) as it, ThreadPoolExecutor(16) as pool:
            it.registry.stop()
            reads = [pool.submit(it.reads_right, number) for number in range(SIZE // PIECE)]
            time.sleep(2 * IO_TIMEOUT_MS / 1000)
            assert not any(read.done() for read in reads[40:])
            it.registry.start()
            assert all(read.result() for read in reads)
            assert it.device.stats().errors == {}


def test_a_frozen_device_lets_go_of_its_commands_when_told_to(layer, tmp_path, client_of):
    with disk(layer, tmp_path, client_of, OnTimeout.FREEZE) as it, ThreadPoolExecutor(4) as pool:
        it.registry.stop()
        read = pool.submit(it.read, 100)
        while it.device.stats().parked == 0:
            time.sleep(0.01)
        it.device.fail_parked()
        with pytest.raises(Exception, match="disk"):
            read.result(30)
