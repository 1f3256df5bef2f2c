"""The core and its devices as Python sees them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tcmu_overlaybd import errors
from tcmu_overlaybd.image.open import open_image
from tcmu_overlaybd.native import mem
from tcmu_overlaybd.native.core import CommandKind, Core, Device, OnTimeout
from tcmu_overlaybd.native.image import Image

SIZE = 1 << 20
LONG_MS = 60_000  # only what hangs is not done by then


@pytest.fixture
def core() -> Iterator[Core]:
    with Core.open() as core:
        yield core


@pytest.fixture
def device(core: Core, tmp_path: Path) -> Iterator[Device]:
    """Blank and writable."""
    with (
        open_image(None, writable=True, upper_dir=tmp_path / "upper", size=SIZE) as opened,
        Device.open(core, opened.image, name="blank") as device,
    ):
        yield device


def wait_until_parked(device: Device, number: int) -> None:
    for _ in range(10_000):
        if device.stats().parked == number:
            return
        threading.Event().wait(0.001)
    pytest.fail(f"not {number} but {device.stats()}")


def test_a_device_reads_what_was_written_and_zeros_elsewhere(device: Device) -> None:
    mem.write(device, b"\x07" * 1024, 4096)
    assert mem.read(device, 2048, 3584) == bytes(512) + b"\x07" * 1024 + bytes(512)
    mem.discard(device, 512, 4096)
    assert mem.read(device, 1024, 4096) == bytes(512) + b"\x07" * 512


def test_a_write_with_fua_leaves_nothing_unflushed(core: Core, tmp_path: Path) -> None:
    with (
        open_image(None, writable=True, upper_dir=tmp_path / "upper", size=SIZE) as opened,
        Device.open(core, opened.image, name="blank") as device,
    ):
        mem.write(device, bytes(512), 0)
        assert opened.image.upper_stats().unflushed_bytes == 512
        mem.write(device, bytes(512), 512, fua=True)
        assert opened.image.upper_stats().unflushed_bytes == 0


def test_verify_says_which_byte_differs(device: Device) -> None:
    mem.write(device, bytes(range(256)) * 4, 512)
    mem.verify(device, 1024, 512, bytes(range(256)) * 4)
    wrong = bytearray(range(256)) * 4
    wrong[700] ^= 1
    with pytest.raises(errors.FailedError, match=f"byte {512 + 700} of the disk differs"):
        mem.verify(device, 1024, 512, wrong)


@pytest.mark.parametrize(("length", "offset"), [(512, SIZE), (1024, SIZE - 512), (512, 2**64 - 512)])
def test_what_lies_outside_is_refused(device: Device, length: int, offset: int) -> None:
    with pytest.raises(errors.UsageError, match="outside the device"):
        mem.read(device, length, offset)


def test_half_a_sector_is_refused(device: Device) -> None:
    with pytest.raises(errors.UsageError, match="not a multiple of 512"):
        mem.write(device, bytes(100), 0)


def test_stats_count_what_is_done_and_what_failed(device: Device) -> None:
    mem.write(device, bytes(1024), 0)
    mem.read(device, 512, 0)
    mem.flush(device)
    with pytest.raises(errors.UsageError):
        mem.read(device, 512, SIZE)
    stats = device.stats()
    assert stats.commands == {"read": 2, "write": 1, "discard": 0, "flush": 1, "verify": 0}
    assert stats.bytes["write"] == 1024
    assert stats.errors == {"range": 1}


def test_a_read_only_image_cannot_be_written(core: Core, late_image: Image) -> None:
    with Device.open(core, late_image, name="late") as device:
        with pytest.raises(errors.ReadOnlyError):
            mem.write(device, bytes(512), 0)
        mem.flush(device)


def test_commands_that_wait_show_in_the_stats(core: Core, late_image: Image) -> None:
    with Device.open(core, late_image, name="late") as device:
        reads = [mem.Pending(device, CommandKind.READ, i * 8192, 4096, bytearray(4096)) for i in range(3)]
        wait_until_parked(device, 3)
        stats = device.stats()
        assert (stats.in_flight, stats.parked_bytes, stats.parks) == (3, 3 * 4096, 3)
        assert not reads[0].wait(1)
        device.fail_parked()
        for read in reads:
            with pytest.raises(errors.FailedError, match="given up"):
                read.wait(LONG_MS)


def test_a_read_whose_data_never_comes_ends_at_its_deadline(core: Core, late_image: Image) -> None:
    with (
        Device.open(core, late_image, name="late", io_timeout_ms=50) as device,
        pytest.raises(errors.TimeoutExpiredError, match="device late: read of 512 bytes at 1024"),
    ):
        mem.read(device, 512, 1024)


@pytest.mark.parametrize("policy", [OnTimeout.RETRY, OnTimeout.FREEZE])
def test_a_device_that_does_not_give_up_keeps_its_commands(
    core: Core, late_image: Image, policy: OnTimeout
) -> None:
    with Device.open(core, late_image, name="late", io_timeout_ms=10, on_timeout=policy) as device:
        read = mem.Pending(device, CommandKind.READ, 0, 512, bytearray(512))
        assert not read.wait(200)
        device.fail_parked()
        with pytest.raises(errors.FailedError):
            read.wait(LONG_MS)


def test_after_giving_up_every_command_is_refused(device: Device) -> None:
    device.fail_parked()
    with pytest.raises(errors.FailedError, match="being closed"):
        mem.read(device, 512, 0)
    with pytest.raises(errors.FailedError, match="being closed"):
        mem.flush(device)


def test_close_raises_while_commands_wait_and_leaves_the_device_open(core: Core, late_image: Image) -> None:
    device = Device.open(core, late_image, name="late")
    read = mem.Pending(device, CommandKind.READ, 0, 512, bytearray(512))
    wait_until_parked(device, 1)
    with pytest.raises(errors.TimeoutExpiredError, match="1 commands are still in flight, 1 of them parked"):
        device.close(20)
    assert device.stats().parked == 1
    device.fail_parked()
    with pytest.raises(errors.FailedError):
        read.wait(LONG_MS)
    device.close()
    device.close()
    with pytest.raises(ValueError, match="closed"):
        device.stats()


def test_what_was_written_is_flushed_by_close(core: Core, tmp_path: Path) -> None:
    with open_image(None, writable=True, upper_dir=tmp_path / "upper", size=SIZE) as opened:
        with Device.open(core, opened.image, name="blank") as device:
            mem.write(device, b"\x01" * 512, 0)
        assert opened.image.upper_stats().unflushed_bytes == 0


def test_read_loop_reads_every_offset(device: Device) -> None:
    assert mem.read_loop(device, [0, 4096, 8192, 4096], 4096, 2) > 0
    assert device.stats().commands["read"] == 4


def test_read_loop_raises_what_a_read_raises(device: Device) -> None:
    with pytest.raises(errors.UsageError, match="outside"):
        mem.read_loop(device, [0, SIZE], 512, 1)
