"""A disk by iSCSI: exported by attach, used by open-iscsi, kept over a restart, and taken away."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path

import pytest
from vm_daemon import CONFIGFS, leftovers, run, wait_until
from vm_fio import Fio
from vm_images import tree_digests
from vm_iscsi import NAME, Initiator, LoginError

PASSWORD = "correct-horse-battery"


@pytest.fixture
def initiator(daemon):
    with Initiator() as initiator:
        yield initiator


@pytest.fixture
def chap_file(tmp_path):
    path = tmp_path / "chap"
    path.write_text(f"me:{PASSWORD}\n")
    return path


def export(daemon, *arguments: object) -> str:
    made = daemon.cli("attach", "--fabric", "iscsi", *arguments)
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


def targets() -> list[str]:
    return [path.name for path in CONFIGFS.glob("iscsi/iqn.*")]


def test_disk_by_iscsi_holds_a_file_system_and_detach_leaves_nothing(daemon, initiator, mount_point, content):
    iqn = export(daemon, "--new", "--size", "64M", "--name", "Web_1")
    status = daemon.client.status("Web_1")
    assert iqn == status.target
    assert iqn.startswith("iqn.2026-11.org.tcmu-overlaybd:web-1.")
    assert (status.disk, status.portal) == ("", "127.0.0.1:3260")
    secret = Path(status.chap_file)
    assert secret.stat().st_mode & 0o777 == 0o600
    assert iqn in initiator.discover("127.0.0.1")
    disk = initiator.log_in(iqn, secret.read_text().strip())
    run("mkfs.ext4", "-q", disk)
    run("mount", disk, mount_point)
    run("cp", "-r", f"{content}/.", mount_point)
    run("umount", mount_point)
    run("mount", disk, mount_point)
    assert tree_digests(mount_point).items() >= tree_digests(content).items()
    run("umount", mount_point)

    refused = daemon.cli("detach", "Web_1")
    assert refused.returncode == 1
    assert f"{NAME} is logged in to {iqn}" in refused.stderr
    assert daemon.client.status("Web_1").state == "ready"
    initiator.log_out(iqn)
    daemon.detach("Web_1")
    assert targets() == []
    assert leftovers() == []
    assert not secret.exists()


def test_wrong_password_is_refused_and_neither_log_nor_state_shows_the_right_one(
    daemon, initiator, chap_file
):
    iqn = export(daemon, "--new", "--size", "16M", "--name", "d", "--chap-file", chap_file)
    for wrong in (f"me:{PASSWORD}x", f"you:{PASSWORD}", ""):
        with pytest.raises(LoginError, match="authorization failure"):
            initiator.log_in(iqn, wrong)
    assert initiator.log_in(iqn, f"me:{PASSWORD}")
    kept = [daemon.log_path, *(path for path in (daemon.folder / "state").rglob("*") if path.is_file())]
    assert [path for path in kept if PASSWORD.encode() in path.read_bytes()] == []
    assert PASSWORD not in daemon.cli("status", "d", "--json").stdout


def test_only_the_named_initiator_may_log_in(daemon, initiator, chap_file):
    arguments = ["--new", "--size", "16M", "--chap-file", chap_file, "--initiator"]
    mine, other = export(daemon, *arguments, NAME), export(daemon, *arguments, "iqn.1993-08.org.debian:01:ab")
    with pytest.raises(LoginError, match="authorization failure"):
        initiator.log_in(other, f"me:{PASSWORD}")
    assert initiator.log_in(mine, f"me:{PASSWORD}")


def test_restart_of_the_daemon_keeps_the_session_and_is_a_pause(daemon, initiator):
    iqn = export(daemon, "--new", "--size", "64M", "--name", "d", "--no-chap")
    disk = initiator.log_in(iqn)
    with Fio(
        f"--filename={disk}",
        "--rw=randwrite",
        "--iodepth=8",
        "--verify=crc32c",
        "--verify_state_save=0",
        "--size=32M",
    ) as job:
        time.sleep(0.5)
        daemon.kill()
        daemon.start()
        time.sleep(0.5)
        daemon.stop()
        daemon.start()
        result = job.finish()
    assert result["error"] == 0
    print(f"longest pause over iSCSI: {result['write']['lat_ns']['max'] / 1e6:.0f} ms")
    assert daemon.client.status("d").target == iqn
    initiator.log_out(iqn)
    daemon.detach("d")
    assert targets() == []


def test_disk_by_iscsi_grows_when_the_initiator_asks_again(daemon, initiator):
    iqn = export(daemon, "--new", "--size", "16M", "--name", "d", "--no-chap")
    disk = initiator.log_in(iqn)
    assert daemon.cli("resize", "d", "32M").returncode == 0
    run("iscsiadm", "-m", "session", "-R")
    assert run("blockdev", "--getsize64", disk).strip() == str(32 << 20)


def test_detach_by_force_ends_the_session(daemon, initiator):
    iqn = export(daemon, "--new", "--size", "16M", "--name", "d", "--no-chap")
    assert initiator.log_in(iqn)
    assert daemon.cli("detach", "d", "--force").returncode == 0
    assert targets() == []
    assert leftovers() == []


def left_of_exports(daemon) -> list[object]:
    return [*daemon.client.devices(), *targets(), *leftovers(), *(daemon.folder / "state/chap").iterdir()]


def test_daemon_killed_while_it_exports_leaves_a_whole_target_or_none(daemon):
    command = daemon.start_cli("attach", "--new", "--size", "16M", "--name", "d", "--fabric", "iscsi")
    wait_until(lambda: targets() != [])
    daemon.kill()
    command.communicate(timeout=60)
    daemon.start()
    record = daemon.folder / "state/devices/d.json"
    if record.exists() and json.loads(record.read_text())["phase"] == "attached":  # it was done by then
        assert [daemon.client.status("d").target] == targets()
        daemon.detach("d")
    wait_until(lambda: left_of_exports(daemon) == [])


def test_daemon_killed_while_it_ends_an_export_ends_it_at_its_next_start(daemon):
    export(daemon, "--new", "--size", "16M", "--name", "d")
    record = daemon.folder / "state/devices/d.json"
    command = daemon.start_cli("detach", "d")
    wait_until(lambda: not record.exists() or json.loads(record.read_text())["phase"] == "detaching")
    daemon.kill()
    command.communicate(timeout=60)
    daemon.start()
    wait_until(lambda: left_of_exports(daemon) == [])


def test_target_that_cannot_be_made_leaves_nothing(daemon):
    """Somebody else listens at its portal."""
    run("ip", "link", "set", "lo", "up")
    with socket.create_server(("127.0.0.1", 3333)):
        made = daemon.cli(
            "attach", "--new", "--size", "16M", "--fabric", "iscsi", "--portal", "127.0.0.1:3333"
        )
    assert made.returncode == 1
    assert "127.0.0.1:3333" in made.stderr
    assert daemon.client.devices() == ()
    assert targets() == []
    assert list((daemon.folder / "state/chap").iterdir()) == []
