"""Small images to attach."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

from vm_daemon import run

MIB = 1 << 20


def make_raw(path: Path, size: int) -> Path:
    """A raw disk of random bytes in every second MiB."""
    with path.open("wb") as file:
        file.truncate(size)
        for offset in range(0, size, 2 * MIB):
            file.seek(offset)
            file.write(os.urandom(MIB))
    return path


def make_ext4(path: Path, content: Path, size: int) -> Path:
    """A raw disk with an ext4 file system that holds content."""
    with path.open("wb") as file:
        file.truncate(size)
    run("mke2fs", "-q", "-t", "ext4", "-d", content, path)
    return path


def make_layer(raw: Path, *options: str) -> Path:
    """raw as one committed layer beside it."""
    layer = raw.with_suffix(".layer")
    run(sys.executable, "-m", "tcmu_overlaybd", "image", "import", raw, "-o", layer, *options)
    return layer


def tree_digests(root: Path) -> dict[str, str]:
    """sha256 of every regular file below root, by relative path."""
    files = (path for path in sorted(root.rglob("*")) if path.is_file() and not path.is_symlink())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
