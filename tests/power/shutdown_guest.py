"""Runs inside the guest that shuts down: shutdown_guest.py abandon|nothing [alive].

Leaves a mounted file system with dirty pages on a disk of ours, whose daemon is killed
unless it is to stay alive.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from guest_daemon import RUN, run, start_daemon

from tcmu_overlaybd.daemon.messages import AttachRequest

MIB = 1 << 20


def make_dirty(disk: str) -> None:
    run("mkfs.ext4", "-q", disk)
    run("mount", disk, "/mnt")
    Path("/mnt/dirty").write_bytes(os.urandom(8 * MIB))


def main(last_words: str, is_alive: bool) -> None:
    client = start_daemon(RUN / "state")
    disk = client.attach(AttachRequest(new=True, size=64 * MIB)).disk
    make_dirty(disk)
    if not is_alive:
        os.kill(client.version(5).pid, signal.SIGKILL)
    if last_words == "abandon":
        subprocess.run([sys.executable, "-m", "tcmu_overlaybd", "abandon"], check=True)
    print("shutting down", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], "alive" in sys.argv)
