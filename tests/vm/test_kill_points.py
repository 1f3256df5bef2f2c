"""The daemon, or its helper program, is killed at every step of attach, detach, commit and start.

The daemon after it cleans up.  Then nothing may be left in the kernel or in a folder,
``doctor`` must be content with what there is, and a device that was there before is
served as ever.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterable
from pathlib import Path

import pytest
from kill_points import ATTACH, COMMIT, DETACH, HELPER_ATTACH, HELPER_DETACH, START
from vm_daemon import VmDaemon, leftovers, wait_until
from vm_images import MIB
from vm_soak import usual_or_soak

from tcmu_overlaybd.daemon.messages import CommitRequest
from tcmu_overlaybd.errors import OverlayBDError

HELPER = [
    *(f"helper.attach.{step}" for step in HELPER_ATTACH),
    *(f"helper.detach.{step}" for step in HELPER_DETACH if step != "hba"),  # which kept stays in
]
HALVES = [HELPER[: len(HELPER) // 2], HELPER[len(HELPER) // 2 :]]
MADE_BY = ["attach.upper_folder_made", "attach.image_opened", "attach.kernel_done"]
# A helper that dies alone leaves its daemon to take back what it did.
ALONE = usual_or_soak(["helper.attach.enable", "helper.attach.link", "helper.detach.lun"], HELPER)


@pytest.fixture
def kept(daemon):
    """A device that outlives all of it; of each daemon's life it must notice a pause only."""
    device = daemon.attach(new=True, size=4 * MIB, name="kept")
    with Path(device.disk).open("r+b") as disk:
        disk.write(b"kept" * 1024)
    yield device
    daemon.environment["OBD_TEST_KILL_AT"] = ""
    if not daemon.is_running:
        daemon.start()
    wait_until(lambda: daemon.client.status("kept").state == "ready")
    assert Path(device.disk).read_bytes()[:4096] == b"kept" * 1024


def die_at(daemon: VmDaemon, point: str, folder: Path) -> None:
    """A daemon lives until it reaches point; afterwards there is none."""
    daemon.environment["OBD_TEST_KILL_AT"] = point
    if point in START:
        with pytest.raises(AssertionError, match="the daemon ended"):
            daemon.start()
    else:
        daemon.start()
        with pytest.raises(OverlayBDError):
            use(daemon, folder, commits=point in COMMIT)
    daemon.environment["OBD_TEST_KILL_AT"] = ""
    assert daemon.process.wait(30) == -signal.SIGKILL, daemon.log()


def use(daemon: VmDaemon, folder: Path, *, commits: bool) -> None:
    """Raises OverlayBDError when the daemon dies meanwhile."""
    made = daemon.attach(new=True, size=4 * MIB, name="d")
    with Path(made.disk).open("r+b") as disk:
        disk.write(b"x" * 4096)
        os.fsync(disk.fileno())
    if commits:
        daemon.client.commit("d", CommitRequest(output=str(folder / "top.layer")))
    daemon.detach("d")


def wait_until_clean(daemon: VmDaemon) -> None:
    """Of what the daemon before this one was doing nothing is left; an attach that it had ended,
    or a detach that it had not begun, is detached here."""
    wait_until(lambda: all(d.state in ("ready", "broken") for d in daemon.client.devices()))
    for device in daemon.client.devices():
        if device.name == "d" and device.state == "ready":
            daemon.detach("d")
    wait_until(lambda: [d.name for d in daemon.client.devices()] == ["kept"])
    wait_until(lambda: daemon.client.leftovers().left == ())
    assert len(leftovers()) == 2, leftovers()
    state = daemon.folder / "state"
    assert [path.name for path in sorted(state.glob("devices/*"))] == ["kept.json"]
    assert [path.name for path in sorted(state.glob("configs/*"))] == ["kept.json"]
    assert len(list((daemon.folder / "run/names").iterdir())) == 1


def uppers(daemon: VmDaemon) -> set[str]:
    return {path.name for path in (daemon.folder / "state/uppers").iterdir()}


