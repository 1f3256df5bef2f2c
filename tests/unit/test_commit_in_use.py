"""``image commit NAME``: the upper of a disk that goes on being written, through the control socket."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from oracle.reader import read_layer, stack

from tcmu_overlaybd.config.service_config import DeviceConfig
from tcmu_overlaybd.daemon import control
from tcmu_overlaybd.daemon.client import Client
from tcmu_overlaybd.daemon.commit import layer_options
from tcmu_overlaybd.daemon.messages import CommitRequest, Committed
from tcmu_overlaybd.daemon.served_image import ServedImage
from tcmu_overlaybd.errors import FailedError, MissingError, UsageError
from tcmu_overlaybd.image.layer_writer import LayerOptions
from tcmu_overlaybd.image.open import open_image
from tcmu_overlaybd.native.core import Core

SIZE = 64 << 20
MIB = 1 << 20
UUID = "00000001-1111-2222-3333-000000000001"
TIMEOUT = 5000


@pytest.fixture
def core():
    with Core.open() as core:
        yield core


@pytest.fixture
def served(core, tmp_path):
    opened = open_image(None, writable=True, upper_dir=tmp_path / "up", size=SIZE)
    served = ServedImage(opened, core, "disk0", DeviceConfig())
    yield served
    served.close(10)


class OneDevice:
    """The part of the Api that a commit needs, on a real image."""

    def __init__(self, served: ServedImage) -> None:
        self.served = served

    def commit(self, name: str, request: CommitRequest) -> Committed:
        if name != "disk0":
            raise MissingError(f"{name}: there is no such device")
        written = self.served.commit(Path(request.output), layer_options(request))
        return Committed(str(written.path), written.digest, written.size, written.nr_segments)


@pytest.fixture
def socket_path(served, tmp_path):
    path = tmp_path / "control.socket"
    server = control.ControlServer(control.listen(path), OneDevice(served))
    server.start()
    yield path
    server.stop()


def test_commit_by_name_gives_what_was_written_and_the_disk_goes_on(served, socket_path, tmp_path, program):
    image = served.opened.image
    image.write(b"one " * 1024, MIB, TIMEOUT)
    image.discard(4096, 0, TIMEOUT)
    options = [
        "--zfile",
        "zstd",
        "--tar",
        "--uuid",
        "00000001-1111-2222-3333-000000000001",
        "--message",
        "hi",
    ]
    env = {"TCMU_OVERLAYBD_SOCKET": str(socket_path)}
    done = program("image", "commit", "disk0", "-o", "layer", *options, env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[1] == str((tmp_path / "layer").stat().st_size)
    assert served.upper_numbers()["unflushed_bytes"] == 0  # what a layer has is not lost by its upper
    layer = read_layer(tmp_path / "layer")
    assert (layer.uuid, layer.tag) == (UUID, b"hi")
    assert stack([layer]).read(MIB, 4096) == b"one " * 1024
    image.write(b"two " * 1024, MIB, TIMEOUT)
    assert image.read(4096, MIB, TIMEOUT) == b"two " * 1024


def test_commit_of_a_stack_holds_its_upper_alone(core, vectors, tmp_path):
    base = vectors / "stack3-raw.config.v1.json"
    served = ServedImage(
        open_image(base, writable=True, upper_dir=tmp_path / "up"), core, "x", DeviceConfig()
    )
    served.opened.image.write(b"up" * 256, 8192, TIMEOUT)
    served.commit(tmp_path / "layer", LayerOptions())
    served.close(10)
    layer = read_layer(tmp_path / "layer")
    assert [(s.offset, s.length) for s in layer.segments] == [(16, 1)]
    assert layer.parent == "00000003-1111-2222-3333-000000000003"


def test_commit_while_it_is_written_is_one_state_of_each_block(served, tmp_path):
    """A writer goes round; each block of the layer is one of the values it had."""
    stop = threading.Event()
    block = 65536

    def write():
        for turn in range(1, 10_000):
            if stop.is_set():
                return
            served.opened.image.write(bytes([turn % 250 + 1]) * block, turn % 16 * block, TIMEOUT)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(3):
            served.commit(tmp_path / f"layer{number}", LayerOptions())
    finally:
        stop.set()
        writer.join()
    for number in range(3):
        image = stack([read_layer(tmp_path / f"layer{number}")])
        for at in range(0, 16 * block, block):
            assert len(set(image.read(at, block))) == 1


def test_a_disk_that_is_detached_ends_its_commit_and_leaves_no_file(core, tmp_path):
    opened = open_image(None, writable=True, upper_dir=tmp_path / "up", size=SIZE)
    served = ServedImage(opened, core, "disk0", DeviceConfig())
    for at in range(0, SIZE, MIB):
        opened.image.write(os.urandom(MIB), at, TIMEOUT)
    failures = []

    def commit():
        try:
            for number in range(1000):
                served.commit(tmp_path / "out" / f"layer{number}", LayerOptions(nr_threads=1))
        except FailedError as error:
            failures.append(str(error))

    (tmp_path / "out").mkdir()
    thread = threading.Thread(target=commit)
    thread.start()
    served.close(10)
    thread.join(30)
    assert failures == ["disk0: it is being detached, so it is not committed"]
    sizes = {path.stat().st_size for path in (tmp_path / "out").iterdir()}
    assert len(sizes) <= 1  # only whole ones, if any


def test_a_read_only_disk_has_nothing_to_commit(core, vectors, tmp_path):
    served = ServedImage(open_image(vectors / "stack/l1.lsmt"), core, "x", DeviceConfig())
    with pytest.raises(UsageError, match="not writable"):
        served.commit(tmp_path / "layer", LayerOptions())
    served.close(10)
    assert not (tmp_path / "layer").exists()


def test_an_unknown_name_is_3(socket_path, tmp_path, fails):
    env = {"TCMU_OVERLAYBD_SOCKET": str(socket_path)}
    assert "no such device" in fails(3, "image", "commit", "disk7", "-o", tmp_path / "layer", env=env)


def test_without_a_daemon_a_name_is_4(tmp_path, fails):
    env = {"TCMU_OVERLAYBD_SOCKET": str(tmp_path / "nobody")}
    assert "no daemon runs" in fails(4, "image", "commit", "disk0", "-o", tmp_path / "layer", env=env)


def test_an_existing_output_stays(served, socket_path, tmp_path, fails):
    (tmp_path / "layer").write_text("precious")
    env = {"TCMU_OVERLAYBD_SOCKET": str(socket_path)}
    assert "exists already" in fails(1, "image", "commit", "disk0", "-o", tmp_path / "layer", env=env)
    assert (tmp_path / "layer").read_text() == "precious"


def test_the_daemon_takes_no_relative_path(socket_path):
    with pytest.raises(UsageError, match="not absolute"):
        Client(socket_path).commit("disk0", CommitRequest(output="layer"))
