"""Runs inside the guest whose power is cut: guest.py write|read.

``write`` makes a disk with its upper below /mnt, writes and fsyncs every even block, says
so, then goes on writing the odd ones until the power goes.  ``read`` attaches the same
upper and prints which blocks hold what was written.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from guest_daemon import run, start_daemon

from tcmu_overlaybd.daemon.client import Client
from tcmu_overlaybd.daemon.messages import AttachRequest

BLOCK = 4096
BLOCKS = 256


def block(number: int) -> bytes:
    return number.to_bytes(4, "little") * (BLOCK // 4)


def write(client: Client, folder: Path) -> None:
    request = AttachRequest(new=True, size=BLOCK * BLOCKS, upper=str(folder / "upper"))
    fd = os.open(client.attach(request).disk, os.O_RDWR)
    for number in range(0, BLOCKS, 2):
        os.pwrite(fd, block(number + 1), number * BLOCK)
    os.fsync(fd)
    print("flushed", flush=True)
    while True:
        for number in range(1, BLOCKS, 2):
            os.pwrite(fd, block(number + 1), number * BLOCK)
            time.sleep(0.001)


def read(client: Client, folder: Path) -> None:
    request = AttachRequest(source=(str(folder / "upper/config.v1.json"),), writable=True)
    content = Path(client.attach(request).disk).read_bytes()
    kept = [i for i in range(BLOCKS) if content[i * BLOCK : (i + 1) * BLOCK] == block(i + 1)]
    zero = [i for i in range(BLOCKS) if not any(content[i * BLOCK : (i + 1) * BLOCK])]
    print("kept", *kept, flush=True)
    print("zero", *zero, flush=True)


if __name__ == "__main__":
    folder = Path("/mnt")
    run("mount", "/dev/ubda", folder)
    {"write": write, "read": read}[sys.argv[1]](start_daemon(folder / "state"), folder)
