"""The processes of the story: the server of images, which is killed, and readers, which are not."""

from __future__ import annotations

import json
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
READY_SECONDS = 60
END_SECONDS = 60
ANSWER_SECONDS = 150  # opening an image takes at most a minute of waiting for its registry, twice


class DiedError(Exception):
    """The server was killed before it answered."""


class ImageServer:
    """``image_server.py``; its log goes on over all its lives."""

    def __init__(self, folder: Path, docker_config: Path, limit_bytes: int) -> None:
        self.folder = folder
        self.log = folder / "server.log"
        self._command = [sys.executable, "-m", "tests.chaos.image_server"]
        self._command += [str(folder), str(docker_config), str(limit_bytes)]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdout=subprocess.PIPE, stderr=log, cwd=HERE.parents[1]
            )
        assert self._process.stdout is not None
        readable, _, _ = select.select([self._process.stdout], [], [], READY_SECONDS)
        assert readable, "the server does not become ready"
        assert self._process.stdout.readline() == b"ready\n", self.log.read_text()[-2000:]

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        """As systemd does; its exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(END_SECONDS)

    def uri(self, name: str) -> str:
        return f"nbd+unix:///?socket={self.folder / name}"

    def ask(self, operation: str, *arguments: str) -> tuple[str, Any]:
        """ "done" and what it gave, or an exception's name and sentence.  Raises DiedError."""
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(ANSWER_SECONDS)
                connection.connect(str(self.folder / "control"))
                connection.sendall(json.dumps([operation, *arguments]).encode() + b"\n")
                line = connection.makefile("rb").readline()
        except (ConnectionError, FileNotFoundError) as error:  # the socket is not there yet
            raise DiedError(operation) from error
        if not line:
            raise DiedError(operation)
        kind, value = json.loads(line)
        return kind, value


class VerifyingReader:
    """``verifying_reader.py``."""

    def __init__(self, uri: str, raw: Path, seed: int, *more: str) -> None:
        command = ["/usr/bin/python3", str(HERE / "verifying_reader.py"), uri, str(raw), str(seed), *more]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def finish(self, timeout: float) -> dict[str, Any]:
        """Ends it, or waits for the end of one that reads all once; its report."""
        text, _ = self._process.communicate(timeout=timeout)
        return json.loads(text)

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()
