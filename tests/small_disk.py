"""Small file systems and block devices, for tests that fill or overwrite them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest


@contextmanager
def mounted(folder: Path, *arguments: object) -> Iterator[Path]:
    """``mount ARGUMENTS FOLDER`` for the length of the block.  Skips where one may not mount."""
    folder.mkdir(exist_ok=True)
    done = subprocess.run(
        ["mount", *map(str, arguments), folder], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def small_tmpfs(folder: Path, size: str) -> AbstractContextManager[Path]:
    """A tmpfs of size ("64k")."""
    return mounted(folder, "-t", "tmpfs", "-o", f"size={size}", "none")


def small_ext4(folder: Path, size: int) -> AbstractContextManager[Path]:
    """An ext4 of size bytes, in a file beside folder."""
    backing = folder.with_name(f"{folder.name}.ext4")
    with backing.open("wb") as file:
        file.truncate(size)
    subprocess.run(["mkfs.ext4", "-q", backing], check=True)
    return mounted(folder, "-o", "loop", backing)


@contextmanager
def loop_device(backing: Path, size: int) -> Iterator[Path]:
    """A block device of size bytes, in the file backing.  Skips where one may not make it."""
    with backing.open("wb") as file:
        file.truncate(size)
    command = ["losetup", "-f", "--show", str(backing)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"a loop device cannot be made here: {done.stderr.strip()}")
    device = Path(done.stdout.strip())
    try:
        yield device
    finally:
        subprocess.run(["losetup", "-d", device], check=True)
