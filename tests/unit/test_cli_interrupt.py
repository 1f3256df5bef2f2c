"""Ctrl-C while a command waits for data that never comes."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tcmu_overlaybd.errors import FailedError
from tcmu_overlaybd.image.importing import import_raw
from tcmu_overlaybd.image.layer_writer import LayerOptions
from tcmu_overlaybd.native import process
from tcmu_overlaybd.native.image import Image

# Far less than the 60 s that a read waits, far more than an end takes.
LIMIT_S = 15


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    raw, path = tmp_path / "raw", tmp_path / "dead.layer"
    raw.write_bytes(random.Random(1).randbytes(1 << 20))
    import_raw(raw, path, LayerOptions())
    raw.unlink()
    return path


def wait_until_it_waits(pid: int) -> None:
    """It sleeps, and has used no processor time for a while."""
    idle, before = 0, ""
    for _ in range(3000):
        state, *numbers = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        times = " ".join(numbers[10:12])
        idle = idle + 1 if state == "S" and times == before else 0
        before = times
        if idle == 50:
            return
        time.sleep(0.01)
    pytest.fail("it does not wait")


@pytest.mark.parametrize(
    "command", [["export", "-o", "out"], ["commit", "-o", "out"], ["merge", "-o", "out"], ["verify"]]
)
def test_ctrl_c_ends_a_command_whose_data_never_comes_and_leaves_nothing(command, layer, tmp_path):
    environment = {**os.environ, "TCMU_OVERLAYBD_TEST_SLOW": "*/dead.layer=65536:never"}
    arguments = [sys.executable, "-m", "tcmu_overlaybd", "image", command[0], str(layer), *command[1:]]
    with subprocess.Popen(
        arguments, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as waiting:
        try:
            wait_until_it_waits(waiting.pid)
            begun = time.monotonic()
            waiting.send_signal(signal.SIGINT)
            code, said = waiting.wait(LIMIT_S), waiting.stderr.read()
            assert time.monotonic() - begun < LIMIT_S
            assert (code, b"Traceback" in said) == (130, False), said
        finally:
            waiting.kill()
    assert [path.name for path in tmp_path.iterdir()] == ["dead.layer"]


@pytest.fixture
def silent_registry() -> Iterator[str]:
    """Takes connections, and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", [["nbd"], ["image", "info"]])
def test_a_signal_ends_a_command_that_waits_for_a_registry(command, number, silent_registry, tmp_path):
    arguments = [sys.executable, "-m", "tcmu_overlaybd", *command, f"{silent_registry}/some/image:tag"]
    environment = {**os.environ, "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    with subprocess.Popen(arguments, env=environment, stderr=subprocess.PIPE) as waiting:
        try:
            wait_until_it_waits(waiting.pid)
            waiting.send_signal(number)
            code, said = waiting.wait(LIMIT_S), waiting.stderr.read()
            assert code in (130, -signal.SIGTERM), said
            assert b"Traceback" not in said
        finally:
            waiting.kill()
    assert list(tmp_path.glob("tcmu-overlaybd-nbd-*")) == []


def test_a_read_that_comes_while_waits_are_interrupted_ends_at_once(late_image: Image):
    process.interrupt_waits()
    try:
        with pytest.raises(FailedError, match="late: interrupted while waiting for data"):
            late_image.read(512, 0, 60_000)
    finally:
        process.interrupt_waits(False)
    with pytest.raises(TimeoutError):
        late_image.read(512, 0, 10)