def walk(daemon: VmDaemon, folder: Path, points: Iterable[str]) -> None:
    daemon.stop()
    for point in points:
        die_at(daemon, point, folder)
        daemon.start()
        wait_until_clean(daemon)
        daemon.kill()
        shutil.rmtree(daemon.folder / "state/uppers/d", ignore_errors=True)  # kept for its user
        (folder / "top.layer").unlink(missing_ok=True)


@pytest.mark.timeout(600)
def test_killed_at_any_step_of_its_own_the_daemon_leaves_nothing(daemon, kept, tmp_path):
    walk(daemon, tmp_path, [*ATTACH, *DETACH, *COMMIT, *START])
    assert not list(tmp_path.glob("*top.layer*"))
    daemon.start()
    said = daemon.cli("doctor", "--json").stdout
    assert '"nothing is left of a daemon that died"' in said, said


@pytest.mark.timeout(600)
@pytest.mark.parametrize("points", HALVES, ids=["first", "second"])
def test_killed_with_its_helper_at_any_step_the_daemon_leaves_nothing(daemon, kept, tmp_path, points):
    walk(daemon, tmp_path, [f"{point}:parent" for point in points[:: usual_or_soak(3, 1)]])


@pytest.mark.parametrize("point", usual_or_soak(MADE_BY, ATTACH[:-1]))
def test_upper_of_an_attach_that_came_to_nothing_is_gone(daemon, kept, tmp_path, point):
    daemon.stop()
    die_at(daemon, point, tmp_path)
    daemon.start()
    wait_until_clean(daemon)
    assert uppers(daemon) == {"kept"}


@pytest.mark.parametrize("point", ALONE)
def test_helper_that_is_killed_alone_is_made_up_for_by_its_daemon(daemon, kept, point):
    daemon.stop()
    daemon.environment["OBD_TEST_KILL_AT"] = point
    daemon.start()
    if point.startswith("helper.attach."):
        with pytest.raises(OverlayBDError, match="killed by signal 9"):
            daemon.attach(new=True, size=4 * MIB, name="d")
    else:
        daemon.attach(new=True, size=4 * MIB, name="d")
        with pytest.raises(OverlayBDError, match="killed by signal 9"):
            daemon.detach("d")  # it is tried twice, and both are killed
    daemon.stop()
    daemon.environment["OBD_TEST_KILL_AT"] = ""
    daemon.start()
    wait_until_clean(daemon)


def test_doctor_repairs_without_a_daemon_what_it_only_named_before(daemon, kept, tmp_path):
    daemon.stop()
    die_at(daemon, "attach.kernel_done", tmp_path)
    before = leftovers()
    looked = daemon.cli("doctor")
    assert "d: a device that was left attaching" in looked.stdout
    assert "doctor --repair" in looked.stdout
    assert leftovers() == before, "it was only to look"
    repaired = daemon.cli("doctor", "--repair")
    assert "removed: d: a device that was left attaching" in repaired.stdout, repaired.stdout
    assert len(leftovers()) == 2
    assert uppers(daemon) == {"kept"}
    daemon.start()
    wait_until_clean(daemon)


def test_doctor_tells_why_the_last_start_failed_and_who_has_the_lock(daemon, kept):
    holder = daemon.process
    daemon.stop()
    version = daemon.folder / "state/version"
    content = version.read_text()
    version.write_text(content.replace('"format": 1', '"format": 99'))
    assert daemon.cli("serve").returncode == 5
    said = daemon.cli("doctor").stdout
    assert "last start: failed at" in said
    assert said.count("written by a newer version (format 99") == 2
    version.write_text(content)
    daemon.start()
    assert "last start" not in daemon.cli("doctor").stdout
    os.kill(daemon.process.pid, signal.SIGSTOP)
    try:
        said = daemon.cli("doctor").stdout
        assert f"held by pid {daemon.process.pid}, which does not answer" in said, said
    finally:
        os.kill(daemon.process.pid, signal.SIGCONT)
    assert holder.poll() is not None
