"""One disk: made, read, refused, removed; and every failure that leaves nothing behind."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path

import pytest
from vm_daemon import CONFIGFS, VmDaemon, leftovers, run, wait_until
from vm_fio import Fio
from vm_images import MIB, tree_digests


def test_attached_disk_reads_as_the_image(daemon, plain_layer, raw_disk):
    device = daemon.attach(plain_layer)
    assert Path(device.disk).read_bytes() == raw_disk.read_bytes()
    daemon.detach(device.name)
    assert not Path(device.disk).exists()
    assert leftovers() == []


def test_read_only_disk_is_write_protected(daemon, plain_layer):
    device = daemon.attach(plain_layer)
    assert run("blockdev", "--getro", device.disk).strip() == "1"
    with pytest.raises(OSError, match="Read-only"):
        os.open(device.disk, os.O_WRONLY)


def test_disk_takes_transfers_of_1_mib_and_has_its_tunables(daemon):
    device = daemon.attach(new=True, size=64 * MIB)
    disk = Path("/sys/block", Path(device.disk).name)
    wanted = {"queue/max_sectors_kb": "1024", "queue/read_ahead_kb": "1024", "device/timeout": "60"}
    assert {path: (disk / path).read_text().strip() for path in wanted} == wanted
    assert (disk / "device/queue_depth").read_text().strip() == "128"
    assert (CONFIGFS / f"core/user_2026/{device.name}/attrib/cmd_time_out").read_text().strip() == "0"


def test_written_disk_keeps_its_data_over_detach_and_attach(daemon, tmp_path, plain_layer, raw_disk):
    upper = tmp_path / "upper"
    device = daemon.attach(plain_layer, upper=upper)
    with Path(device.disk).open("r+b") as disk:
        disk.seek(5 * MIB + 512)
        disk.write(b"x" * 1536)
    daemon.detach(device.name)
    wanted = bytearray(raw_disk.read_bytes())
    wanted[5 * MIB + 512 : 5 * MIB + 2048] = b"x" * 1536
    again = daemon.attach(plain_layer, upper=upper)
    assert Path(again.disk).read_bytes() == bytes(wanted)


def test_sparse_disk_keeps_discards_and_small_writes_over_kill_detach_and_attach(
    daemon, tmp_path, plain_layer, raw_disk
):
    """What a file's holes cannot tell: the layer below must not show through, nor be hidden."""
    upper = tmp_path / "upper"
    made = daemon.cli("attach", plain_layer, "--name", "d", "--upper", upper, "--sparse")
    assert made.returncode == 0, made.stderr
    disk = made.stdout.strip()
    with Path(disk).open("r+b") as file:
        file.seek(5 * MIB)
        file.write(b"x" * 4096)
    run("blkdiscard", "--offset", str(MIB), "--length", str(MIB), disk)
    run("blkdiscard", "--offset", str(5 * MIB), "--length", "512", disk)
    wanted = bytearray(raw_disk.read_bytes())
    wanted[5 * MIB : 5 * MIB + 4096] = bytes(512) + b"x" * 3584
    wanted[MIB : 2 * MIB] = bytes(MIB)
    daemon.kill()
    daemon.start()
    wait_until(lambda: daemon.client.status("d").state == "ready")
    assert Path(disk).read_bytes() == bytes(wanted)
    daemon.detach("d")
    again = daemon.attach(plain_layer, upper=upper)
    assert Path(again.disk).read_bytes() == bytes(wanted)
    assert (upper / "index").stat().st_size == 0


def test_cli_session_from_attach_to_detach(daemon, plain_layer):
    made = daemon.cli("attach", plain_layer, "--name", "web", "--writable")
    assert (made.returncode, made.stderr.count("\n")) == (0, 1), made.stderr
    disk = made.stdout.strip()
    assert disk.startswith("/dev/sd")
    listed = daemon.cli("list").stdout.splitlines()
    assert listed[0].split()[:2] == ["NAME", "STATE"]
    assert listed[1].split()[:3] == ["web", "ready", disk]
    status = json.loads(daemon.cli("status", "web", "--json").stdout)
    assert (status["name"], status["disk"], status["size"]) == ("web", disk, 16 * MIB)
    gone = daemon.cli("detach", disk)
    assert (gone.returncode, gone.stdout) == (0, "")
    assert "uppers/web" in gone.stderr
    assert json.loads(daemon.cli("list", "--json").stdout) == []


