"""The scripts of configfs/, and devices that others make there."""

from __future__ import annotations

from pathlib import Path

import pytest
from vm_daemon import leftovers, run, wait_until

from tcmu_overlaybd.config.image_config import ImageConfig, Lower, save_image_config

SCRIPTS = Path(__file__).parents[2] / "configfs"


@pytest.fixture
def config(tmp_path, plain_layer):
    path = tmp_path / "config.v1.json"
    save_image_config(
        path, ImageConfig(lowers=(Lower(file=str(plain_layer)),), result_file=str(tmp_path / "result"))
    )
    return path


def test_attach_script_makes_a_disk_and_detach_script_removes_it(daemon, config, raw_disk):
    disk = run(SCRIPTS / "attach.sh", "byhand", config).strip()
    assert Path(disk).read_bytes() == raw_disk.read_bytes()
    status = daemon.client.status("byhand")
    assert (status.state, status.made_by, status.size) == ("ready", "configfs", raw_disk.stat().st_size)
    assert (config.parent / "result").read_text() == "success"
    run(SCRIPTS / "detach.sh", "byhand")
    assert leftovers() == []
    wait_until(lambda: daemon.client.devices() == ())


def test_device_of_others_is_found_again_after_a_kill_and_not_detached_by_us(daemon, config, raw_disk):
    disk = run(SCRIPTS / "attach.sh", "byhand", config).strip()
    daemon.kill()
    daemon.start()
    assert Path(disk).read_bytes() == raw_disk.read_bytes()
    refused = daemon.cli("detach", "byhand")
    assert refused.returncode == 1
    assert "made in configfs" in refused.stderr
    run(SCRIPTS / "detach.sh", "byhand")
    wait_until(lambda: daemon.client.devices() == ())


def test_image_that_cannot_be_opened_is_told_in_status_and_result_file(daemon, config, plain_layer, tmp_path):
    gone = tmp_path / "gone.layer"
    save_image_config(
        config, ImageConfig(lowers=(Lower(file=str(gone)),), result_file=str(tmp_path / "result"))
    )
    backstore = Path("/sys/kernel/config/target/core/user_2026/bad")
    backstore.mkdir(parents=True)
    (backstore / "control").write_text(f"dev_config=overlaybd/{config};bad,dev_size=1048576")
    (backstore / "enable").write_text("1")
    wait_until(lambda: daemon.client.status("bad").state == "broken")
    assert "gone.layer: no such" in daemon.client.status("bad").reason
    wait_until(lambda: (tmp_path / "result").read_text().startswith("failed:"))
    backstore.rmdir()
    wait_until(lambda: daemon.client.devices() == ())
    backstore.parent.rmdir()


def test_dead_daemons_disk_is_removed_by_the_script(daemon, config):
    run(SCRIPTS / "attach.sh", "byhand", config)
    daemon.kill()
    run(SCRIPTS / "detach.sh", "byhand", "dead", timeout=20)
    assert leftovers() == []
