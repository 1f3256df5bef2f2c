"""A disk in use while its daemon is killed, restarted and replaced: a pause, and nothing else.

fio writes to the disk all the time, straight to it, and verifies at the end all that it was told is
written; its longest write is the longest pause.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from vm_daemon import wait_until
from vm_fio import Fio, fio
from vm_images import MIB
from vm_iscsi import Initiator
from vm_soak import usual_or_soak

SIZE = usual_or_soak(64, 512) * MIB
RATE = 250  # writes a second: they outlast what happens meanwhile
BETWEEN_S = 0.5

EVENTS = {
    "kill -9": (lambda daemon: (daemon.kill(), daemon.start()), usual_or_soak(10, 100)),
    "restart": (lambda daemon: (daemon.stop(), daemon.start()), usual_or_soak(5, 20)),
    "upgrade": (lambda daemon: daemon.upgrade(), usual_or_soak(3, 10)),
}


@pytest.fixture(params=["loopback", "iscsi"])
def disk(request, daemon, tmp_path):
    """/dev/sdX of a new disk of daemon's."""
    with ExitStack() as stack:
        if request.param == "loopback":
            yield daemon.attach(new=True, size=SIZE, name="d").disk
            return
        chap = tmp_path / "chap"
        chap.write_text("me:a-long-password\n")
        initiator = stack.enter_context(Initiator())
        made = daemon.cli(
            *("attach", "--fabric", "iscsi", "--new", "--size", SIZE, "--name", "d", "--chap-file", chap)
        )
        assert made.returncode == 0, made.stderr
        yield initiator.log_in(made.stdout.strip(), chap.read_text().strip())


@pytest.mark.timeout(usual_or_soak(300, 3000))
@pytest.mark.parametrize("event", EVENTS)
def test_load_only_pauses(daemon, disk, event, tmp_path, request, capsys):
    happen, times = EVENTS[event]
    job = [f"--filename={disk}", f"--size={SIZE}", "--rw=randwrite", "--iodepth=16"]
    job += ["--verify=crc32c", f"--aux-path={tmp_path}"]
    with Fio(*job, "--do_verify=0", f"--rate_iops={RATE}", forever=False) as writer:
        for _ in range(times):
            time.sleep(BETWEEN_S)
            happen(daemon)
            wait_until(lambda: daemon.client.status("d").state == "ready")
            assert writer.process.poll() is None, "the load ended too early"
        written = writer.finish()
    read = fio(*job, "--verify_only", "--verify_state_load=1", "--verify_fatal=1")
    assert (written["error"], read["error"]) == (0, 0)
    nr_written = written["write"]["total_ios"]
    assert read["read"]["total_ios"] >= nr_written - 16 > 100, "not all was verified"
    longest_ms = written["write"]["lat_ns"]["max"] / 1e6
    with capsys.disabled():
        print(f"\n{request.node.name}: {times} times, {nr_written} writes, the longest {longest_ms:.0f} ms")


def test_upgrade_to_a_program_that_cannot_start_leaves_the_daemon_as_it_was(daemon, tmp_path):
    """The state folder that the successor would need has become one of a newer version."""
    disk = daemon.attach(new=True, size=MIB, name="d").disk
    version = daemon.folder / "state/version"
    kept = version.read_text()
    version.write_text(kept.replace('"format": 1', '"format": 99').replace('"format":1', '"format":99'))
    assert version.read_text() != kept
    refused = daemon.cli("upgrade")
    version.write_text(kept)
    assert refused.returncode == 1
    assert "ended before it could take over" in refused.stderr
    assert "written by a newer version (format 99" in daemon.log()
    assert daemon.client.version().pid == daemon.process.pid
    with Path(disk).open("rb") as opened:
        assert len(opened.read(4096)) == 4096
