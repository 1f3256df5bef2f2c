"""Disks of the kernel snapshotted and forked while they are written."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from vm_daemon import run
from vm_fio import Fio, fio
from vm_images import MIB
from vm_soak import usual_or_soak

from tcmu_overlaybd.daemon.messages import CommitRequest, ForkRequest, SnapshotRequest

ROOT = Path(__file__).parents[2]
LARGE = 2048 * MIB
FILE = usual_or_soak(24, 256) * MIB
SNAPSHOTS = usual_or_soak(3, 20)


def snapshot(daemon, *names, commit=None):
    made = daemon.client.snapshot(SnapshotRequest(names, commit=commit))
    print(f"\nsnapshot of {' and '.join(names)}: writes waited for {made.pause_ms:.1f} ms")
    return made


@pytest.fixture
def host_folder():
    """On the host's disk: the VM's memory is too small for a large upper."""
    folder = ROOT / "build" / "vm-large-upper"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def bytes_written(daemon) -> int:
    """By the daemon, to whatever file."""
    text = Path(f"/proc/{daemon.process.pid}/io").read_text()
    return int(dict(line.split(": ") for line in text.splitlines())["wchar"])


@pytest.mark.timeout(600)
def test_fork_of_a_large_upper_copies_nothing(host_folder, daemon):
    disk = daemon.attach(new=True, size=LARGE + 64 * MIB, name="large", upper=host_folder / "upper").disk
    written = fio(f"--filename={disk}", "--rw=write", "--bs=1m", "--iodepth=4", f"--size={LARGE}")
    assert written["error"] == 0
    before = bytes_written(daemon)
    began = time.monotonic()
    made = daemon.client.fork("large", ForkRequest("second", upper=str(host_folder / "second")))
    whole_ms = (time.monotonic() - began) * 1000
    nr_bytes = bytes_written(daemon) - before
    print(
        f"\nfork of an upper of {LARGE // MIB} MiB: writes waited for {made.snapshot.pause_ms:.1f} ms,"
        f" snapshot {made.snapshot.total_ms:.1f} ms, second disk after {whole_ms:.1f} ms,"
        f" {nr_bytes} bytes written"
    )
    assert nr_bytes < MIB
    assert made.snapshot.devices[0].size > LARGE
    compare = ["cmp", "-n", str(16 * MIB), disk, made.device.disk]
    run(*compare)
    run("dd", "if=/dev/urandom", f"of={disk}", "bs=1M", "count=1", "oflag=direct", "status=none")
    assert subprocess.run(compare, capture_output=True, check=False).returncode == 1


@pytest.mark.timeout(600)
def test_snapshots_forks_and_commits_under_fio_verify_lose_nothing(daemon, tmp_path):
    disk = daemon.attach(new=True, size=FILE, name="d").disk
    options = [f"--filename={disk}", f"--size={FILE}", "--rw=randwrite", "--iodepth=16"]
    options += ["--verify=crc32c", "--verify_state_save=0"]
    rate = FILE // 4096 // usual_or_soak(12, 60)  # so that it outlasts them
    with Fio(*options, "--do_verify=0", f"--rate_iops={rate}", forever=False) as writer:
        for number in range(SNAPSHOTS):
            time.sleep(1)
            snapshot(daemon, "d", commit=CommitRequest(str(tmp_path / f"sealed{number}")))
            daemon.client.commit("d", CommitRequest(str(tmp_path / f"upper{number}")))
        time.sleep(0.5)
        second = daemon.cli("fork", "d", "--name", "second")
        assert second.returncode == 0, second.stderr
        assert writer.process.poll() is None, "the load ended before the last snapshot"
        assert writer.wait(300)["error"] == 0
    assert fio(*options, "--verify_only", "--verify_fatal=1")["error"] == 0
    assert daemon.client.status("second").layers == SNAPSHOTS + 1
    assert len(daemon.client.status("second").sealed) == SNAPSHOTS + 1
    run(
        "dd", "if=/dev/zero", f"of={second.stdout.strip()}", "bs=1M", "count=4", "oflag=direct", "status=none"
    )
    daemon.detach("second")
    daemon.kill()
    daemon.start()
    assert fio(*options, "--verify_only", "--verify_fatal=1")["error"] == 0, "of the next daemon"


# -- a file on each of two disks, and transactions that span both

WRITER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("ATTACH ? AS other", [sys.argv[2]])
for name in ("main", "other"):
    connection.execute(f"PRAGMA {name}.journal_mode=DELETE")
    connection.execute(f"PRAGMA {name}.synchronous=FULL")
    connection.execute(f"CREATE TABLE {name}.t (n INTEGER PRIMARY KEY, filling BLOB)")
for number in range(1, 1000000):
    connection.execute("BEGIN")
    for name in ("main", "other"):
        connection.execute(f"INSERT INTO {name}.t VALUES (?, randomblob(3000))", [number])
    connection.execute("COMMIT")
    print(number, flush=True)
"""


def mount_both(disks, points) -> None:
    for disk, point in zip(disks, points, strict=True):
        run("mount", disk, point)


def check_databases(points, committed: int) -> int:
    """Sound, at the same transaction, and with all that was committed before the snapshot."""
    connection = sqlite3.connect(points[0] / "db")
    connection.execute("ATTACH ? AS other", [str(points[1] / "db")])
    last = []
    for name in ("main", "other"):
        assert connection.execute(f"PRAGMA {name}.integrity_check").fetchall() == [("ok",)]
        last.append(connection.execute(f"SELECT max(n), count(*) FROM {name}.t").fetchone())
    connection.close()
    assert last[0] == last[1]
    assert last[0][0] == last[0][1] >= committed
    return last[0][0]


@pytest.mark.timeout(600)
def test_two_disks_snapshotted_together_hold_the_same_transactions(daemon, tmp_path):
    names = ("system", "data")
    points = [tmp_path / name for name in names]
    disks = [daemon.attach(new=True, size=64 * MIB, name=name).disk for name in names]
    for disk, point in zip(disks, points, strict=True):
        run("mkfs.ext4", "-q", disk)
        point.mkdir()
    mount_both(disks, points)
    sealed: list[tuple[list[str], int]] = []
    with (tmp_path / "committed").open("w+") as output:
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(points[0] / "db"), str(points[1] / "db")], stdout=output
        )
        committed_in = tmp_path / "committed"
        for _ in range(SNAPSHOTS):
            time.sleep(1)
            committed = len(committed_in.read_text().split())
            made = snapshot(daemon, *names)
            sealed.append(([one.sealed for one in made.devices], committed))
        assert writer.poll() is None, "the transactions ended before the last snapshot"
        writer.kill()
        writer.wait(60)
    for point in points:
        run("umount", point)
    for number, (_, committed) in enumerate(sealed, 1):
        layers = [[files[i] for files, _ in sealed[:number]] for i in (0, 1)]
        restored = [
            daemon.attach(*files, name=f"{name}{number}", writable=True).disk
            for name, files in zip(names, layers, strict=True)
        ]
        mount_both(restored, points)
        found = check_databases(points, committed)
        print(f"snapshot {number}: {found} transactions on each, {committed} had been committed before")
        for point in points:
            run("umount", point)
