"""The real input: files of installed Debian packages, changed the way people change them.

``collect`` copies package files into a folder until there are enough;
``Change`` adds, edits, replaces and deletes, the same way in a mounted disk and
in the folder that it is compared with; ``differences`` is the judge.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from demo.story import Story, each

MINIMUM_BYTES = 150 << 20
MINIMUM_FILES = 3000
MAXIMUM_BYTES = 230 << 20

# Packages that make test installs anyway: many small files, and some large ones.
PACKAGES = (
    "libpython3.11-stdlib",
    "perl-modules-5.36",
    "linux-libc-dev",
    "libc6-dev",
    "libstdc++-12-dev",
    "xfsprogs",
    "fio",
    "binutils-x86-64-linux-gnu",
    "binutils-aarch64-linux-gnu",
    "cpp-12",
    "gcc-12",
    "libgcc-12-dev",
    "qemu-utils",
    "libclang-common-14-dev",
    "clang-14",
    "libllvm14",
)


def package_files(package: str) -> Iterator[Path]:
    """The regular files of an installed package; nothing when it is not installed."""
    listing = subprocess.run(["dpkg", "-L", package], capture_output=True, text=True, check=False)
    for line in listing.stdout.splitlines():
        path = Path(line)
        if path.is_file() and not path.is_symlink():
            yield path


def collect(folder: Path, story: Story) -> tuple[int, int]:
    """Copies package files below folder; returns how many files and bytes."""
    files = size = 0
    for package in each(story, "copying the files of Debian packages", PACKAGES, len(PACKAGES)):
        if size >= MINIMUM_BYTES and files >= MINIMUM_FILES:
            continue
        for path in package_files(package):
            if size + path.stat().st_size > MAXIMUM_BYTES:
                continue
            target = folder / path.relative_to("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
            target.chmod(0o755 if os.access(path, os.X_OK) else 0o644)
            files, size = files + 1, size + target.stat().st_size
    if size < MINIMUM_BYTES or files < MINIMUM_FILES:
        raise SystemExit(
            f"demo: the installed packages give {files} files of {size >> 20} MiB; too few to show"
        )
    return files, size


@dataclass(frozen=True)
class Change:
    """A reproducible set of edits: the same seed does the same to equal trees."""

    seed: int
    touched: int = 120

    def apply(self, root: Path) -> str:
        """Edits the tree below root; returns a sentence about it."""
        dice = random.Random(self.seed)  # noqa: S311 - reproducible, not secret
        paths = sorted(regular_files(root))
        chosen = dice.sample(paths, min(self.touched, len(paths)))
        third = len(chosen) // 3
        for path in chosen[:third]:
            (root / path).unlink()
        for path in chosen[third : 2 * third]:
            with (root / path).open("ab") as file:
                file.write(dice.randbytes(dice.randrange(1, 9000)))
        for path in chosen[2 * third :]:
            (root / path).write_bytes(dice.randbytes(dice.randrange(0, 60000)))
        folder = root / f"added-{self.seed}"
        for number in range(200):
            added = folder / f"{number % 7}" / f"file-{number}.txt"
            added.parent.mkdir(parents=True, exist_ok=True)
            added.write_bytes(b"line of text %d\n" % number * dice.randrange(0, 900))
        return f"deleted {third}, appended to {third}, rewrote {len(chosen) - 2 * third} and added 200 files"


def regular_files(root: Path) -> Iterator[Path]:
    """Paths of regular files, relative to root, without lost+found."""
    for folder, names, files in os.walk(root):
        names[:] = [n for n in names if n != "lost+found"]
        for name in files:
            path = Path(folder, name)
            if stat.S_ISREG(path.lstat().st_mode):
                yield path.relative_to(root)


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def differences(disk: Path, source: Path, story: Story, label: str) -> tuple[int, list[str]]:
    """Compares names and the sha256 of every file; returns how many and what differs."""
    wanted, found = set(regular_files(source)), set(regular_files(disk))
    wrong = [f"missing: {p}" for p in sorted(wanted - found)] + [
        f"not wanted: {p}" for p in sorted(found - wanted)
    ]
    both = sorted(wanted & found)
    wrong += [
        f"differs: {p}" for p in each(story, label, both, len(both)) if digest(disk / p) != digest(source / p)
    ]
    return len(both), wrong
