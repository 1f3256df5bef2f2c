"""The reader of the chaos tests sees a wrong byte and a server that went away: else those prove nothing."""

from __future__ import annotations

import random
import time

import pytest

from tests.chaos.processes import VerifyingReader
from tests.nbd.serving import NbdProcess
from tests.remote.remote_disk import make_layer, random_disk

SIZE = 4 << 20


@pytest.fixture(scope="module")
def layer(tmp_path_factory):
    return make_layer(tmp_path_factory.mktemp("layer"), random_disk(SIZE, 3))


def test_a_disk_that_is_right_is_read_to_its_end(layer):
    with NbdProcess(layer) as server:
        report = VerifyingReader(server.uri, layer.with_name("raw"), 0, "--once").finish(60)
    assert (report["is_whole"], report["bytes"], report["mismatches"], report["errors"]) == (
        True,
        SIZE,
        0,
        {},
    )


def test_one_wrong_bit_is_a_mismatch(layer, tmp_path):
    wrong = bytearray(layer.with_name("raw").read_bytes())
    wrong[random.Random(1).randrange(SIZE)] ^= 4
    (tmp_path / "raw").write_bytes(wrong)
    with NbdProcess(layer) as server:
        report = VerifyingReader(server.uri, tmp_path / "raw", 0, "--once").finish(60)
    assert report["mismatches"] == 1
    assert " at " in report["first_mismatch"]


def test_a_server_that_was_killed_is_connected_to_again(layer, tmp_path):
    socket = ["--socket", str(tmp_path / "s")]
    server = NbdProcess(layer, *socket)
    reader = VerifyingReader(server.uri, layer.with_name("raw"), 7)
    time.sleep(0.5)
    server.kill()
    with NbdProcess(layer, *socket):
        time.sleep(1)
        report = reader.finish(60)
    assert report["connections"] == 2
    assert report["reads"] > 0
    assert (report["mismatches"], report["hangs"], report["errors"]) == (0, 0, {})
