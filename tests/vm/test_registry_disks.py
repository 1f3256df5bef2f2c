"""Disks whose registry goes away under load and comes back, as the kernel and its users see it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from vm_daemon import run
from vm_fio import Fio
from vm_images import tree_digests
from vm_registry import push_file_system, seconds_of, write_password

from tests.registry.docker_registry import DockerRegistry
from tests.registry.fixtures import USERS

IO_TIMEOUT_S = 2
AWAY_S = 5  # longer than two of those
# So slow that when the registry goes most of the file is still to be fetched.
LOAD = ("--readonly", "--rw=randread", "--bs=64k", "--iodepth=16", "--rate=2m", "--time_based")


@pytest.fixture
def registry(tmp_path):
    with DockerRegistry(tmp_path / "registry", users=USERS) as running:
        yield running


@pytest.fixture
def image(registry, tmp_path):
    return push_file_system(registry, tmp_path)


@pytest.fixture
def daemon_that(make_daemon, registry, tmp_path):
    """Makes a daemon whose devices do so on a time-out."""

    def make(on_timeout: str):
        config = {
            "device": {"ioTimeoutMs": IO_TIMEOUT_S * 1000, "onTimeout": on_timeout},
            "cache": {"freeFloor": 0},
        }
        return make_daemon(config=config, **write_password(tmp_path, registry.host))

    return make


def mounted(daemon, image, mount_point: Path) -> str:
    disk = daemon.attach(image.reference, name="d").disk
    run("mount", "-o", "ro", disk, mount_point)
    return disk


def slowest_s(report) -> float:
    return report["read"]["clat_ns"]["max"] / 1e9


def test_a_disk_of_a_registry_has_the_files_of_its_image(daemon_that, image, mount_point):
    daemon = daemon_that("error")
    mounted(daemon, image, mount_point)
    assert tree_digests(mount_point) == tree_digests(image.content)
    run("umount", mount_point)
    daemon.detach("d")


@pytest.mark.timeout(240)
def test_error_ends_commands_in_time_and_lets_go_of_the_disk(daemon_that, image, mount_point):
    """While the registry is away.  Another disk of the image reads again when it is back."""
    daemon = daemon_that("error")
    mounted(daemon, image, mount_point)
    other = Path(daemon.attach(image.reference, name="other").disk)
    load = [f"--filename={mount_point}/big", *LOAD, "--continue_on_error=io", f"--runtime={2 + AWAY_S}"]
    with Fio(*load, forever=False) as job:
        time.sleep(2)
        image.registry.stop()
        report = job.wait(120)
    assert report["total_err"] > 0, "nothing was missing while the registry was away"
    assert slowest_s(report) < 2 * IO_TIMEOUT_S
    with pytest.raises(OSError, match="Input/output error"):
        other.read_bytes()
    assert seconds_of(lambda: run("umount", mount_point)) < 2 * IO_TIMEOUT_S
    assert seconds_of(lambda: daemon.detach("d")) < 2 * IO_TIMEOUT_S
    image.registry.start()
    assert other.read_bytes() == image.raw.read_bytes()


@pytest.mark.timeout(240)
@pytest.mark.parametrize("policy", ["freeze", "retry"])
def test_freeze_and_retry_are_only_a_pause(daemon_that, image, mount_point, policy):
    daemon = daemon_that(policy)
    mounted(daemon, image, mount_point)
    load = [f"--filename={mount_point}/big", *LOAD, f"--runtime={2 + AWAY_S + 3}"]
    with Fio(*load, forever=False) as job:
        time.sleep(2)
        image.registry.stop()
        time.sleep(AWAY_S)
        assert daemon.client.status("d").parked > 0
        image.registry.start()
        report = job.wait(120)
    assert report["error"] == 0
    assert slowest_s(report) > IO_TIMEOUT_S, "there was no pause"
    assert tree_digests(mount_point) == tree_digests(image.content)
