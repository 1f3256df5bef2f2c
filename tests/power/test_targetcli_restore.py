"""A disk that targetcli made is there again after a reboot of the machine, and nothing complains.

The machine is a User-Mode Linux; what outlives its reboot (LIO's saved configuration, the
image) lies on a disk that is a file of ours.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
GUEST = PROJECT / "tests/power/targetcli_guest.py"

pytestmark = [
    pytest.mark.skipif(shutil.which("linux.uml") is None, reason="needs User-Mode Linux"),
    pytest.mark.skipif(shutil.which("targetcli") is None, reason="needs targetcli-fb"),
    pytest.mark.timeout(280),
]


def guest(disk: Path, what: str) -> str:
    """Boots, does what, ends in order; what it printed."""
    script = f"mount /dev/ubda /mnt && exec {sys.executable} {GUEST} {what} /mnt"
    command = [PROJECT / "vagrant/umlrun", "-t", "130", "-w", PROJECT, "-d", disk, "--", "bash", "-c", script]
    result = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        check=False,
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_configuration_saved_by_targetcli_is_restored_after_a_reboot_without_an_error(tmp_path):
    disk = tmp_path / "machine.disk"
    with disk.open("wb") as file:
        file.truncate(512 << 20)
    subprocess.run(["mkfs.ext4", "-q", disk], check=True)
    guest(disk, "create")
    said = guest(disk, "restore")
    (restored,) = [line for line in said.splitlines() if line.startswith("restored:")]
    assert "Configuration restored" in restored
    assert "error" not in restored.lower()
    assert "recover" not in restored.lower()
    assert "file: written before the reboot" in said
