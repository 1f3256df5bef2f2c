"""What is looked up in /sys and /proc, against small trees of files like theirs."""

import os
from pathlib import Path

import pytest

from tcmu_overlaybd.lio import discovery, mounts, own_disks
from tcmu_overlaybd.lio.config_string import ConfigString
from tcmu_overlaybd.lio.discovery import BackstoreId


def put(path: Path, content: str | bytes = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_backstores_of_other_subtypes_and_drivers_are_left_out(tmp_path):
    put(tmp_path / "class/uio/uio0/name", "tcm-user/2026/a/overlaybd//x/a.json;a\n")
    put(tmp_path / "class/uio/uio1/name", "tcm-user/0/b/qcow//x/b\n")
    put(tmp_path / "class/uio/uio2/name", "some-card\n")
    found = discovery.find_backstores(tmp_path)
    assert found == [(BackstoreId("user_2026", "a"), ConfigString(Path("/x/a.json"), "a"))]


def test_backstore_of_a_uio_device_that_is_gone_is_none(tmp_path):
    assert discovery.backstore_of_uio("uio9", tmp_path) is None


def test_disk_is_found_by_its_serial_number(tmp_path):
    put(tmp_path / "block/sda/device/vpd_pg80", b"\0\x80\0\x04abcd")
    put(tmp_path / "block/sdb/device/vpd_pg80", b"\0\x80\0\x04abce")
    put(tmp_path / "block/sdc/device/vpd_pg80", b"\0\x80\0\0")
    assert discovery.find_disk("abce", tmp_path) == "sdb"
    assert discovery.find_disk("abc", tmp_path) == ""
    assert discovery.find_disk("", tmp_path) == ""


@pytest.fixture
def machine(tmp_path):
    """A disk sda with one partition, and one process."""
    put(tmp_path / "sys/block/sda/dev", "8:0\n")
    put(tmp_path / "sys/block/sda/sda1/dev", "8:1\n")
    put(tmp_path / "sys/block/sda/sda1/partition", "1\n")
    put(tmp_path / "proc/swaps", "Filename Type Size Used Priority\n")
    put(tmp_path / "proc/1/mountinfo", "22 1 0:20 / /proc rw - proc proc rw\n")
    put(tmp_path / "proc/1/comm", "init\n")
    return tmp_path


def uses(machine: Path) -> list[str]:
    return mounts.uses_of_disk("sda", sys=machine / "sys", proc=machine / "proc")


def test_disk_that_nobody_uses_has_no_uses(machine):
    assert uses(machine) == []


def test_mount_in_another_namespace_is_seen(machine):
    put(machine / "proc/77/mountinfo", "30 1 8:1 / /mnt/a\\040b rw - ext4 /dev/sda1 rw\n")
    assert uses(machine) == ["sda1 is mounted at /mnt/a b in another mount namespace (that of pid 77)"]


def test_mount_of_our_own_is_named_once_and_plainly(machine):
    for pid in ("self", "77"):
        put(machine / "proc" / pid / "mountinfo", "30 1 8:0 / /mnt rw - ext4 /dev/sda rw\n")
        (machine / "proc" / pid / "ns").mkdir()
        (machine / "proc" / pid / "ns/mnt").symlink_to("mnt:[1]")
    assert uses(machine) == ["sda is mounted at /mnt"]


def test_mount_of_another_disk_with_a_similar_number_is_not_ours(machine):
    put(machine / "proc/77/mountinfo", "30 1 8:10 / /mnt rw - ext4 /dev/sda10 rw\n")
    assert uses(machine) == []


def test_holder_of_a_partition_is_a_use(machine):
    put(machine / "sys/block/sda/sda1/holders/dm-0")
    assert uses(machine) == ["sda1 is held by dm-0"]


def test_swap_is_a_use(machine):
    put(machine / "proc/swaps", "Filename Type Size Used Priority\n/dev/sda1 partition 1 0 -2\n")
    assert uses(machine) == ["sda1 is swap space"]


def test_process_that_vanishes_while_looked_at_is_no_error(machine):
    (machine / "proc/99").mkdir()
    assert uses(machine) == []


@pytest.fixture
def stacked(tmp_path):
    """dm-0 on the partition sdb1 of sdb; tmp_path's own file system is said to be on dm-0."""
    sdb = tmp_path / "devices/sdb"
    put(sdb / "device/vendor", "OVERLYBD\n")
    put(sdb / "sdb1/partition", "1\n")
    (tmp_path / "devices/dm-0/slaves").mkdir(parents=True)
    (tmp_path / "devices/dm-0/slaves/sdb1").symlink_to(sdb / "sdb1")
    number = tmp_path.stat().st_dev
    (tmp_path / "dev/block").mkdir(parents=True)
    link = tmp_path / f"dev/block/{os.major(number)}:{os.minor(number)}"
    link.symlink_to(tmp_path / "devices/dm-0")
    return tmp_path


def test_own_disk_is_seen_through_partition_and_device_mapper(stacked):
    assert own_disks.own_disk_below(stacked / "not/there/yet", stacked) == "sdb"


def test_disk_of_another_vendor_is_not_ours(stacked):
    put(stacked / "devices/sdb/device/vendor", "ATA\n")
    assert own_disks.own_disk_below(stacked, stacked) == ""


def test_file_system_without_a_block_device_is_not_ours(tmp_path):
    assert own_disks.own_disk_below(tmp_path, tmp_path) == ""


def test_own_disk_is_seen_through_a_loop_device(stacked):
    """Its file lies on the file system that the fixture says is on dm-0."""
    loop = stacked / "devices/loop0"
    put(loop / "loop/backing_file", f"{stacked}/file\n")
    (stacked / "dev/block/7:0").symlink_to(loop)
    assert [disk.name for disk in own_disks.disks_below(loop, stacked)] == ["sdb"]


def test_device_of_a_file_system_with_numbers_of_its_own_is_found_by_its_mount(tmp_path):
    mounts = tmp_path / "mountinfo"
    put(mounts, "1 0 8:1 / / rw - ext4 /dev/root rw\n2 1 0:40 /a /data rw shared:1 - btrfs /dev/sdb rw\n")
    assert own_disks.mount_source(Path("/data/uppers/x"), mounts) == Path("/dev/sdb")
    assert own_disks.mount_source(Path("/home"), mounts) == Path("/dev/root")
