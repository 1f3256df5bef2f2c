"""Debian's docker-registry on a free port of 127.0.0.1, with a folder of its own.

    with DockerRegistry(folder) as registry: ...                       # anonymous
    with DockerRegistry(folder, users={"anna": "secret"}) as registry: ...  # htpasswd
    with DockerRegistry(folder, token=token_service) as registry: ...   # JWT

``stop`` and ``start`` keep the port, so that a test can take a registry away and give it
back.  Its access log is ``registry.log``.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import bcrypt
import pytest

from tests.registry.free_port import end, free_port, wait_for_port
from tests.registry.token_service import TokenService


class DockerRegistry:
    """``host`` is what a reference begins with."""

    def __init__(
        self, folder: Path, users: dict[str, str] | None = None, token: TokenService | None = None
    ) -> None:
        self._program = shutil.which("docker-registry")
        if self._program is None:
            pytest.skip("docker-registry is not installed")
        self.folder = folder
        self.port = free_port()
        self.host = f"127.0.0.1:{self.port}"
        self.log = folder / "registry.log"
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        # YAML takes JSON.
        self._config = folder / "config.yml"
        self._config.write_text(json.dumps(self._settings(users, token)))
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._program), "serve", str(self._config)], stdout=log, stderr=log, cwd=self.folder
            )
        wait_for_port(self.port, self._process)

    def stop(self) -> None:
        if self._process is not None:
            end(self._process)
            self._process = None

    def kill(self) -> None:
        """As a machine dies: what was under way is cut off."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def nr_gets(self, repository: str, digest: str) -> int:
        """GETs of a blob that the access log tells of.

        A line is written after the answer was sent, so one more request goes out and is
        waited for: what was answered before it is in the log by then, but for a moment.
        """
        mark = f"mark-{time.monotonic_ns()}"
        with contextlib.suppress(urllib.error.HTTPError):
            urllib.request.urlopen(f"http://{self.host}/{mark}", timeout=20).close()
        while mark not in self.log.read_text():
            time.sleep(0.01)
        time.sleep(0.1)
        return self.log.read_text().count(f'"GET /v2/{repository}/blobs/{digest} HTTP')

    def __enter__(self) -> DockerRegistry:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _settings(self, users: dict[str, str] | None, token: TokenService | None) -> dict[str, Any]:
        settings: dict[str, Any] = {
            "version": "0.1",
            "log": {"level": "info", "accesslog": {"disabled": False}},
            "storage": {
                "filesystem": {"rootdirectory": str(self.folder / "store")},
                "delete": {"enabled": True},
            },
            "http": {"addr": self.host, "headers": {"X-Content-Type-Options": ["nosniff"]}},
        }
        if users is not None:
            file = self.folder / "htpasswd"
            file.write_text("".join(f"{name}:{_hash(password)}\n" for name, password in users.items()))
            settings["auth"] = {"htpasswd": {"realm": "a test", "path": str(file)}}
        if token is not None:
            settings["auth"] = {"token": token.settings()}
        return settings


def _hash(password: str) -> str:
    """As cheap as bcrypt permits: each request costs one."""
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode().replace("$2b$", "$2y$", 1)
