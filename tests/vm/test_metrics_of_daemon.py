"""The daemon's metrics and ``status --cache``, with a disk of the kernel over a registry."""

from __future__ import annotations

import json
import os
import re
import socket
from http.client import HTTPConnection
from mmap import mmap
from pathlib import Path

import pytest
from vm_daemon import VmDaemon, wait_until
from vm_registry import push_file_system, write_password

from tests import scrape
from tests.registry.docker_registry import DockerRegistry
from tests.registry.fixtures import ANNA, USERS

MIB = 1 << 20
PORT = 9863


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    folder = tmp_path_factory.mktemp("image")
    with DockerRegistry(folder / "registry", users=USERS) as registry:
        yield push_file_system(registry, folder)


@pytest.fixture
def daemon(make_daemon, image, tmp_path):
    config = {"cache": {"freeFloor": 0}, "exporterConfig": {"enable": True, "port": PORT}}
    environment = write_password(tmp_path, image.registry.host)
    return make_daemon(config=config, **environment)


def over_socket(daemon: VmDaemon, path: str) -> str:
    connection = HTTPConnection("localhost", timeout=60)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(daemon.client.path))
    connection.request("GET", path)
    return connection.getresponse().read().decode()


def read_disk(disk: str, offset: int, length: int) -> None:
    """Past the page cache, in pieces of 64 KiB: as many commands."""
    fd = os.open(disk, os.O_RDONLY | os.O_DIRECT)
    with mmap(-1, 65536) as buffer:
        for at in range(offset, offset + length, 65536):
            assert os.preadv(fd, [buffer], at) == 65536
    os.close(fd)


def write_disk(disk: str, offset: int, number: int) -> None:
    """number writes of 4 KiB past the page cache, and one flush."""
    fd = os.open(disk, os.O_RDWR | os.O_DIRECT)
    with mmap(-1, 4096) as buffer:
        for i in range(number):
            assert os.pwritev(fd, [buffer], offset + i * 4096) == 4096
    os.fsync(fd)
    os.close(fd)


def settled(daemon: VmDaemon) -> scrape.Scrape:
    """When read-ahead has come, too."""
    seen: list[float] = []

    def is_quiet() -> bool:
        found = scrape.check_text(over_socket(daemon, "/v1/metrics"))
        seen.append(found.sum("registry_fetched_bytes_total"))
        return len(seen) > 3 and seen[-1] == seen[-3] and found.sum("commands_in_flight") == 0

    wait_until(is_quiet)
    return scrape.check_text(over_socket(daemon, "/metrics"))


def in_registry_log(image) -> list[int]:
    image.registry.nr_gets("vm/image", "sync")
    pattern = r'"GET /v2/vm/image/blobs/sha256:[0-9a-f]+ HTTP/1.1" 206 (\d+)'
    return [int(length) for length in re.findall(pattern, image.registry.log.read_text())]


def test_sums_are_what_was_done_to_the_disk_and_what_the_registry_says(daemon, image):
    nr_before = len(in_registry_log(image))
    empty = scrape.scrape(f"http://127.0.0.1:{PORT}/metrics")
    assert empty.sum("devices") == 0
    disk = daemon.attach(image.reference, name="d", writable=True).disk
    before = settled(daemon)
    read_disk(disk, 16 * MIB, 2 * MIB)
    write_disk(disk, 48 * MIB, 11)
    found = settled(daemon)

    def grown(name: str, **labels: str) -> float:
        return found.sum(name, device="d", **labels) - before.sum(name, device="d", **labels)

    assert grown("command_duration_seconds_count", command="read") == 32
    assert grown("command_bytes_total", command="read") == 2 * MIB
    assert grown("read_bytes_total") == 2 * MIB
    assert grown("command_duration_seconds_count", command="write") == 11
    assert grown("command_bytes_total", command="write") == 11 * 4096
    assert grown("command_duration_seconds_count", command="flush") >= 1
    assert grown("upper_flush_requests_total") >= 1
    assert grown("ring_commands_total") >= 44
    assert found.sum("command_errors_total") == 0
    answers = in_registry_log(image)[nr_before:]
    assert found.sum("registry_requests_total") == len(answers)
    assert found.sum("registry_fetched_bytes_total") == sum(answers)
    check_status(daemon, found)


def check_status(daemon: VmDaemon, found: scrape.Scrape) -> None:
    """status says of the same numbers the same."""
    cache = json.loads(daemon.cli("status", "--cache", "--json").stdout)
    assert cache["is_open"] is True
    for key in ("limit_bytes", "used_bytes", "blobs"):
        assert cache[key] == found.value(f"cache_{key}"), key
    assert cache["hits"] == found.value("cache_hits_total")
    assert cache["misses"] == found.value("cache_misses_total") > 0
    text = daemon.cli("status", "--cache").stdout
    assert f"{cache['used_bytes']}" in text
    row = daemon.cli("list").stdout.splitlines()[1].split()
    assert 0 < int(row[5].removesuffix("%")) < 100
    device = json.loads(daemon.cli("status", "d", "--json").stdout)
    assert device["bytes_written"] == found.value("command_bytes_total", device="d", command="write")
    assert device["bytes_fetched"] == found.sum("registry_fetched_bytes_total")


def test_cache_before_any_registry_and_a_secret_nowhere(daemon, image):
    cache = json.loads(daemon.cli("status", "--cache", "--json").stdout)
    assert cache["is_open"] is False
    assert Path(cache["folder"]).is_absolute()
    daemon.attach(image.reference, name="d")
    text = over_socket(daemon, "/metrics")
    assert ANNA.password not in text
    assert "vm/image" not in text, "an image's name is no label"
    daemon.detach("d")
    assert scrape.check_text(over_socket(daemon, "/metrics")).sum("devices") == 0


def test_a_port_that_is_taken_keeps_no_disk_from_being_served(make_daemon, plain_layer):
    with socket.create_server(("127.0.0.1", PORT)):
        daemon = make_daemon(config={"exporterConfig": {"enable": True, "port": PORT}})
        assert daemon.attach(plain_layer, name="d").disk
    assert f"port {PORT}: cannot serve metrics there: Address already in use" in daemon.log()
    assert scrape.check_text(over_socket(daemon, "/metrics")).value("devices", state="ready") == 1
