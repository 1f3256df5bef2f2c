"""Metrics of an NBD server: their sums are what the test did, and what the registry's log says."""

from __future__ import annotations

import re
import socket
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


@pytest.fixture
def registry(tmp_path):
    with DockerRegistry(tmp_path / "registry") as running:
        yield running


@pytest.fixture
def server(registry, client_of, tmp_path, monkeypatch):
    """A writable disk over one compressed layer; its cache is empty."""
    layers, _ = make_stack(tmp_path, 1, 8 * MIB)
    push_image(client_of(registry.host), "t/disk", layers)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    port = free_port()
    arguments = ["--writable", "--upper", tmp_path / "upper", "--metrics", str(port), "--timeout", "2"]
    with NbdProcess(f"{registry.host}/t/disk:latest", *arguments) as process:
        yield process, f"http://127.0.0.1:{port}/metrics"


def settled(url: str) -> scrape.Scrape:
    """When nothing is in flight any more, read-ahead included: two scrapes with the same bytes."""
    before = scrape.scrape(url)
    for _ in range(200):
        time.sleep(0.1)
        found = scrape.scrape(url)
        same = all(
            found.sum(name) == before.sum(name)
            for name in ("registry_fetched_bytes_total", "registry_requests_total")
        )
        if same and found.sum("commands_in_flight") == 0:
            return found
        before = found
    pytest.fail("what is in flight does not end")


def blob_answers(registry) -> list[int]:
    """Bytes of each answer to a ranged GET of a blob, as the registry's log has them."""
    registry.nr_gets("t/disk", "sync")  # all lines are there
    pattern = r'"GET /v2/t/disk/blobs/sha256:[0-9a-f]+ HTTP/1.1" 206 (\d+)'
    return [int(length) for length in re.findall(pattern, registry.log.read_text())]


def test_sums_are_those_of_the_commands_and_of_the_registry_s_log(server, registry):
    process, url = server
    with Client(process.uri) as client:
        client.read(0, MIB)  # from the registry
        before = settled(url)
        client.read(0, MIB)  # from the cache
        for number in range(7):
            client.write(number * 65536, 4096, number + 1)
        client.write(0, 512, 9, "fua")
        client.trim(65536, 4096)
        for _ in range(3):
            client.flush()
        client.read(0, 4096)
        with pytest.raises(PeerError):
            client.read(1 << 50, 4096)  # never becomes a command
        found = settled(url)
    done = {
        kind: found.sum("command_duration_seconds_count", command=kind)
        - before.sum("command_duration_seconds_count", command=kind)
        for kind in ("read", "write", "discard", "flush")
    }
    assert done["write"] == 8
    assert done["discard"] == 1
    assert done["flush"] == 3
    assert found.sum("command_bytes_total", command="write") == 7 * 4096 + 512
    assert found.sum("command_bytes_total", command="discard") == 4096
    assert found.sum("command_bytes_total", command="read") == 2 * MIB + 4096
    assert found.sum("read_bytes_total") == 2 * MIB + 4096
    assert found.sum("read_bytes_total", source="upper") == 4096
    assert before.sum("read_bytes_total", source="registry") > 0
    assert found.sum("read_bytes_total", source="cache") >= MIB
    assert found.sum("upper_flush_requests_total") >= 4
    answers = blob_answers(registry)
    assert found.sum("registry_requests_total") == len(answers)
    assert found.sum("registry_fetched_bytes_total") == sum(answers)
    assert found.value("registry_requests_total", host=registry.host) == len(answers)
    assert found.value("cache_misses_total") > 0
    assert found.value("cache_hits_total") > before.value("cache_hits_total")
    assert found.sum("command_errors_total") == 0


def test_a_registry_that_is_gone_is_seen_in_errors_and_in_the_class_that_waited(server, registry):
    process, url = server
    registry.stop()
    with Client(process.uri) as client, pytest.raises(PeerError):
        client.read(6 * MIB, MIB)
    found = settled(url)
    failed = sum(found.sum("command_errors_total", error=error) for error in ("timeout", "unreachable"))
    assert failed == found.sum("command_errors_total") > 0
    assert found.sum("command_duration_seconds_count", source="registry") >= failed
    assert found.sum("command_duration_seconds_sum", source="registry") > 1
    assert found.sum("registry_failed_requests_total") > 0
    assert found.sum("registry_missing_chunks_total") > 0
    assert found.sum("log_lines_total", level="error") > 0


def test_a_server_of_local_files_has_nothing_of_what_it_does_not_use(vectors):
    port = free_port()
    with NbdProcess(vectors / "commit-lz4-4k-zfile.config.v1.json", "--metrics", str(port)) as process:
        with Client(process.uri) as client:
            client.read(0, 4096)
        found = scrape.scrape(f"http://127.0.0.1:{port}/metrics")
    absent = ("cache", "registry", "upper", "ring", "download")
    assert not [
        name for name, _ in found.values if name.startswith(tuple(f"tcmu_overlaybd_{a}" for a in absent))
    ]
    assert found.value("devices", state="ready") == 1
    assert found.sum("read_bytes_total", device="nbd") == found.sum("command_bytes_total", command="read")
    assert found.values["process_open_fds", frozenset()] > 0


def test_a_port_that_is_taken_is_a_sentence(vectors, program):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = program(
            "nbd", vectors / "commit-lz4-4k-zfile.config.v1.json", "--metrics", str(port), "--run", "true"
        )
    assert done.returncode == 1
    assert f"127.0.0.1, port {port}: cannot serve metrics there: Address already in use" in done.stderr
