"""kill -9 of the daemon under load: acknowledged writes are there afterwards.

The file is preallocated, written with O_DIRECT and never fsynced, ext4 commits every ten
minutes, and the upper's flush by the clock is off: so what is verified has been
acknowledged and not flushed.  Without the journal the same test must fail.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from msgspec.structs import replace
from vm_daemon import CONFIGFS, run, wait_until
from vm_fio import Fio, fio
from vm_images import MIB
from vm_soak import usual_or_soak

from tcmu_overlaybd.daemon.state import State

KILLS = usual_or_soak(4, 60)  # test_restarts.py has more of them
FILE = usual_or_soak(24, 160) * MIB
BLOCKS = FILE // 4096
RATE = usual_or_soak(200, 250)  # writes a second, so that the writing outlasts the kills
WRITING_S = usual_or_soak(200, 1200)  # at most, after the last kill
UNFLUSHED = {"TCMU_OVERLAYBD_TEST_FLUSH_INTERVAL_MS": "0"}


@pytest.fixture
def verified_file(mount_point):
    """Options of a job that writes every block of a preallocated file once, in random order."""
    return [
        *(f"--filename={mount_point}/data", f"--size={FILE}", "--rw=randwrite", "--iodepth=16"),
        *("--fallocate=posix", "--fsync=0", "--end_fsync=0", "--verify=crc32c", "--verify_state_save=0"),
    ]


def make_file_system(daemon, mount_point):
    disk = daemon.attach(new=True, size=FILE + 56 * MIB, name="d").disk
    run("mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", disk)
    run("mount", "-o", "commit=600", disk, mount_point)
    run("fallocate", "-l", FILE, mount_point / "data")
    run("dd", "if=/dev/zero", f"of={mount_point}/data", "bs=1M", f"count={FILE // MIB}", "conv=notrunc,fsync")
    return disk


def survive_kills(daemon, mount_point, verified_file, kills):
    """Fails unless every write that was acknowledged is there; how many the journal gave back."""
    disk = make_file_system(daemon, mount_point)
    replayed = 0
    with Fio(*verified_file, "--do_verify=0", f"--rate_iops={RATE}", forever=False) as writer:
        for _ in range(kills):
            time.sleep(1)
            daemon.kill()
            assert writer.process.poll() is None, "the load ended before the last kill"
            daemon.start()
            wait_until_open(daemon)
            replayed += daemon.client.status("d").replayed
        report = writer.wait(WRITING_S)
    assert (report["error"], report["write"]["total_ios"]) == (0, BLOCKS)
    assert fio(*verified_file, "--verify_only", "--verify_fatal=1")["error"] == 0, "data was lost"
    run("umount", mount_point)
    run("fsck.ext4", "-fn", disk)
    return replayed


@pytest.mark.timeout(100 + 2 * WRITING_S)
def test_kills_under_fio_lose_no_acknowledged_write(make_daemon, mount_point, verified_file):
    replayed = survive_kills(make_daemon(**UNFLUSHED), mount_point, verified_file, KILLS)
    assert replayed > KILLS, "the writes were flushed, so nothing was tried"


@pytest.mark.timeout(100 + 2 * WRITING_S)
def test_without_the_journal_the_same_test_fails(make_daemon, mount_point, verified_file):
    daemon = make_daemon(**UNFLUSHED, TCMU_OVERLAYBD_TEST_NO_JOURNAL="1")
    with pytest.raises(AssertionError, match="data was lost"):
        survive_kills(daemon, mount_point, verified_file, 2)


def wait_until_open(daemon):
    wait_until(lambda: daemon.client.status("d").state != "opening")
    status = daemon.client.status("d")
    assert status.state == "ready", status.reason


def test_disk_that_is_idle_when_the_daemon_is_killed_is_there_again(daemon, plain_layer, raw_disk):
    device = daemon.attach(plain_layer, name="d")
    daemon.kill()
    daemon.start()
    assert Path(device.disk).read_bytes() == raw_disk.read_bytes()
    again = daemon.client.status("d")
    assert (again.disk, again.size, again.serial) == (device.disk, device.size, device.serial)
    daemon.detach("d")


def test_daemon_killed_in_the_middle_of_an_attach_leaves_a_device_that_the_next_one_removes(
    make_daemon, plain_layer, dead_layer
):
    """The helper reads the first block, which never comes, when the daemon dies."""
    daemon = make_daemon(TCMU_OVERLAYBD_TEST_SLOW="*/dead.layer=65536:never")
    attach = daemon.start_cli("attach", dead_layer, "--name", "half", "--timeout", "100")
    wait_until(lambda: any(device.parked for device in daemon.client.devices()))
    daemon.kill()
    assert attach.wait(60) == 4
    daemon.start()
    wait_until(lambda: daemon.client.devices() == ())


@pytest.mark.parametrize("phase", ["attaching", "detaching"])
def test_daemon_killed_while_there_is_a_backstore_only_leaves_nothing_either(daemon, plain_layer, phase):
    """A helper dies with its daemon, here before the kernel was told to make the device of it."""
    daemon.attach(plain_layer, name="d")
    daemon.kill()
    state = State(daemon.folder / "state")
    (record,) = state.load()
    state.save(replace(record, name="half", backstore="half", phase=phase, serial="half", disk=""))
    backstore = CONFIGFS / "core" / record.hba / "half"
    backstore.mkdir()
    daemon.start()
    wait_until(lambda: [device.name for device in daemon.client.devices()] == ["d"])
    assert not backstore.exists()
    assert [kept.name for kept in state.load()] == ["d"]


def test_image_that_cannot_be_opened_again_stays_broken_and_says_why(daemon, plain_layer, tmp_path):
    layer = tmp_path / "gone.layer"
    layer.write_bytes(plain_layer.read_bytes())
    device = daemon.attach(layer, name="d")
    daemon.kill()
    layer.rename(tmp_path / "away")
    daemon.start()
    wait_until(lambda: daemon.client.status("d").state == "broken")
    assert "gone.layer: no such" in daemon.client.status("d").reason
    with Path(device.disk).open("rb", buffering=0) as disk, pytest.raises(OSError, match="error"):
        disk.read(4096)
    daemon.detach("d")
