"""A machine whose power can be cut: a User-Mode Linux whose disks are files of ours."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

PROJECT = Path(__file__).parents[2]
FOLDER = Path(__file__).parent


def start_machine(
    guest: str, *arguments: object, disks: Sequence[Path], memory: str = "1G", seconds: int = 200, **env: str
) -> subprocess.Popen[str]:
    """Boots, with disks as /dev/ubda, /dev/ubdb, ..., and runs the script guest of this folder.

    env: what the script finds in its environment besides.
    """
    options = [part for disk in disks for part in ("-d", disk)]
    script = [sys.executable, FOLDER / guest, *arguments]
    command = [
        PROJECT / "vagrant/umlrun", "-m", memory, "-t", seconds, "-w", PROJECT, *options, "--", *script,
    ]  # fmt: skip
    inside = {"PYTHONPATH": str(PROJECT), "TCMU_OVERLAYBD_TEST_BUILD": "1", **env}
    return subprocess.Popen(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=PROJECT,
        start_new_session=True,
        env={**os.environ, **inside, "UML_ENV": " ".join(inside)},
    )


def cut_power(machine: subprocess.Popen[str], disk: Path) -> None:
    """Kills every process of the guest: they are the ones that have its first disk on their command line."""
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if f"ubd0={disk}".encode() in entry.read_bytes().split(b"\0"):
                os.kill(int(entry.parent.name), signal.SIGKILL)
        except (OSError, ProcessLookupError):
            continue
    machine.wait(60)


def make_disk(path: Path, size: int, *, ext4: bool = True) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    if ext4:
        subprocess.run(["mkfs.ext4", "-q", path], check=True)
    return path
