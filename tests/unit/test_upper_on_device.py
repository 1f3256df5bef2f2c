"""An upper whose data lies on a block device: what was there before is never taken for its log."""

from __future__ import annotations

import os

import pytest
from image_process import ImageProcess
from small_disk import loop_device

from tcmu_overlaybd.config.image_config import ImageConfig, Upper
from tcmu_overlaybd.errors import BusyError, FailedError, NoSpaceError, UsageError
from tcmu_overlaybd.image.commit import commit_image
from tcmu_overlaybd.image.create import create_layer
from tcmu_overlaybd.image.info import image_info
from tcmu_overlaybd.image.layer_writer import LayerOptions
from tcmu_overlaybd.image.open import open_image

MIB = 1 << 20
DEVICE_SIZE = 8 * MIB
SIZE = 4 * MIB
TIMEOUT = 10_000


@pytest.fixture
def device(tmp_path):
    """Blank where an upper begins, full of something old behind that."""
    with loop_device(tmp_path / "backing", DEVICE_SIZE) as path:
        with path.open("r+b") as file:
            file.seek(MIB)
            file.write(os.urandom(DEVICE_SIZE - MIB))
        yield path


@pytest.fixture
def config(device, tmp_path):
    create_layer(device, tmp_path / "index", SIZE)
    return ImageConfig(upper=Upper(data=str(device), index=str(tmp_path / "index")))


def content(config: ImageConfig) -> bytes:
    with open_image(config) as opened:
        return opened.image.read(SIZE, 0, TIMEOUT)


def test_what_was_written_is_found_again_and_nothing_else(config):
    assert content(config) == bytes(SIZE)
    expected = bytearray(SIZE)
    for number in range(1, 6):
        with open_image(config, writable=True) as opened:
            opened.image.write(bytes([number]) * 4096, number * 2048, TIMEOUT)
            opened.image.discard(512, number * 2048, TIMEOUT)
        expected[number * 2048 : number * 2048 + 4096] = bytes(512) + bytes([number]) * 3584
        assert content(config) == expected
    assert image_info(config)["upper"]["data_size"] == DEVICE_SIZE


def test_acknowledged_writes_survive_a_kill(config, device, tmp_path):
    (tmp_path / "data").symlink_to(device)
    for number in range(1, 4):
        with ImageProcess(tmp_path) as process:
            process.write(0, bytes([number]) * 65536)
            process.write(MIB * number, bytes([number]) * 512)
            process.kill()
    found = content(config)
    assert found[:65536] == bytes([3]) * 65536
    assert [found[MIB * number] for number in range(1, 4)] == [1, 2, 3]


def test_a_full_device_refuses_writes_and_is_committed(config, tmp_path):
    with open_image(config, writable=True) as opened:
        opened.image.write(b"a" * SIZE, 0, TIMEOUT)
        with pytest.raises(NoSpaceError, match=f"has {DEVICE_SIZE} bytes, and its log would need"):
            opened.image.write(b"b" * SIZE, 0, TIMEOUT)
        opened.image.write(b"c" * 4096, 0, TIMEOUT)
    expected = b"c" * 4096 + b"a" * (SIZE - 4096)
    assert content(config) == expected
    commit_image(config, tmp_path / "layer", LayerOptions())
    with open_image([tmp_path / "layer"]) as opened:
        assert opened.image.read(SIZE, 0, TIMEOUT) == expected


def test_the_end_of_the_log_is_used_again_when_nothing_points_there(config):
    for _ in range(4):
        with open_image(config, writable=True) as opened:
            opened.image.write(b"a" * (3 * MIB), 0, TIMEOUT)
            opened.image.discard(3 * MIB, 0, TIMEOUT)
    assert content(config) == bytes(SIZE)


def test_a_device_in_use_or_not_blank_is_not_taken(config, device, tmp_path):
    with pytest.raises(FailedError, match="something on it already; blkdiscard"):
        create_layer(device, tmp_path / "other", SIZE)
    assert not (tmp_path / "other").exists()
    with open_image(config, writable=True):
        with pytest.raises(FailedError, match="busy"):
            open_image(config, writable=True)
        with pytest.raises(BusyError, match="in use"):
            create_layer(device, tmp_path / "other", SIZE)


def test_a_device_cannot_be_a_sparse_upper(device, tmp_path):
    with pytest.raises(UsageError, match="no holes"):
        create_layer(device, tmp_path / "other", SIZE, sparse=True)
