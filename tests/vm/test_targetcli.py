"""targetcli makes a disk of ours, changes it, and learns why it cannot."""

from __future__ import annotations

from pathlib import Path

import pytest
from vm_daemon import CONFIGFS, run, wait_until
from vm_images import MIB, tree_digests
from vm_targetcli import is_served, start_bus, targetcli

from tcmu_overlaybd.image.open import open_image
from tcmu_overlaybd.lio.discovery import find_disk

BACKSTORES = "/backstores/user:overlaybd"


@pytest.fixture(scope="module", autouse=True)
def bus():
    start_bus()


@pytest.fixture
def served(daemon):
    wait_until(is_served)
    return daemon


@pytest.fixture
def config(tmp_path):
    """Of a blank writable disk of 64 MiB."""
    open_image(None, writable=True, upper_dir=tmp_path / "disk", size=64 * MIB).close()
    return tmp_path / "disk/config.v1.json"


def done(*words: object) -> str:
    result = targetcli(*words)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def make_disk(config: Path) -> str:
    """/dev/sdX of a loopback port that targetcli has made."""
    done(BACKSTORES, "create", "web", "64M", config)
    done("/loopback", "create", "naa.50014051234567ab")
    done("/loopback/naa.50014051234567ab/luns", "create", f"{BACKSTORES}/web")
    text = next(CONFIGFS.glob("core/user_*/web/wwn/vpd_unit_serial")).read_text()
    serial = text.rpartition(": ")[2].strip()
    wait_until(lambda: find_disk(serial) != "")
    return f"/dev/{find_disk(serial)}"


@pytest.fixture
def disk(served, config):
    yield make_disk(config)
    done("/loopback", "delete", "naa.50014051234567ab")
    done(BACKSTORES, "delete", "web")


def test_disk_that_targetcli_makes_works_and_grows(served, disk, mount_point, content):
    device = served.client.status("web")
    assert (device.state, device.made_by, device.size) == ("ready", "configfs", 64 * MIB)
    wait_until(lambda: run("blockdev", "--getsize64", disk).strip() == str(64 * MIB))
    run("mkfs.ext4", "-q", disk)
    run("mount", disk, mount_point)
    run("cp", "-r", f"{content}/.", mount_point)
    done(f"{BACKSTORES}/web", "set", "attribute", f"dev_size={128 * MIB}")
    wait_until(lambda: run("blockdev", "--getsize64", disk).strip() == str(128 * MIB))
    run("resize2fs", disk)
    run("umount", mount_point)
    run("fsck.ext4", "-f", "-n", disk)
    run("mount", "-o", "ro", disk, mount_point)
    assert tree_digests(mount_point).items() >= tree_digests(content).items()
    run("umount", mount_point)


def test_targetcli_says_what_is_wrong_with_a_config_string(served, tmp_path):
    (tmp_path / "config.v1.json").write_text('{"lowers": [{"file": "/no/such/layer"}]}')
    for words, sentence in (
        (("/no/such/config.v1.json",), "/no/such/config.v1.json: no such file"),
        ((tmp_path / "config.v1.json",), "layer 1 of 1: /no/such/layer: no such layer file"),
    ):
        refused = targetcli(BACKSTORES, "create", "web", "64M", *words)
        assert refused.returncode == 1
        assert sentence in refused.stdout + refused.stderr
    assert served.client.devices() == ()


def test_targetcli_shows_what_a_config_string_is(served):
    assert "Example: create web" in done(BACKSTORES, "help", "create")


def test_without_the_daemon_targetcli_shows_no_backstore_of_ours(served):
    assert "user:overlaybd" in done("/backstores", "ls")
    served.stop()
    assert "user:overlaybd" not in done("/backstores", "ls")
