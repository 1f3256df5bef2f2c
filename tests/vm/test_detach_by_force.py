"""``detach --force`` always ends, whatever the disk, its registry or the daemon are doing.

Each test prints how long it took; what it may take is the time that it was given, and
what the machine is late by.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from pathlib import Path

import pytest
from vm_daemon import leftovers, run, wait_until
from vm_images import MIB

from tcmu_overlaybd.daemon.state import State

SLOW = "TCMU_OVERLAYBD_TEST_SLOW"
NEVER = "*/dead.layer=65536:never"
ALLOWED_S = 10  # --timeout
LATE_S = 20  # a slow machine, and Python's start


def force(daemon, *, code: int = 0) -> str:
    """detach --force by the command line; what it said."""
    begun = time.monotonic()
    done = daemon.cli("detach", "d", "--force", "--timeout", ALLOWED_S)
    took = time.monotonic() - begun
    print(f"detach --force took {took:.2f} s")
    assert done.returncode == code, done.stderr
    assert took < ALLOWED_S + LATE_S
    return done.stderr


def is_gone(disk: str) -> bool:
    return not Path("/sys/block", Path(disk).name).exists() and leftovers() == []


def start_reader(disk: str) -> subprocess.Popen[bytes]:
    command = ["dd", f"if={disk}", "of=/dev/null", "bs=1M", "iflag=direct"]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)


def restart_without_data(daemon) -> None:
    """From now on no read of dead.layer ends, as if its registry were gone."""
    daemon.kill()
    daemon.environment[SLOW] = NEVER
    daemon.start()
    wait_until(lambda: daemon.client.status("d").state == "ready")


@pytest.fixture(params=["error", "freeze"])
def waiting_reader(request, make_daemon, dead_layer):
    """(daemon, disk, process that reads from it and gets nothing)"""
    daemon = make_daemon()
    disk = daemon.attach(dead_layer, name="d", on_timeout=request.param).disk
    restart_without_data(daemon)
    reader = start_reader(disk)
    wait_until(lambda: daemon.client.status("d").parked > 0)
    yield daemon, disk, reader
    reader.kill()


def test_with_reads_that_wait_for_ever(waiting_reader):
    daemon, disk, reader = waiting_reader
    force(daemon)
    assert reader.wait(LATE_S) != 0
    assert is_gone(disk)


def test_with_reads_that_wait_and_the_daemon_dead(waiting_reader):
    daemon, disk, reader = waiting_reader
    daemon.kill()
    force(daemon)
    assert reader.wait(LATE_S) != 0
    assert is_gone(disk)
    daemon.start()
    assert daemon.client.devices() == ()


@pytest.fixture
def silent_registry():
    """Takes connections, and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def need_registry(daemon, host: str) -> None:
    """Puts a lower of a registry into the configuration of the device that nobody serves now."""
    path = State(daemon.folder / "state").config_path("d")
    config = json.loads(path.read_text())
    config["repoBlobUrl"] = f"http://{host}/v2/t/disk/blobs"
    config["lowers"] = [{"digest": f"sha256:{'1' * 64}", "size": MIB}]
    path.write_text(json.dumps(config))


@pytest.mark.parametrize("policy", ["error", "freeze"])
def test_while_a_daemon_that_has_just_started_waits_for_a_registry(
    daemon, plain_layer, silent_registry, policy
):
    disk = daemon.attach(plain_layer, name="d", on_timeout=policy).disk
    daemon.kill()
    need_registry(daemon, silent_registry)
    daemon.start()
    reader = start_reader(disk)
    assert daemon.client.status("d").state == "opening"
    force(daemon)
    assert reader.wait(LATE_S) != 0
    assert is_gone(disk)


def test_while_it_is_being_attached_from_a_registry_that_says_nothing(daemon, silent_registry):
    attach = daemon.start_cli("attach", f"{silent_registry}/t/disk:1", "--name", "d", "--timeout", "100")
    wait_until(lambda: len(daemon.client.devices()) == 1)
    force(daemon)
    assert attach.wait(LATE_S) == 1
    assert "detached while it was being attached" in attach.stderr.read()
    assert daemon.client.devices() == ()


@pytest.mark.parametrize("is_dead", [False, True], ids=["served", "daemon dead"])
def test_of_a_mounted_disk_that_is_dirty_keeps_what_was_synced(daemon, mount_point, tmp_path, is_dead):
    upper = tmp_path / "upper"
    disk = daemon.attach(new=True, size=64 * MIB, name="d", upper=upper).disk
    run("mkfs.ext4", "-q", disk)
    run("mount", disk, mount_point)
    (mount_point / "kept").write_bytes(b"kept" * 1024)
    run("sync", mount_point / "kept")
    if is_dead:
        daemon.kill()
    (mount_point / "dirty").write_bytes(os.urandom(4 * MIB))
    force(daemon)
    assert is_gone(disk)
    run("umount", mount_point)
    if is_dead:
        daemon.start()
    again = daemon.attach(upper / "config.v1.json", name="again", writable=True).disk
    run("mount", again, mount_point)
    assert (mount_point / "kept").read_bytes() == b"kept" * 1024
    run("umount", mount_point)
    run("fsck.ext4", "-fn", again)


def test_of_a_disk_whose_upper_hangs_in_a_sync(make_daemon, tmp_path):
    """The disk goes; that its upper is not closed in time is said."""
    (tmp_path / "hanging").mkdir()
    marker = tmp_path / "hanging/data.stall"
    daemon = make_daemon(OBD_TEST_FILE_FAULT="hanging/data:stall:1:5:sticky")
    disk = daemon.attach(new=True, size=16 * MIB, name="d", upper=marker.parent).disk
    with Path(disk).open("r+b") as file:
        file.write(bytes(MIB))
    marker.touch()
    try:
        with Path(disk).open("r+b") as file:
            file.write(b"x" * MIB)
        assert "has not ended a sync" in force(daemon, code=4)
        assert is_gone(disk)
    finally:
        marker.unlink()


def test_without_a_daemon_of_what_does_not_exist_says_so(daemon):
    daemon.kill()
    assert "d: there is no such device" in force(daemon, code=3)


def test_a_daemon_that_hangs_is_named(daemon, plain_layer):
    """Its devices are its own until it is dead."""
    daemon.attach(plain_layer, name="d")
    (daemon.folder / "run/control.socket").unlink()
    assert f"another daemon runs (pid {daemon.process.pid})" in force(daemon, code=4)
    daemon.kill()
