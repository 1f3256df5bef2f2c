"""``nbd REFERENCE --on-timeout``: the registry goes away while the disk is read, and comes back."""

from __future__ import annotations

import hashlib
import threading
import time

import pytest

from tests.nbd.client import Client, PeerError
from tests.nbd.serving import NbdProcess
from tests.registry.docker_registry import DockerRegistry
from tests.registry.images import push_image
from tests.remote.image_store import make_stack

LAYER_BYTES = 4 << 20
PIECE = 64 << 10
COLD = 2 << 20  # in the middle of the only layer: opening does not read it
TIMEOUT_S = 1


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    return make_stack(tmp_path_factory.mktemp("stack"), 1, LAYER_BYTES)


@pytest.fixture
def registry(tmp_path, client_of, stack, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with DockerRegistry(tmp_path / "registry") as running:
        push_image(client_of(running.host), "t/x", stack[0])
        yield running


@pytest.fixture
def right(stack) -> str:
    return hashlib.sha256(stack[1][COLD : COLD + PIECE]).hexdigest()


def test_by_default_a_read_fails_in_time_and_later_ones_succeed_again(registry, right):
    with (
        NbdProcess(f"{registry.host}/t/x", "--timeout", str(TIMEOUT_S)) as server,
        Client(server.uri) as client,
    ):
        registry.stop()
        with pytest.raises(PeerError):
            client.read(COLD, PIECE)
        registry.start()
        assert client.read(COLD, PIECE) == right


@pytest.mark.parametrize("policy", ["retry", "freeze"])
def test_a_read_that_may_wait_sees_only_a_pause(registry, right, policy):
    with (
        NbdProcess(f"{registry.host}/t/x", "--timeout", str(TIMEOUT_S), "--on-timeout", policy) as server,
        Client(server.uri) as client,
    ):
        registry.stop()
        got: list[str] = []
        reader = threading.Thread(target=lambda: got.append(client.read(COLD, PIECE)))
        reader.start()
        time.sleep(3 * TIMEOUT_S)
        assert reader.is_alive(), "it did not wait"
        registry.start()
        reader.join(60)
        assert got == [right]
