"""A daemon of the test's own, as a process: started, asked, killed, stopped."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tcmu_overlaybd.daemon.client import Client
from tcmu_overlaybd.daemon.messages import AttachRequest, DetachRequest, DeviceStatus
from tcmu_overlaybd.errors import OverlayBDError

CONFIGFS = Path("/sys/kernel/config/target")
READY_S = 60.0


class VmDaemon:
    """config: of the service, as in overlaybd.json.  verbosity: how much it logs."""

    def __init__(
        self,
        folder: Path,
        config: dict[str, object] | None = None,
        verbosity: str = "-v",
        **environment: str,
    ) -> None:
        self.folder = folder
        self._arguments = [verbosity, "serve"]
        if config is not None:
            path = folder / "overlaybd.json"
            path.write_text(json.dumps(config))
            self._arguments += ["--config", str(path)]
        self.environment = {
            **os.environ,
            "TCMU_OVERLAYBD_TEST_BUILD": "1",
            "STATE_DIRECTORY": str(folder / "state"),
            "RUNTIME_DIRECTORY": str(folder / "run"),
            **environment,
        }
        self.client = Client(folder / "run/control.socket")
        self.log_path = folder / "daemon.log"
        self.process: subprocess.Popen[bytes] | Adopted | None = None

    # -- the process

    def start(self, *prefix: str) -> None:
        """Returns when the control socket answers.  prefix goes in front of the command: strace."""
        command = [*prefix, sys.executable, "-m", "tcmu_overlaybd", *self._arguments]
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                command, stderr=log, env=self.environment, stdin=subprocess.DEVNULL
            )
        deadline = time.monotonic() + READY_S
        while not self.answers():
            assert self.process.poll() is None, f"the daemon ended:\n{self.log()}"
            assert time.monotonic() < deadline, f"the daemon does not become ready:\n{self.log()}"
            time.sleep(0.02)

    def answers(self) -> bool:
        try:
            self.client.version(5)
        except OverlayBDError:
            return False
        return True

    def kill(self) -> None:
        """kill -9, and gone."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)

    def stop(self) -> float:
        """SIGTERM; returns how long the end took, in seconds."""
        assert self.process is not None
        begun = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)
        return time.monotonic() - begun

    def upgrade(self) -> None:
        """Another process serves when it returns, and the one before is gone."""
        before = self.process
        assert before is not None
        done = self.cli("upgrade", "--json")
        assert done.returncode == 0, f"{done.stderr}\n{self.log()}"
        self.process = Adopted(json.loads(done.stdout)["pid"])
        assert before.wait(60) == 0

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    # -- what is asked of it

    def attach(self, *source: Path | str, **options: object) -> DeviceStatus:
        """source: files, or a reference as text."""
        paths = tuple(item if isinstance(item, str) else str(item.absolute()) for item in source)
        if "upper" in options:
            options["upper"] = str(options["upper"])
        return self.client.attach(AttachRequest(source=paths, **options))

    def detach(self, name: str, **options: object) -> DeviceStatus:
        return self.client.detach(name, DetachRequest(**options))

    def cli(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tcmu_overlaybd", *map(str, arguments)]
        return subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=120, env=self.environment
        )

    def start_cli(self, *arguments: object) -> subprocess.Popen[str]:
        """A command that goes on beside the test."""
        command = [sys.executable, "-m", "tcmu_overlaybd", *map(str, arguments)]
        return subprocess.Popen(
            command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def clean_up(self) -> None:
        """Detaches everything, by force, and stops; a daemon that was killed is started for it."""
        if not self.is_running:
            self.start()
        try:
            for device in self.client.devices():
                self.detach(device.name, force=True)
        finally:
            self.stop()  # or the next test would have two daemons


class Adopted:
    """A process that is no child of ours, with as much of Popen as is used here."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._fd = os.pidfd_open(pid)

    def poll(self) -> int | None:
        return 0 if self._has_ended(0) else None

    def send_signal(self, number: int) -> None:
        signal.pidfd_send_signal(self._fd, number)

    def wait(self, timeout: float) -> int:
        assert self._has_ended(timeout), f"pid {self.pid} goes on"
        return 0

    def _has_ended(self, timeout: float) -> bool:
        return bool(select.select([self._fd], [], [], timeout)[0])


def leftovers() -> list[str]:
    """What there is in configfs of backstores and ports."""
    core = [path for path in CONFIGFS.glob("core/user_*/*") if path.is_dir()]
    return sorted(str(path) for path in [*core, *CONFIGFS.glob("loopback/naa.*")])


def run(*command: object, timeout: float = 120) -> str:
    """A program that must succeed; returns what it printed."""
    result = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False, timeout=timeout
    )
    assert result.returncode == 0, f"{command}: exit code {result.returncode}\n{result.stdout}{result.stderr}"
    return result.stdout


def wait_until(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Looks again and again until condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "what was waited for did not come"
        time.sleep(0.02)
