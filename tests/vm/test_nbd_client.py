"""The kernel's own NBD client against our NBD front."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from vm_daemon import run
from vm_images import MIB, tree_digests


@pytest.fixture
def nbd_disk():
    run("modprobe", "nbd")
    yield "/dev/nbd0"
    subprocess.run(["nbd-client", "-d", "/dev/nbd0"], capture_output=True, check=False)


def serve_nbd(tmp_path, *arguments):
    """Our server as a process; returns it when it has printed its URI."""
    command = [sys.executable, "-m", "tcmu_overlaybd", "nbd", "--socket", tmp_path / "s", *arguments]
    server = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, text=True)
    assert server.stdout.readline().startswith("nbd+unix:")
    return server


def connect(tmp_path, disk):
    run("nbd-client", "-unix", tmp_path / "s", disk, "-N", "")
    for _ in range(200):
        if int(Path("/sys/block", Path(disk).name, "size").read_text()) > 0:
            return
        time.sleep(0.02)
    raise AssertionError(f"{disk} has no size")


def test_nbd_client_mounts_writes_and_finds_it_again(tmp_path, ext4_layer, content, mount_point, nbd_disk):
    options = ["--writable", "--upper", tmp_path / "upper", ext4_layer]
    for attempt in (1, 2):
        server = serve_nbd(tmp_path, *options)
        connect(tmp_path, nbd_disk)
        run("mount", nbd_disk, mount_point)
        assert tree_digests(mount_point).items() >= tree_digests(content).items()
        if attempt == 1:
            (mount_point / "new").write_bytes(b"n" * MIB)
        assert (mount_point / "new").read_bytes() == b"n" * MIB
        run("umount", mount_point)
        run("nbd-client", "-d", nbd_disk)
        server.terminate()
        assert server.wait(60) == 0
