"""Runs inside the guest that shuts down: shutdown_guest.py abandon|nothing [alive].

Leaves a mounted file system with dirty pages on a disk of ours, whose daemon is killed
unless it is to stay alive.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tcmu_overlaybd.daemon.client import Client
from tcmu_overlaybd.daemon.messages import AttachRequest
from tcmu_overlaybd.errors import OverlayBDError

WORK = Path("/run/test")
MIB = 1 << 20


def start_daemon() -> Client:
    os.environ.update(STATE_DIRECTORY=f"{WORK}/state", RUNTIME_DIRECTORY=f"{WORK}/run")
    subprocess.Popen([sys.executable, "-m", "tcmu_overlaybd", "serve"])
    client = Client(WORK / "run/control.socket")
    for _ in range(500):
        try:
            client.version(5)
        except OverlayBDError:
            time.sleep(0.05)
        else:
            return client
    raise SystemExit("the daemon does not become ready")


def make_dirty(disk: str) -> None:
    subprocess.run(["mkfs.ext4", "-q", disk], check=True)
    subprocess.run(["mount", disk, "/mnt"], check=True)
    Path("/mnt/dirty").write_bytes(os.urandom(8 * MIB))


def main(last_words: str, is_alive: bool) -> None:
    client = start_daemon()
    disk = client.attach(AttachRequest(new=True, size=64 * MIB)).disk
    make_dirty(disk)
    if not is_alive:
        os.kill(client.version(5).pid, signal.SIGKILL)
    if last_words == "abandon":
        subprocess.run([sys.executable, "-m", "tcmu_overlaybd", "abandon"], check=True)
    print("shutting down", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], "alive" in sys.argv)
