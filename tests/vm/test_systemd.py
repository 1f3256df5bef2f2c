"""Our units under a real systemd: started by the socket, watched, replaced, stopped."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from vm_daemon import leftovers, run, wait_until
from vm_systemd import UNIT, UNITS, Systemd, program

pytestmark = pytest.mark.skipif(
    os.environ.get("IN_UML") != "1", reason="would put units into the machine's own systemd"
)


@pytest.fixture(scope="module")
def systemd():
    with Systemd() as systemd:
        yield systemd


@pytest.fixture
def disk(systemd, tmp_path):
    """/dev/sdX of a daemon that nobody started but the socket."""
    systemd.inside("systemctl", "start", "tcmu-overlaybd.socket")
    disk = program("attach", "--new", "--size", "16M", "--name", "d", "--upper", f"{tmp_path}/upper")
    yield disk
    program("detach", "d")
    assert leftovers() == []


def is_readable(disk: str) -> bool:
    run("dd", f"if={disk}", "of=/dev/null", "bs=1M", "iflag=direct")
    return True


def state(systemd) -> tuple[str, str]:
    return systemd.property("ActiveState"), systemd.property("SubState")


def test_units_and_their_hardening_are_what_systemd_understands(systemd):
    said = systemd.inside("systemd-analyze", "verify", "--man=no", UNIT)
    assert "tcmu-overlaybd" not in said
    assert "Unknown" not in systemd.log()


def test_first_command_starts_the_daemon_and_its_socket_is_not_for_everybody(systemd, disk):
    assert state(systemd) == ("active", "running")
    assert Path("/run/tcmu-overlaybd/control.socket").stat().st_mode & 0o777 == 0o660
    assert is_readable(disk)
    pid = process_of_daemon()
    assert Path(f"/proc/{pid}/oom_score_adj").read_text().strip() == "-1000"
    assert Path("/var/lib/tcmu-overlaybd").stat().st_mode & 0o777 == 0o700


def test_reload_puts_another_process_in_its_place(systemd, disk):
    before = systemd.property("MainPID")
    systemd.inside("systemctl", "reload", UNIT)
    assert systemd.property("MainPID") not in (before, "0")
    assert state(systemd) == ("active", "running")
    assert systemd.property("NRestarts") == "0"
    assert is_readable(disk)


def test_daemon_that_is_killed_is_started_again_and_has_its_disks(systemd, disk):
    systemd.inside("systemctl", "kill", "-s", "KILL", UNIT)
    assert is_readable(disk)
    wait_until(lambda: state(systemd) == ("active", "running"))
    assert int(systemd.property("NRestarts")) >= 1


def test_daemon_that_hangs_is_ended_by_the_watchdog(systemd, disk):
    drop_in = UNITS / f"{UNIT}.d/short.conf"
    drop_in.parent.mkdir(exist_ok=True)
    drop_in.write_text("[Service]\nWatchdogSec=3\n")
    systemd.inside("systemctl", "daemon-reload")
    systemd.inside("systemctl", "restart", UNIT)
    pid = process_of_daemon()
    time.sleep(7)
    assert process_of_daemon() == pid, "it lives, and was ended all the same"
    os.kill(pid, signal.SIGSTOP)
    assert is_readable(disk)  # waits until another daemon serves it
    assert process_of_daemon() != pid
    assert "Watchdog timeout" in systemd.log()
    drop_in.unlink()
    systemd.inside("systemctl", "daemon-reload")
    systemd.inside("systemctl", "restart", UNIT)


def test_stop_leaves_the_disk_for_the_next_start(systemd, disk):
    systemd.inside("systemctl", "stop", UNIT)
    assert state(systemd) == ("inactive", "dead")
    assert systemd.property("Result") == "success"
    systemd.inside("systemctl", "start", UNIT)
    assert is_readable(disk)


def test_udev_gives_the_disk_its_name_and_keeps_blkid_from_it(systemd, disk):
    systemd.inside("systemctl", "start", "systemd-udevd.service")
    systemd.inside("udevadm", "trigger", "--action=add", "--settle", disk)
    link = Path("/dev/overlaybd/d")
    wait_until(link.is_symlink)
    assert link.resolve() == Path(disk)
    known = systemd.inside("udevadm", "info", "--query=property", disk)
    assert "UDISKS_IGNORE=1" in known
    assert "ID_FS_" not in known
    systemd.inside("systemctl", "stop", "systemd-udevd.service")


def process_of_daemon() -> int:
    """Its pid as we see it, from outside the namespace."""
    return int(run("pgrep", "-f", "tcmu_overlaybd serve"))
