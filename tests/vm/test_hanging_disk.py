"""A disk under an upper that hangs in a sync: what waits for it has a deadline, the others go on."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from vm_daemon import wait_until
from vm_images import MIB

from tcmu_overlaybd.errors import TimeoutExpiredError

# What a detach may take beyond its time-out: the helper's graces, and a slow machine.
BEYOND_S = 15
STALL = {"OBD_TEST_FILE_FAULT": "hanging/data:stall:1:5:sticky"}


def write(disk: str, data: bytes) -> None:
    """Through the page cache, as far as the device."""
    fd = os.open(disk, os.O_RDWR | os.O_DSYNC)
    try:
        os.pwrite(fd, data, MIB)
    finally:
        os.close(fd)


@pytest.fixture
def marker(tmp_path):
    """While it exists, syncs of the upper in tmp_path/hanging hang."""
    (tmp_path / "hanging").mkdir()
    marker = tmp_path / "hanging/data.stall"
    yield marker
    marker.unlink(missing_ok=True)


@pytest.mark.timeout(240)
def test_hanging_sync_of_one_device_holds_up_neither_detach_nor_stop_nor_another_device(
    make_daemon, marker, tmp_path
):
    daemon = make_daemon(**STALL)
    hanging = daemon.attach(new=True, size=16 * MIB, name="hanging", upper=marker.parent)
    other = daemon.attach(new=True, size=16 * MIB, name="other", upper=tmp_path / "other")
    write(hanging.disk, b"kept" * 1024)
    marker.touch()
    with Path(hanging.disk).open("r+b", buffering=0) as disk:
        os.pwrite(disk.fileno(), b"late" * 1024, 2 * MIB)
    begun = time.monotonic()
    with pytest.raises(TimeoutExpiredError):
        daemon.detach("hanging", timeout=3)
    assert time.monotonic() - begun < 3 + BEYOND_S

    write(other.disk, b"other" * 100)
    assert Path(other.disk).read_bytes()[MIB : MIB + 500] == b"other" * 100
    daemon.detach("other", timeout=10)

    assert daemon.stop() < 30
    marker.unlink()
    daemon.start()
    wait_until(lambda: all(device.state == "ready" for device in daemon.client.devices()))
    for device in daemon.client.devices():
        daemon.detach(device.name, timeout=60)
    content = Path(daemon.attach(upper_config(marker), name="again").disk).read_bytes()
    assert content[MIB : MIB + 4096] == b"kept" * 1024
    assert content[2 * MIB : 2 * MIB + 4096] == b"late" * 1024


def upper_config(marker: Path) -> Path:
    return marker.parent / "config.v1.json"
