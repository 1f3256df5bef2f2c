"""A disk that grows while it is used: by resize, and by whoever writes LIO's attribute."""

from __future__ import annotations

import errno
import json
import os
import time
from pathlib import Path

import pytest
from vm_daemon import run, wait_until
from vm_fio import Fio
from vm_images import MIB

from tcmu_overlaybd.daemon.messages import ResizeRequest
from tcmu_overlaybd.errors import ReadOnlyError, UsageError


def size_of(disk: str) -> int:
    return int(run("blockdev", "--getsize64", disk))


def resize(daemon, name: str, size: int) -> None:
    daemon.client.resize(name, ResizeRequest(size=size))


def attribute(daemon, name: str, attribute: str) -> Path:
    return Path(daemon.client.status(name).backstore, "attrib", attribute)


def test_mounted_file_system_grows_with_its_disk(daemon, tmp_path, mount_point):
    device = daemon.attach(new=True, size=32 * MIB, name="d", upper=tmp_path / "upper")
    run("mkfs.ext4", "-q", device.disk)
    run("mount", device.disk, mount_point)
    (mount_point / "before").write_bytes(os.urandom(10 * MIB))
    before = (mount_point / "before").read_bytes()
    grown = daemon.cli("resize", "d", "96M")
    assert (grown.returncode, grown.stdout, grown.stderr) == (0, "", "")
    assert size_of(device.disk) == daemon.client.status("d").size == 96 * MIB
    run("resize2fs", device.disk)
    (mount_point / "after").write_bytes(before * 5)
    run("umount", mount_point)
    info = daemon.cli("image", "info", "--json", tmp_path / "upper/config.v1.json")
    assert json.loads(info.stdout)["virtual_size"] == 96 * MIB
    daemon.kill()
    daemon.start()
    wait_until(lambda: daemon.client.status("d").state == "ready")
    run("mount", device.disk, mount_point)
    assert (mount_point / "after").read_bytes() == before * 5
    run("umount", mount_point)
    run("fsck.ext4", "-f", "-n", device.disk)


def test_disk_grows_under_a_load_that_verifies(daemon):
    device = daemon.attach(new=True, size=32 * MIB, name="d")
    load = ("--rw=randrw", "--iodepth=16", "--verify=crc32c", "--verify_state_save=0", "--size=32M")
    with Fio(f"--filename={device.disk}", *load) as job:
        for size in range(40, 80, 8):
            begun = time.monotonic()
            resize(daemon, "d", size * MIB)
            print(f"to {size} MiB in {(time.monotonic() - begun) * 1000:.0f} ms")
            assert size_of(device.disk) == size * MIB
        result = job.finish()
    assert result["error"] == 0
    longest = max(result[kind]["lat_ns"]["max"] for kind in ("read", "write"))
    print(f"longest pause under fio: {longest / 1e6:.1f} ms")


def test_sparse_disk_grows_and_keeps_its_data(daemon, tmp_path):
    device = daemon.attach(new=True, size=32 * MIB, name="d", upper=tmp_path / "upper", sparse=True)
    with Path(device.disk).open("r+b") as disk:
        disk.write(b"a" * 4096)
        resize(daemon, "d", 64 * MIB)
        disk.seek(64 * MIB - 4096)
        disk.write(b"z" * 4096)
    daemon.kill()
    daemon.start()
    wait_until(lambda: daemon.client.status("d").state == "ready")
    content = Path(device.disk).read_bytes()
    assert len(content) == 64 * MIB
    assert (content[:4096], content[-4096:]) == (b"a" * 4096, b"z" * 4096)


def test_what_cannot_grow_says_why(daemon, plain_layer):
    daemon.attach(plain_layer, name="reader")
    device = daemon.attach(new=True, size=32 * MIB, name="d")
    for size in (16 * MIB, 32 * MIB + 100):
        with pytest.raises(UsageError):
            resize(daemon, "d", size)
    with pytest.raises(ReadOnlyError):
        resize(daemon, "reader", 64 * MIB)
    shrunk = daemon.cli("resize", "d", "16M")
    assert shrunk.returncode == 2
    assert "does not shrink" in shrunk.stderr
    assert size_of(device.disk) == 32 * MIB
    resize(daemon, "d", 32 * MIB)  # nothing to do


def test_size_written_to_lio_grows_the_disk(daemon):
    device = daemon.attach(new=True, size=32 * MIB, name="d")
    attribute(daemon, "d", "dev_size").write_text(str(64 * MIB))
    wait_until(lambda: size_of(device.disk) == 64 * MIB)
    assert daemon.client.status("d").size == 64 * MIB
    with Path(device.disk).open("r+b") as disk:
        disk.seek(63 * MIB)
        disk.write(b"x" * 4096)


def test_what_lio_is_told_is_refused_unless_it_can_be(daemon):
    daemon.attach(new=True, size=32 * MIB, name="d")
    config = attribute(daemon, "d", "dev_config").read_text().strip()
    attribute(daemon, "d", "dev_config").write_text(config)
    attribute(daemon, "d", "dev_size").write_text(str(32 * MIB))
    attribute(daemon, "d", "emulate_write_cache").write_text("1")
    for name, text in (
        ("dev_size", str(16 * MIB)),
        ("dev_size", str(32 * MIB + 1)),
        ("dev_config", "overlaybd//tmp/other"),
    ):
        with pytest.raises(OSError) as refused:
            attribute(daemon, "d", name).write_text(text)
        assert refused.value.errno == errno.EINVAL
    assert attribute(daemon, "d", "dev_config").read_text().strip() == config
    for sentence in ("does not shrink", "whole sectors", "overlaybd//tmp/other"):
        assert sentence in daemon.log()
