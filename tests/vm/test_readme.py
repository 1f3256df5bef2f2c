"""Root's session of README.rst, as it stands there but for the folders."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from vm_daemon import leftovers, run

COMMANDS = Path(__file__).parents[1] / "readme-commands"


def test_the_session_of_root_works_when_pasted(tmp_path, ext4_layer, mount_point):
    (tmp_path / "base.tar").write_bytes(ext4_layer.read_bytes())
    program = tmp_path / "bin/tcmu-overlaybd"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m tcmu_overlaybd "$@"\n')
    program.chmod(0o755)
    session = run(sys.executable, COMMANDS, "A session", "#")
    session = session.replace("/var/tmp/first", str(tmp_path / "first")).replace("/mnt", str(mount_point))
    done = subprocess.run(
        ["bash", "-xc", f"{session}\nkill %1; wait"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={
            **os.environ,
            "PATH": f"{program.parent}:{os.environ['PATH']}",
            "STATE_DIRECTORY": str(tmp_path / "state"),
            "RUNTIME_DIRECTORY": str(tmp_path / "run"),
        },
    )
    printed = [line for line in done.stdout.splitlines() if not line.startswith(("ok ", "MISSING ", " "))]
    first, _digest, second, hello = printed
    assert first.startswith("/dev/sd"), done.stderr
    assert second.startswith("/dev/sd"), done.stderr
    assert hello == "hello", done.stderr
    assert "tcmu-overlaybd: " not in done.stderr
    assert leftovers() == []
