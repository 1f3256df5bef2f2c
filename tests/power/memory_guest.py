"""Runs inside the guest: more dirty memory than there is, through our disk (memory_guest.py MIB LIMIT_MIB).

The daemon is in a cgroup with a limit; swap is off; the upper is on /dev/ubda.
"""

from __future__ import annotations

import hashlib
import sys
import time
from pathlib import Path

from guest_daemon import RUN, run, start_daemon

from tcmu_overlaybd.daemon.messages import AttachRequest, DetachRequest

MIB = 1 << 20
CGROUP = Path("/run/cgroup")
OUTER, INNER = Path("/run/outer"), Path("/run/inner")


def limit_memory(limit_mib: int) -> Path:
    """A group for the daemon."""
    run("mount", "-t", "cgroup2", "none", CGROUP)
    (CGROUP / "cgroup.subtree_control").write_text("+memory")
    group = CGROUP / "daemon"
    group.mkdir()
    (group / "memory.max").write_text(str(limit_mib * MIB))
    return group


def piece(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest() * (MIB // 32)


def main(nr_mib: int, limit_mib: int) -> None:
    for folder in (CGROUP, OUTER, INNER):
        folder.mkdir()
    group = limit_memory(limit_mib)
    run("mount", "/dev/ubda", OUTER)
    into_group = f'echo $$ > {group}/cgroup.procs && exec "$@"'
    client = start_daemon(RUN / "state", "sh", "-c", into_group, "sh")
    upper = str(OUTER / "upper")
    disk = client.attach(AttachRequest(new=True, size=(nr_mib + 128) * MIB, upper=upper, name="d")).disk
    run("mkfs.ext4", "-q", disk)
    run("mount", disk, INNER)
    pid = client.version().pid
    print("score", Path(f"/proc/{pid}/oom_score_adj").read_text().strip(), flush=True)
    begun = time.monotonic()
    with (INNER / "big").open("wb") as file:
        for number in range(nr_mib):
            file.write(piece(number))
    run("umount", INNER)
    print(f"written in {time.monotonic() - begun:.1f} s", flush=True)
    run("mount", disk, INNER)
    with (INNER / "big").open("rb") as file:
        assert all(file.read(MIB) == piece(number) for number in range(nr_mib))
    print("peak", Path(group / "memory.peak").read_text().strip(), flush=True)
    run("umount", INNER)
    client.detach("d", DetachRequest())
    print("all there", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