def test_detach_as_json_says_how_the_device_was(daemon, plain_layer):
    made = json.loads(daemon.cli("attach", plain_layer, "--name", "web", "--writable", "--json").stdout)
    gone = daemon.cli("detach", "web", "--json")
    assert gone.returncode == 0, gone.stderr
    was = json.loads(gone.stdout)
    assert was.keys() == made.keys()
    for key in ("name", "disk", "size", "serial", "upper", "source", "writable", "state"):
        assert was[key] == made[key]
    assert daemon.client.devices() == ()


def test_image_commit_of_a_running_device_holds_what_was_written(daemon, plain_layer, raw_disk, tmp_path):
    device = daemon.attach(plain_layer, name="web", upper=tmp_path / "upper")
    with Path(device.disk).open("r+b") as disk:
        disk.seek(5 * MIB)
        disk.write(b"first" * 1000)
        os.fsync(disk.fileno())
        done = daemon.cli("image", "commit", "web", "-o", tmp_path / "top.layer", "--zfile", "lz4")
        assert done.returncode == 0, done.stderr
        digest, size = done.stdout.split()
        data = (tmp_path / "top.layer").read_bytes()
        assert (digest, int(size)) == (f"sha256:{hashlib.sha256(data).hexdigest()}", len(data))
        disk.seek(9 * MIB)
        disk.write(b"later")
    daemon.detach("web")
    both = daemon.attach(plain_layer, tmp_path / "top.layer", name="both")
    wanted = bytearray(raw_disk.read_bytes())
    wanted[5 * MIB : 5 * MIB + 5000] = b"first" * 1000
    assert Path(both.disk).read_bytes() == bytes(wanted)


def test_mount_option_mounts_and_a_failing_mount_leaves_no_disk(
    daemon, ext4_layer, plain_layer, mount_point, content
):
    assert daemon.cli("attach", ext4_layer, "--name", "fs", "--mount", mount_point).returncode == 0
    assert tree_digests(mount_point).items() >= tree_digests(content).items()
    run("umount", mount_point)
    daemon.detach("fs")
    failed = daemon.cli("attach", plain_layer, "--name", "no-fs", "--mount", mount_point)
    assert failed.returncode == 1
    assert "not mounted" in failed.stderr
    assert daemon.client.devices() == ()
    assert leftovers() == []


def test_fabric_none_makes_a_backstore_and_no_disk(daemon, plain_layer):
    device = daemon.attach(plain_layer, fabric="none")
    assert device.disk == ""
    assert Path(device.backstore, "info").exists()


# -- a disk in use


def refused(daemon: VmDaemon, name: str, part: str) -> None:
    result = daemon.cli("detach", name)
    assert result.returncode == 1
    assert part in result.stderr
    assert daemon.client.status(name).state == "ready"


def test_detach_refuses_a_mounted_disk(daemon, ext4_layer, mount_point):
    device = daemon.attach(ext4_layer, name="d")
    run("mount", "-o", "ro", device.disk, mount_point)
    refused(daemon, "d", f"is mounted at {mount_point}")
    run("umount", mount_point)
    daemon.detach("d")


def test_detach_refuses_a_disk_mounted_in_another_namespace(daemon, ext4_layer, mount_point):
    device = daemon.attach(ext4_layer, name="d")
    script = f"mount -o ro {device.disk} {mount_point} && echo mounted && exec sleep 1000"
    command = ["unshare", "-m", "--propagation", "private", "sh", "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout.readline() == "mounted\n"
            assert not mount_point.is_mount()
            refused(daemon, "d", "in another mount namespace")
        finally:
            other.kill()
    daemon.detach("d")


def test_detach_refuses_an_open_disk_and_names_the_process(daemon, plain_layer):
    device = daemon.attach(plain_layer, name="d")
    with Path(device.disk).open("rb"):
        refused(daemon, "d", f"is open in pid {os.getpid()}")
    daemon.detach("d")


def partition_table(first: int, sectors: int) -> bytes:
    """A master boot record with one Linux partition."""
    entry = bytes([0, 0, 0, 0, 0x83, 0, 0, 0]) + first.to_bytes(4, "little") + sectors.to_bytes(4, "little")
    return bytes(446) + entry + bytes(48) + b"\x55\xaa"


def test_detach_refuses_a_held_partition(daemon):
    device = daemon.attach(new=True, size=64 * MIB, name="d")
    with Path(device.disk).open("r+b") as disk:
        disk.write(partition_table(first=2048, sectors=100_000))
    run("blockdev", "--rereadpt", device.disk)
    partition = f"{device.disk}1"
    run("mkswap", partition)
    run("swapon", partition)
    refused(daemon, "d", "is swap space")
    run("swapoff", partition)
    daemon.detach("d")


def test_detach_by_force_takes_a_mounted_disk_away(daemon, ext4_layer, mount_point):
    device = daemon.attach(ext4_layer, name="d")
    run("mount", "-o", "ro", device.disk, mount_point)
    assert daemon.cli("detach", "d", "--force").returncode == 0
    assert not Path(device.disk).exists()
    run("umount", mount_point)


# -- what fails leaves nothing


@pytest.fixture
def nothing_left(daemon):
    yield daemon
    assert daemon.client.devices() == ()
    assert leftovers() == []
    assert list((daemon.folder / "state/devices").iterdir()) == []
    assert list((daemon.folder / "state/configs").iterdir()) == []
    assert list((daemon.folder / "state/uppers").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["/no/such/layer"], 3, "/no/such/layer: no such file"),
        ([], 2, "no image is named"),
        (["--new"], 2, "needs a size"),
        (["--new", "--size", "1000"], 2, "a disk of 1000 bytes is not possible"),
        (["--new", "--size", "1G", "/etc/passwd"], 2, "exclude each other"),
        (["--new", "--size", "1G", "--name", "a/b"], 2, "device name 'a/b'"),
        (["registry.example/a/b:1"], 4, "cannot be looked up"),
        (["/etc/passwd"], 5, "neither LSMT"),
    ],
)
def test_attach_that_fails_says_why_and_leaves_nothing(nothing_left, arguments, code, sentence):
    result = nothing_left.cli("attach", *arguments)
    assert (result.returncode, result.stdout) == (code, "")
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr


