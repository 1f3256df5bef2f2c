"""fio as a load that goes on beside a test, and as a check of what was written."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Self

FOREVER = ("--time_based", "--runtime=3600")
DIRECT = ("--ioengine=libaio", "--direct=1", "--bs=4k")


class Fio:
    """A job that runs while the context lasts, or until ``wait``."""

    def __init__(self, *options: str, forever: bool = True) -> None:
        self._command = ["fio", "--name=job", "--output-format=json", *DIRECT, *options]
        if forever:
            self._command += FOREVER

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(
            self._command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self._wait_until_running()
        return self

    def _wait_until_running(self) -> None:
        """Until it listens to SIGINT: one that comes sooner would end it without a report."""
        status = Path(f"/proc/{self.process.pid}/status")
        while self.process.poll() is None:
            (caught,) = re.findall(r"SigCgt:\s*([0-9a-f]+)", status.read_text())
            if int(caught, 16) & 1 << (signal.SIGINT - 1):
                return
            time.sleep(0.02)

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(60)

    def finish(self) -> dict[str, Any]:
        """Ends it as Ctrl-C does; what it measured.

        Asked more than once: a SIGINT that comes before its jobs are started ends none.
        """
        for _ in range(11):
            self.process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self.wait(5)
        return self.wait(5)

    def wait(self, timeout: float) -> dict[str, Any]:
        """Waits for its end; the job's part of its report, with ``error`` as an errno value."""
        text, _ = self.process.communicate(timeout=timeout)
        start = text.find("\n{") + 1 if not text.startswith("{") else 0
        report, _ = json.JSONDecoder().raw_decode(text[start:])
        job = report["jobs"][0]
        job["said"] = text[:start]
        return job


def fio(*options: str, timeout: float = 300) -> dict[str, Any]:
    """One job to its end."""
    with Fio(*options, forever=False) as job:
        return job.wait(timeout)
