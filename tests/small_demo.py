"""The demo on a few files: what it finds when it begins, how it is run, who is left of it."""

from __future__ import annotations

import random
import sys
from pathlib import Path

from demo.processes import overlaybd, run


def make_work(folder: Path) -> Path:
    """A folder with the source and the base.tar of it."""
    usr = folder / "source/usr"
    usr.mkdir(parents=True)
    dice = random.Random(4)
    for number in range(200):
        (usr / f"file-{number}").write_bytes(dice.randbytes(dice.randrange(1, 40000)))
    raw = folder / "base.raw"
    run("mke2fs", "-q", "-t", "ext4", "-d", folder / "source", raw, "64M")
    overlaybd("image", "import", raw, "-o", folder / "base.tar", "--zfile", "lz4", "--tar")
    return folder


def command(work: Path, door: str) -> list[str]:
    return [sys.executable, "-m", "demo", "--inside", door, "--work", str(work)]


def processes_about(folder: Path) -> list[str]:
    """Command lines of living processes that name the folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # ended meanwhile
        if str(folder) in words:
            found.append(words)
    return found
