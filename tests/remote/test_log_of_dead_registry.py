"""An hour of registry errors logs less than 10 MB: a server whose registry has gone."""

from __future__ import annotations

import os
import threading
import time

import pytest

from tests import scrape
from tests.nbd.client import Client, PeerError
from tests.nbd.serving import NbdProcess
from tests.registry.docker_registry import DockerRegistry
from tests.registry.free_port import free_port
from tests.registry.images import push_image
from tests.remote.image_store import make_stack

MIB = 1 << 20
AN_HOUR_S = 3600
LIMIT = 10_000_000  # bytes an hour
SECONDS = 600 if os.environ.get("OBD_SOAK") == "1" else 8
READERS = 4


def read_what_does_not_come(uri: str, reader: int, until: float, failed: list[int]) -> None:
    """Each read waits a tenth of a second for a chunk that never comes, in another place each time."""
    with Client(uri) as client:
        number = 0
        while time.monotonic() < until:
            with pytest.raises(PeerError):
                client.read((1 + (number * READERS + reader) % 30) * MIB, 4096)
            number += 1
        failed.append(number)


@pytest.mark.timeout(SECONDS + 300)
@pytest.mark.parametrize("log_options", [[], ["-v"]], ids=["as-usual", "verbose"])
def test_an_hour_of_registry_errors_logs_less_than_ten_megabytes(
    client_of, tmp_path, monkeypatch, log_options
):
    layers, _ = make_stack(tmp_path, 1, 32 * MIB)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    port, failed = free_port(), []
    with DockerRegistry(tmp_path / "registry") as registry:
        push_image(client_of(registry.host), "t/disk", layers)
        arguments = ["--timeout", "0.1", "--metrics", str(port), *log_options]
        with NbdProcess(f"{registry.host}/t/disk:latest", *arguments) as process:
            registry.stop()
            until = time.monotonic() + SECONDS
            readers = [
                threading.Thread(target=read_what_does_not_come, args=(process.uri, i, until, failed))
                for i in range(READERS)
            ]
            for thread in readers:
                thread.start()
            for thread in readers:
                thread.join()
            found = scrape.scrape(f"http://127.0.0.1:{port}/metrics")
            _, _, stderr = process.stop()
    written = len(stderr.encode())
    an_hour = written / SECONDS * AN_HOUR_S
    print(f"{sum(failed)} reads failed in {SECONDS} s: {written} bytes of log, {an_hour:.0f} an hour")
    assert len(failed) == READERS, "a reader ended with an error of its own"
    assert found.sum("command_errors_total") >= sum(failed) > 10 * SECONDS
    assert found.sum("log_suppressed_lines_total") > 0, "the limit was not reached: this shows nothing"
    assert "registry" in stderr or "127.0.0.1" in stderr, "the first errors are there, in full"
    assert an_hour < LIMIT
