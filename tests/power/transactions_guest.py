"""Runs inside the guest: transactions_guest.py write COUNT [logged] | check NR_DISKS.

``write`` makes a disk whose upper lies on /dev/ubda, and on it commits SQLite transactions
(WAL, synchronous=FULL) beside fio; each that is committed is said on the output, and with
``logged`` marked in the log of dm-log-writes, which lies on /dev/ubdb.  ``check`` looks at
/dev/ubda and the following ones as a machine does that starts after a power cut.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import string
import subprocess
import sys
import time
from pathlib import Path

from guest_daemon import RUN, run, start_daemon

from tcmu_overlaybd.daemon.messages import AttachRequest, DetachRequest

MIB = 1 << 20
OUTER, INNER = Path("/run/outer"), Path("/run/inner")
DATABASE = INNER / "database"
LOGGED = "logged"
PAUSE_S = 0.02  # between transactions, so that fio has its turn
FIO = (
    "--thread",
    "--size=6M",
    "--rw=randwrite",
    "--bs=4k",
    "--fsync=32",
    "--rate_iops=200",
    "--time_based",
    "--runtime=300",
)


def value_of(number: int) -> str:
    """What belongs into the row of this number: some pages of text."""
    return hashlib.sha512(str(number).encode()).hexdigest() * (1 + number % 40)


def outer_device(is_logged: bool) -> str:
    if not is_logged:
        return "/dev/ubda"
    run("modprobe", "dm-log-writes")
    sectors = int(Path("/sys/block/ubda/size").read_text())
    run("dmsetup", "create", LOGGED, "--table", f"0 {sectors} log-writes /dev/ubda /dev/ubdb")
    run("dmsetup", "mknodes")
    return f"/dev/mapper/{LOGGED}"


def say_committed(number: int, is_logged: bool) -> None:
    if is_logged:
        run("dmsetup", "message", LOGGED, "0", "mark", f"committed-{number}")
    print("committed", number, flush=True)


def write(count: int, is_logged: bool) -> None:
    for folder in (OUTER, INNER):
        folder.mkdir()
    run("mount", outer_device(is_logged), OUTER)
    client = start_daemon(RUN / "state")
    disk = client.attach(AttachRequest(new=True, size=64 * MIB, upper=str(OUTER / "upper"), name="d")).disk
    run("mkfs.ext4", "-q", disk)
    run("mount", disk, INNER)
    database = sqlite3.connect(DATABASE, isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=FULL")
    database.execute("CREATE TABLE pages (number INTEGER PRIMARY KEY, value TEXT)")
    os.sync()
    load = subprocess.Popen(
        ["fio", "--name=load", f"--filename={INNER}/load", *FIO], stdout=subprocess.DEVNULL
    )
    for number in range(1, count + 1):
        database.execute("INSERT INTO pages VALUES (?, ?)", (number, value_of(number)))
        say_committed(number, is_logged)
        time.sleep(PAUSE_S)
    load.kill()
    load.wait()
    database.close()
    run("umount", INNER)
    client.detach("d", DetachRequest())
    run("umount", OUTER)
    if is_logged:
        run("dmsetup", "remove", LOGGED)
    print("written", flush=True)


def mount_checked(device: str, folder: Path) -> None:
    """As a machine does at its start: the file system's journal first; then it must be clean."""
    run("mount", device, folder)
    run("umount", folder)
    run("fsck.ext4", "-fn", device)
    run("mount", device, folder)


def count_rows() -> int:
    """How many transactions are there: all up to that number, each as it was committed."""
    database = sqlite3.connect(DATABASE)
    assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    rows = database.execute("SELECT number, value FROM pages ORDER BY number").fetchall()
    database.close()
    assert rows == [(number, value_of(number)) for number in range(1, len(rows) + 1)]
    return len(rows)


def check(nr_disks: int) -> None:
    for folder in (OUTER, INNER):
        folder.mkdir()
    client = start_daemon(RUN / "state")
    for letter in string.ascii_lowercase[:nr_disks]:
        mount_checked(f"/dev/ubd{letter}", OUTER)
        source = (str(OUTER / "upper/config.v1.json"),)
        disk = client.attach(AttachRequest(source=source, writable=True, name=letter)).disk
        mount_checked(disk, INNER)
        print("rows", count_rows(), flush=True)
        run("umount", INNER)
        client.detach(letter, DetachRequest())
        run("umount", OUTER)


if __name__ == "__main__":
    number = int(sys.argv[2])
    if sys.argv[1] == "write":
        write(number, LOGGED in sys.argv)
    else:
        check(number)
