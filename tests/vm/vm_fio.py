"""fio as a load that goes on beside a test, and as a check of what was written."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Self

FOREVER = ("--time_based", "--runtime=3600")
STARTED = 50  # reads after which a job is surely running
DIRECT = ("--ioengine=libaio", "--direct=1", "--bs=4k")


class Fio:
    """A job that runs while the context lasts (forever: on a disk), or until ``wait``."""

    def __init__(self, *options: str, forever: bool = True) -> None:
        self._command = ["fio", "--name=job", "--output-format=json", *DIRECT, *options]
        self._disk = ""
        if forever:
            self._command += FOREVER
            (name,) = (o.removeprefix("--filename=/dev/") for o in options if o.startswith("--filename="))
            self._disk = name

    def __enter__(self) -> Self:
        before = reads_of(self._disk)
        self.process = subprocess.Popen(
            self._command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        while self._disk and self.process.poll() is None and reads_of(self._disk) < before + STARTED:
            time.sleep(0.02)
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(60)

    def finish(self) -> dict[str, Any]:
        """Ends it as Ctrl-C does; what it measured.

        It is running: fio that is interrupted before its jobs have started waits for ever.
        """
        self.process.send_signal(signal.SIGINT)
        return self.wait(60)

    def wait(self, timeout: float) -> dict[str, Any]:
        """Waits for its end; the job's part of its report, with ``error`` as an errno value."""
        text, _ = self.process.communicate(timeout=timeout)
        start = text.find("\n{") + 1 if not text.startswith("{") else 0
        report, _ = json.JSONDecoder().raw_decode(text[start:])
        job = report["jobs"][0]
        job["said"] = text[:start]
        return job


def reads_of(disk: str) -> int:
    """Reads that the kernel has finished on sdX; 0 for no disk."""
    return int(Path("/sys/block", disk, "stat").read_text().split()[0]) if disk else 0


def fio(*options: str, timeout: float = 300) -> dict[str, Any]:
    """One job to its end."""
    with Fio(*options, forever=False) as job:
        return job.wait(timeout)
