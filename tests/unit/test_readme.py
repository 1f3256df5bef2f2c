"""The session of README.rst, as it stands there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.registry.free_port import free_port

ROOT = Path(__file__).parents[2]


def commands(*arguments: str) -> str:
    script = [sys.executable, ROOT / "tests/readme-commands", *arguments]
    return subprocess.run(script, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def path_of_the_program(tmp_path: Path) -> str:
    """The program under test comes first in it."""
    program = tmp_path / "bin/tcmu-overlaybd"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m tcmu_overlaybd "$@"\n')
    program.chmod(0o755)
    return f"{program.parent}:{os.environ['PATH']}"


def test_the_session_of_a_user_works_when_pasted(path_of_the_program, tmp_path):
    folder = tmp_path / "session"
    folder.mkdir()
    script = f"set -ex\n{commands('A session', '$')}"
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PATH": path_of_the_program},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    before, after = ((folder / name).read_bytes() for name in ("disk.raw", "both.raw"))
    assert after == before[: 1 << 20] + b"\x78" * 4096 + before[(1 << 20) + 4096 :]


def test_the_session_with_a_registry_works_when_pasted(path_of_the_program, tmp_path):
    """On a port that is free, and with what it keeps in this user's home elsewhere."""
    folder = tmp_path / "session"
    folder.mkdir()
    session = commands("A session", "$") + commands("An image from a registry", "$")
    session = session.replace("127.0.0.1:5500", f"127.0.0.1:{free_port()}")
    done = subprocess.run(
        ["bash", "-c", f"set -ex -o pipefail\ntrap 'kill %1; wait' EXIT\n{session}"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            "PATH": path_of_the_program,
            "DOCKER_CONFIG": str(tmp_path / "docker"),
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
        },
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (folder / "named.raw").read_bytes() == (folder / "both.raw").read_bytes()


def test_root_s_session_and_the_installation_are_there_too():
    assert "tcmu-overlaybd attach base.tar" in commands("A session", "#")
    assert "pip install ." in commands("Installing")
