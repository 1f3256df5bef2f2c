"""``attach HOST/REPOSITORY:TAG``: what is made, what is kept over restarts, and what is left by failures."""

from __future__ import annotations

import json
import subprocess

import pytest
from vm_daemon import leftovers, run, wait_until

from tests.registry.docker_registry import DockerRegistry
from tests.registry.fixtures import ANNA, USERS
from tests.registry.images import Blob, push_image
from tests.remote.image_store import write_password

REPOSITORY = "t/disk"
# Commands are not to wait long for a registry that is not there, and the VM has a small disk.
CONFIG = {"device": {"ioTimeoutMs": 2000}, "cache": {"freeFloor": 0}}


@pytest.fixture
def registry(tmp_path, client_of, ext4_layer):
    with DockerRegistry(tmp_path / "registry", users=USERS) as running:
        push_image(client_of(running.host, ANNA), REPOSITORY, [Blob(ext4_layer.read_bytes())])
        yield running


@pytest.fixture
def daemon(make_daemon, registry, tmp_path):
    """Knows the password, and waits two seconds for data."""
    write_password(tmp_path / "docker", registry.host, ANNA)
    return make_daemon(config=CONFIG, DOCKER_CONFIG=str(tmp_path / "docker"))


@pytest.fixture
def reference(registry) -> str:
    return f"{registry.host}/{REPOSITORY}:latest"


def attach(daemon, *arguments: str) -> dict:
    done = daemon.cli("attach", *arguments, "--name", "d", "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def read_command(disk: str) -> list[str]:
    return ["dd", f"if={disk}", "of=/dev/null", "bs=1M", "iflag=direct"]


def test_a_writable_disk_over_a_reference(daemon, reference, mount_point, tmp_path):
    for text in ("", "written\n"):
        attach(
            daemon, reference, "--writable", "--upper", str(tmp_path / "upper"), "--mount", str(mount_point)
        )
        file = mount_point / "new"
        assert (file.read_text() if file.exists() else "") == text
        file.write_text("written\n")
        run("umount", mount_point)
        daemon.detach("d")


def test_what_cannot_be_attached_leaves_nothing(daemon, registry, tmp_path):
    done = daemon.cli("attach", f"{registry.host}/{REPOSITORY}:other", "--name", "d")
    assert done.returncode == 3
    assert "manifest other" in done.stderr
    write_password(tmp_path / "docker", registry.host, type(ANNA)("anna", "wrong"))
    daemon.stop()
    daemon.start()
    done = daemon.cli("attach", f"{registry.host}/{REPOSITORY}:latest", "--name", "d")
    assert done.returncode == 1
    assert "user name or password is wrong" in done.stderr
    assert not daemon.client.devices()
    assert leftovers() == []
    assert list((daemon.folder / "state/configs").iterdir()) == []


def test_after_a_restart_the_manifest_is_not_asked_for(daemon, registry, reference, mount_point, content):
    attach(daemon, reference)
    before = registry.log.read_bytes().count(b"/manifests/")
    daemon.kill()
    daemon.start()
    wait_until(lambda: daemon.client.status("d").state == "ready")
    assert registry.log.read_bytes().count(b"/manifests/") == before > 0
    run("mount", "-o", "ro", daemon.client.status("d").disk, mount_point)
    run("diff", "-r", "--exclude=lost+found", content, mount_point)
    run("umount", mount_point)
    daemon.detach("d")


def test_a_warm_disk_is_opened_again_without_any_registry(daemon, registry, reference):
    disk = attach(daemon, reference)["disk"]
    run(*read_command(disk))
    registry.stop()
    daemon.kill()
    daemon.start()
    wait_until(lambda: daemon.client.status("d").state == "ready")
    run(*read_command(disk))
    daemon.detach("d")


def test_a_disk_whose_registry_is_down_at_the_start_is_opened_when_it_is_back(daemon, registry, reference):
    disk = attach(daemon, reference)["disk"]
    daemon.kill()
    registry.stop()
    run("rm", "-r", daemon.folder / "state/cache")
    daemon.start()
    wait_until(lambda: daemon.client.status("d").reason != "", 60)
    assert daemon.client.status("d").state == "opening"
    registry.start()
    wait_until(lambda: daemon.client.status("d").state == "ready", 60)
    assert daemon.client.status("d").reason == ""
    run(*read_command(disk))
    daemon.detach("d")


def test_a_daemon_stops_while_it_waits_for_a_registry(daemon, registry, reference):
    attach(daemon, reference)
    daemon.kill()
    registry.stop()
    run("rm", "-r", daemon.folder / "state/cache")
    daemon.start()
    wait_until(lambda: daemon.client.status("d").state == "opening")
    assert daemon.stop() < 10
    assert daemon.process.returncode == 0
    assert "Traceback" not in daemon.log()
    registry.start()
    daemon.start()
    wait_until(lambda: daemon.client.status("d").state == "ready")
    daemon.detach("d")


def test_a_disk_that_waits_for_a_registry_can_be_detached(daemon, registry, reference):
    attach(daemon, reference)
    daemon.kill()
    registry.stop()
    run("rm", "-r", daemon.folder / "state/cache")
    daemon.start()
    wait_until(lambda: daemon.client.status("d").reason != "", 60)
    daemon.detach("d")
    assert leftovers() == []


def test_on_timeout_freeze_is_kept_over_a_restart_and_sees_only_a_pause(daemon, registry, reference):
    disk = attach(daemon, reference, "--on-timeout", "freeze")["disk"]
    daemon.kill()
    daemon.start()
    wait_until(lambda: daemon.client.status("d").state == "ready")
    assert daemon.client.status("d").on_timeout == "freeze"
    timer = run("cat", f"/sys/block/{disk.removeprefix('/dev/')}/device/timeout")
    assert int(timer) > 1_000_000, "the kernel would end what we let wait"
    registry.stop()
    reader = subprocess.Popen(read_command(disk), stderr=subprocess.DEVNULL)
    wait_until(lambda: daemon.client.status("d").oldest_ms > 5000, 60)
    assert reader.poll() is None
    registry.start()
    assert reader.wait(120) == 0
    daemon.detach("d")
