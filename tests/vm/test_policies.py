"""While commands of a disk wait for data: what it and the others answer, and when.

Nothing that Linux tries again may be answered then, since that stalls the whole disk
(vm/README.md, section 7); so other reads of the disk, and commands that only describe it, go on.
"""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest
from vm_daemon import run, wait_until
from vm_images import MIB
from vm_sgio import scsi

IO_TIMEOUT_S = 3
LATE_S = 3  # a slow machine
NOT_RETRIED = (0x2, 0x08, 0x00)  # logical unit communication failure
READ_10 = bytes([0x28, 0, 0, 0, 0x10, 0, 0, 0, 8, 0])  # 4 KiB at 2 MiB
INQUIRY, TEST_UNIT_READY = bytes([0x12, 0, 0, 0, 96, 0]), bytes(6)
SYNCHRONIZE_CACHE = bytes([0x35, *[0] * 9])


@pytest.fixture
def waiting(make_daemon, dead_layer, plain_layer, tmp_path):
    """(daemon, disk whose layer gives nothing but whose first MiB was written, another disk)"""
    daemon = make_daemon(config={"device": {"ioTimeoutMs": IO_TIMEOUT_S * 1000}})
    disk = daemon.attach(dead_layer, name="d", upper=tmp_path / "upper").disk
    with Path(disk).open("r+b") as file:
        file.write(b"w" * MIB)
    other = daemon.attach(plain_layer, name="other").disk
    daemon.kill()
    daemon.environment["TCMU_OVERLAYBD_TEST_SLOW"] = "*/dead.layer=65536:never"
    daemon.start()
    wait_until(lambda: all(device.state == "ready" for device in daemon.client.devices()))
    return daemon, disk, other


def longest_s(action, seconds: float) -> float:
    """Of a call that is made again and again."""
    longest, end = 0.0, time.monotonic() + seconds
    while time.monotonic() < end:
        begun = time.monotonic()
        action()
        longest = max(longest, time.monotonic() - begun)
        time.sleep(0.02)
    return longest


def read_direct(disk: str) -> None:
    run("dd", f"if={disk}", "of=/dev/null", "bs=64k", "count=1", "iflag=direct")


def test_a_read_without_data_fails_inside_its_deadline_and_is_tried_once(waiting):
    daemon, disk, _ = waiting
    before = daemon.client.status("d").errors
    begun = time.monotonic()
    with Path(disk).open("rb", buffering=0) as file, pytest.raises(OSError, match="Input/output error"):
        os.pread(file.fileno(), 4096, 8 * MIB)
    took = time.monotonic() - begun
    tries = daemon.client.status("d").errors - before
    print(f"EIO after {took:.2f} s of {IO_TIMEOUT_S} s, {tries} commands")
    assert took < 2 * IO_TIMEOUT_S + LATE_S  # read-ahead first, then the page alone
    assert tries <= 2
    assert scsi(disk, READ_10, read=4096).sense == NOT_RETRIED
    assert Path("/sys/block", Path(disk).name, "device/state").read_text() == "running\n"


def test_while_reads_wait_other_commands_of_the_disk_and_other_disks_go_on(waiting):
    daemon, disk, other = waiting
    reader = subprocess.Popen(
        ["dd", f"if={disk}", "of=/dev/null", "bs=1M", "skip=8", "iflag=direct"], stderr=subprocess.DEVNULL
    )
    wait_until(lambda: daemon.client.status("d").parked > 0)

    def describe() -> None:
        for cdb, room in ((INQUIRY, 96), (TEST_UNIT_READY, 0), (SYNCHRONIZE_CACHE, 0)):
            assert scsi(disk, cdb, read=room).status == 0

    def read_both() -> None:
        read_direct(disk)
        read_direct(other)

    longest = max(longest_s(describe, 0.5), longest_s(read_both, 0.5))
    assert reader.poll() is None, "nothing waited any more"
    print(f"longest of the other commands: {longest:.2f} s")
    assert longest < IO_TIMEOUT_S
    assert reader.wait(2 * IO_TIMEOUT_S + LATE_S) != 0
