"""Debian's docker-registry on a free loopback port, with a password, and what it saw.

Its access log is the witness of the figures: it knows what was sent, whatever our own
counters say.
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import bcrypt

from demo.processes import CommandError, overlaybd, running, tail

USER = "demo"
REPOSITORY = "demo/files"
READY_SECONDS = 20.0
ANSWERED = re.compile(r'"([A-Z]+) (\S+) HTTP/[\d.]+" \d{3} (\d+) ')


@dataclass(frozen=True)
class Traffic:
    """What the registry answered: requests of any kind, GETs of blobs and the bytes of those."""

    requests: int
    blob_requests: int
    blob_bytes: int

    def __sub__(self, earlier: Self) -> Traffic:
        return Traffic(
            self.requests - earlier.requests,
            self.blob_requests - earlier.blob_requests,
            self.blob_bytes - earlier.blob_bytes,
        )


class Registry:
    """A running registry; ``host`` is what a reference begins with."""

    def __init__(self, port: int, password: str, log: Path) -> None:
        self.host = f"127.0.0.1:{port}"
        self._password = password
        self._log = log

    def reference(self, tag: str) -> str:
        return f"{self.host}/{REPOSITORY}:{tag}"

    def log_in(self) -> None:
        """The password goes through stdin: a command line can be read by everybody."""
        overlaybd("login", self.host, "-u", USER, "--password-stdin", stdin=self._password)

    def traffic(self) -> Traffic:
        """Of all requests that have been answered by now.

        A line is written after the answer was sent; so one more request goes out, and what
        was answered before it is counted when that one is in the log.
        """
        mark = f"/mark-{time.monotonic_ns()}"
        with contextlib.suppress(urllib.error.HTTPError):
            urllib.request.urlopen(f"http://{self.host}{mark}", timeout=READY_SECONDS).close()
        deadline = time.monotonic() + READY_SECONDS
        while mark not in (text := self._log.read_text(errors="replace")):
            if time.monotonic() > deadline:
                raise CommandError(f"the registry's log does not show the request {mark}:\n{tail(self._log)}")
            time.sleep(0.01)
        return count(text)


def count(log: str) -> Traffic:
    """Sums an access log (Combined Log Format: the size is that of the body); marks do not count."""
    requests, sizes = 0, []
    for method, path, size in ANSWERED.findall(log):
        if not path.startswith("/v2/"):
            continue
        requests += 1
        if method == "GET" and "/blobs/" in path:
            sizes.append(int(size))
    return Traffic(requests, len(sizes), sum(sizes))


@contextlib.contextmanager
def running_registry(folder: Path) -> Iterator[Registry]:
    """A registry that keeps its blobs below folder; CommandError when it does not start."""
    folder.mkdir(parents=True)
    port, password, log = free_port(), secrets.token_urlsafe(12), folder / "log"
    (folder / "htpasswd").write_text(f"{USER}:{hashed(password)}\n")
    configuration = folder / "config.yml"  # YAML takes JSON
    configuration.write_text(json.dumps(settings(folder, port)))
    with (
        log.open("wb") as output,
        running("docker-registry", "serve", configuration, output=output) as process,
    ):
        wait_until_listening(port, process, log)
        yield Registry(port, password, log)


def settings(folder: Path, port: int) -> dict[str, Any]:
    return {
        "version": "0.1",
        "log": {"level": "error", "accesslog": {"disabled": False}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "store")}},
        "auth": {"htpasswd": {"realm": "the demo", "path": str(folder / "htpasswd")}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }


def hashed(password: str) -> str:
    """As cheap as bcrypt permits, for the registry pays it with every request."""
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode().replace("$2b$", "$2y$", 1)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_listening(port: int, process: subprocess.Popen[str], log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise CommandError(f"docker-registry does not start:\n{tail(log)}")
