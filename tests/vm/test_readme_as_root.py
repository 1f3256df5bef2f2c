"""Root's sessions of README.rst, as they stand there but for folders and port."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from vm_daemon import leftovers, run

from tests.registry.free_port import free_port

COMMANDS = Path(__file__).parents[1] / "readme-commands"


@pytest.fixture
def pasted(tmp_path, mount_point) -> Callable[[str], subprocess.CompletedProcess[str]]:
    """Runs a session in a folder of its own; what it left in the background ends afterwards."""
    program = tmp_path / "bin/tcmu-overlaybd"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m tcmu_overlaybd "$@"\n')
    program.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "STATE_DIRECTORY": str(tmp_path / "state"),
        "RUNTIME_DIRECTORY": str(tmp_path / "run"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "DOCKER_CONFIG": str(tmp_path / "docker"),
    }

    def paste(session: str) -> subprocess.CompletedProcess[str]:
        session = session.replace("/var/tmp/", f"{tmp_path}/").replace("/mnt", str(mount_point))
        session = session.replace("127.0.0.1:5500", f"127.0.0.1:{free_port()}")
        return subprocess.run(
            ["bash", "-xc", f"{session}\nkill $(jobs -p); wait"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
            env=environment,
        )

    return paste


def commands(section: str, prompts: str) -> str:
    return run(sys.executable, COMMANDS, section, prompts) + "\n"


def test_the_session_of_root_works_when_pasted(tmp_path, ext4_layer, pasted):
    (tmp_path / "base.tar").write_bytes(ext4_layer.read_bytes())
    done = pasted(commands("A session", "#"))
    printed = [line for line in done.stdout.splitlines() if not line.startswith(("ok ", "MISSING ", " "))]
    first, _digest, second, hello = printed
    assert first.startswith("/dev/sd"), done.stderr
    assert second.startswith("/dev/sd"), done.stderr
    assert hello == "hello", done.stderr
    assert complaints(done.stderr) == []
    assert leftovers() == []


def test_the_session_with_a_registry_works_when_pasted(pasted):
    """After that of a user, whose layers it pushes."""
    serve = next(line for line in commands("A session", "#").splitlines() if " serve " in line)
    session = commands("A session", "$") + f"{serve}\n" + commands("An image from a registry", "$#")
    done = pasted(session)
    printed = done.stdout.splitlines()
    assert "again" in printed, done.stderr
    assert sum(line.startswith("/dev/sd") for line in printed) == 2, done.stderr
    assert complaints(done.stderr) == []
    assert leftovers() == []


def complaints(stderr: str) -> list[str]:
    """What our program had to say, but for this: the VM's disk has less than the cache leaves free."""
    lines = [line for line in stderr.splitlines() if line.startswith("tcmu-overlaybd: ")]
    return [line for line in lines if "not kept, only handed on" not in line]
