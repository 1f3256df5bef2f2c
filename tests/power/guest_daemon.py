"""The daemon inside a guest of these tests, and the programs that it needs beside it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from tcmu_overlaybd.daemon.client import Client
from tcmu_overlaybd.errors import OverlayBDError

RUN = Path("/run/test")


def start_daemon(state: Path, *prefix: str) -> Client:
    """Returns when it answers.  prefix goes in front of the command."""
    os.environ.update(STATE_DIRECTORY=str(state), RUNTIME_DIRECTORY=str(RUN))
    subprocess.Popen([*prefix, sys.executable, "-m", "tcmu_overlaybd", "serve"])
    client = Client(RUN / "control.socket")
    for _ in range(1000):
        try:
            client.version(5)
        except OverlayBDError:
            time.sleep(0.05)
        else:
            return client
    raise SystemExit("the daemon does not become ready")


def run(*command: object) -> str:
    """A program that must succeed; returns what it printed."""
    words = [str(part) for part in command]
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(words)}: exit code {done.returncode}\n{done.stdout}")
    return done.stdout
