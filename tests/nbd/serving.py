"""A ``tcmu-overlaybd nbd`` process, as a test starts, watches and kills it."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Self

READY_SECONDS = 30
END_SECONDS = 60


class NbdProcess:
    """Runs the command in the test build; ``uri`` is set once it is ready.

    ``folder`` is its place for temporary files, ``left`` what lay there after its end.

    With ``ready=False`` the start is not waited for: it is expected to fail, or to die.
    """

    def __init__(
        self,
        *arguments: str | Path,
        environment: dict[str, str] | None = None,
        prefix: tuple[str, ...] = (),
        ready: bool = True,
    ) -> None:
        self.uri = ""
        # Short, because a socket's path is; open to whoever the prefix makes of the server.
        self.folder = Path(tempfile.mkdtemp(prefix="nbd-"))
        self.folder.chmod(0o777)
        self.left: list[Path] = []
        self._process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "tcmu_overlaybd", "nbd", *map(str, arguments)],
            env={
                **os.environ,
                "TCMU_OVERLAYBD_TEST_BUILD": "1",
                "TMPDIR": str(self.folder),
                **(environment or {}),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        if ready and not self.read_uri():
            code, _, stderr = self.end()
            raise AssertionError(f"the server is not ready: exit code {code}, {stderr}")

    def read_uri(self) -> bool:
        """Whether it gets ready."""
        assert self._process.stdout is not None
        readable, _, _ = select.select([self._process.stdout], [], [], READY_SECONDS)
        self.uri = self._process.stdout.readline().decode().strip() if readable else ""
        return self.uri.startswith("nbd+unix://")

    @property
    def socket(self) -> Path:
        return Path(self.uri.partition("?socket=")[2])

    @property
    def pid(self) -> int:
        return self._process.pid

    def signal(self, number: int) -> None:
        """Nothing happens when it has ended already."""
        self._process.send_signal(number)

    def end(self) -> tuple[int, str, str]:
        """Waits for the end; (exit code, what else it printed, stderr)."""
        try:
            stdout, stderr = self._process.communicate(timeout=END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise
        finally:
            self._clean_up()
        return self._process.returncode, stdout.decode(), stderr.decode()

    def _clean_up(self) -> None:
        if self.folder.exists():
            self.left = sorted(self.folder.iterdir())
            shutil.rmtree(self.folder)

    def stop(self) -> tuple[int, str, str]:
        """Asks it to end as a user would, if it has not ended."""
        self.signal(signal.SIGTERM)
        return self.end()

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._process.poll() is not None:
            self.end()
        elif kind is not None:
            self.kill()
        else:
            code, _, stderr = self.stop()
            assert code == 0, stderr
            assert self.left == []