def test_truncated_layer_is_corrupt(nothing_left, plain_layer, tmp_path):
    cut = tmp_path / "cut.layer"
    cut.write_bytes(plain_layer.read_bytes()[:-4096])
    result = nothing_left.cli("attach", cut, "--writable")
    assert result.returncode == 5
    assert "cut short" in result.stderr


def test_name_in_use_is_refused_and_the_first_goes_on(daemon, plain_layer):
    daemon.attach(plain_layer, name="d")
    result = daemon.cli("attach", plain_layer, "--name", "d", "--writable")
    assert result.returncode == 1
    assert "attached already" in result.stderr
    assert daemon.client.status("d").state == "ready"
    assert list((daemon.folder / "state/uppers").iterdir()) == []


def test_upper_that_another_process_holds_is_named(daemon, tmp_path):
    upper = tmp_path / "upper"
    daemon.attach(new=True, size=MIB, upper=upper, name="first")
    result = daemon.cli("attach", upper / "config.v1.json", "--name", "second", "--writable")
    assert result.returncode == 1
    assert "first" in result.stderr
    assert [device.name for device in daemon.client.devices()] == ["first"]


@pytest.mark.parametrize("occupied", ["core/user_2026/d", "loopback/{port}"])
def test_helper_that_fails_half_way_takes_everything_back(nothing_left, plain_layer, occupied):
    """Somebody has made the very folder that attach is about to make."""
    port = nothing_left.attach(plain_layer, name="d")
    name = next(CONFIGFS.glob("loopback/naa.*")).name
    nothing_left.detach(port.name)
    folder = CONFIGFS / occupied.format(port=name)
    folder.mkdir(parents=True)
    try:
        result = nothing_left.cli("attach", plain_layer, "--name", "d", "--writable")
        assert result.returncode == 1
        assert leftovers() == [str(folder)]
    finally:
        folder.rmdir()
        if folder.parent.name.startswith("user_"):
            folder.parent.rmdir()


def test_upper_on_a_disk_of_ours_is_refused(daemon, mount_point, plain_layer):
    disk = daemon.attach(new=True, size=64 * MIB, name="below").disk
    run("mkfs.ext4", "-q", disk)
    run("mount", disk, mount_point)
    result = daemon.cli("attach", plain_layer, "--upper", mount_point / "upper", "--name", "above")
    assert result.returncode == 1
    assert "an upper cannot lie on sda, a disk of ours" in result.stderr
    assert not (mount_point / "upper").exists()
    assert [device.name for device in daemon.client.devices()] == ["below"]


# -- no daemon, two daemons


def test_without_a_daemon_attach_says_how_to_start_one(tmp_path, plain_layer):
    result = VmDaemon(tmp_path).cli("attach", plain_layer)
    assert result.returncode == 4
    assert "start it with: tcmu-overlaybd serve" in result.stderr


def test_second_daemon_is_refused_and_disturbs_nothing(daemon, plain_layer):
    device = daemon.attach(plain_layer)
    with Fio(f"--filename={device.disk}", "--rw=randread", "--iodepth=8") as readers:
        for _ in range(3):
            second = daemon.cli("serve")
            assert second.returncode == 1
            assert f"pid {daemon.process.pid}" in second.stderr
            assert daemon.cli("doctor").returncode == 0
        assert readers.finish()["error"] == 0
