"""What the demo keeps apart from its user's: passwords, cache, and the daemon's state.

All of it lies in one folder, which every command finds by its environment; so the
cache is empty at first, and ``login`` writes into nobody's docker configuration.

In the VM the folder is a disk: the cache must be able to give the space of a part of a
file back, which the file system that shows the host's files cannot.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from demo.processes import run

VM_DISK = "/dev/ubda"
VM_DISK_SIZE = 3 << 30  # the cache leaves a GiB free; sparse

FOLDERS = {
    "DOCKER_CONFIG": "docker",
    "STATE_DIRECTORY": "state",
    "XDG_CACHE_HOME": "cache",
}
OTHERS = ("TCMU_OVERLAYBD_CONFIG", "TCMU_OVERLAYBD_SOCKET")  # would lead somewhere else


@contextlib.contextmanager
def moved_in(folder: Path) -> Iterator[None]:
    """In the block the commands of this process keep their things below folder."""
    before = dict(os.environ)
    for variable, name in FOLDERS.items():
        place = folder / name
        place.mkdir(parents=True, mode=0o700)
        os.environ[variable] = str(place)
    for variable in OTHERS:
        os.environ.pop(variable, None)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def vm_disk(path: Path) -> Iterator[Path]:
    """The file that is the VM's disk in the block."""
    with path.open("wb") as file:
        file.truncate(VM_DISK_SIZE)
    try:
        run("mke2fs", "-q", "-t", "ext4", path)
        yield path
    finally:
        path.unlink()


@contextlib.contextmanager
def on_vm_disk(folder: Path) -> Iterator[None]:
    """Inside the VM: what is put below folder in the block lies on its disk."""
    folder.mkdir()
    run("mount", VM_DISK, folder)
    try:
        yield
    finally:
        run("umount", folder)
