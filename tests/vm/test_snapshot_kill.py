"""kill -9 of the daemon inside a snapshot, under a load that verifies what it wrote."""

from __future__ import annotations

from pathlib import Path

import pytest
from vm_daemon import wait_until
from vm_fio import Fio, fio
from vm_images import MIB
from vm_soak import usual_or_soak

from tcmu_overlaybd.daemon.messages import SnapshotRequest
from tcmu_overlaybd.errors import UnavailableError

FILE = 16 * MIB
# In the order in which they are passed; tests/fault/test_kill_in_snapshot.py has all, without a kernel.
BEFORE = usual_or_soak([], ["snapshot.upper_made", "snapshot.held", "seal.index_synced"])
AFTER = usual_or_soak(
    ["seal.trailer_written", "snapshot.config_switched"],
    ["seal.trailer_written", "seal.marked", "snapshot.image_replaced", "snapshot.config_switched"],
)
SECONDS = 7 * len(BEFORE + AFTER)  # that the load lasts, at least


def start(daemon, **environment):
    daemon.environment = {**daemon.environment, "OBD_TEST_KILL_AT": "", **environment}
    daemon.start()
    wait_until(lambda: daemon.client.status("d").state == "ready")


@pytest.mark.timeout(100 + 20 * SECONDS)
def test_daemon_killed_in_a_snapshot_loses_nothing_that_was_acknowledged(make_daemon):
    daemon = make_daemon(TCMU_OVERLAYBD_TEST_FLUSH_INTERVAL_MS="0")
    disk = daemon.attach(new=True, size=FILE, name="d").disk
    options = [f"--filename={disk}", f"--size={FILE}", "--rw=randwrite", "--iodepth=16"]
    options += ["--verify=crc32c", "--verify_state_save=0"]
    with Fio(*options, "--do_verify=0", f"--rate_iops={FILE // 4096 // SECONDS}", forever=False) as writer:
        for step in [*BEFORE, *AFTER]:
            daemon.kill()
            start(daemon, OBD_TEST_KILL_AT=step)
            with pytest.raises(UnavailableError, match="ended before it answered"):
                daemon.client.snapshot(SnapshotRequest(("d",)))
            daemon.process.wait(60)
            start(daemon)
            upper = daemon.client.status("d").upper
            assert not list(Path(upper).glob("*.snapshot"))
        assert writer.process.poll() is None, "the load ended before the last kill"
        assert writer.wait(300)["error"] == 0
    assert daemon.client.status("d").layers == len(AFTER)
    assert fio(*options, "--verify_only", "--verify_fatal=1")["error"] == 0
