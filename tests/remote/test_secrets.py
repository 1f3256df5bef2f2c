"""No password, no token and no signed URL is to be read anywhere, however much is logged and goes wrong."""

from __future__ import annotations

import random
import shutil
import subprocess

import pytest

from tests.chaos.faulty_proxy import FaultyProxy
from tests.nbd.serving import NbdProcess
from tests.registry.docker_registry import DockerRegistry
from tests.registry.fixtures import ANNA, USERS
from tests.registry.http_faults import Fault, Status, redirect
from tests.registry.images import push_image
from tests.registry.known_secrets import Secrets
from tests.registry.scripted_server import ScriptedServer
from tests.registry.token_service import TokenService
from tests.remote.image_store import make_stack, write_password

SIGNATURE = "5ecre7-0f-a-st0re"


class SigningProxy(FaultyProxy):
    """Half of its answers about a blob lead to a signed URL at another port, as a cloud's store has them."""

    store: ScriptedServer

    def take_fault(self, path: str) -> Fault | None:
        fault = super().take_fault(path)
        if fault is None and "/blobs/sha256:" in path and self._rng.random() < 0.5:
            return redirect(f"{self.store.url}{path}?signature={SIGNATURE}")
        return fault


@pytest.fixture
def secrets():
    found = Secrets("anna", USERS["anna"])
    found.add(SIGNATURE)
    return found


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    return make_stack(tmp_path_factory.mktemp("stack"), 2, 3 << 20)


def test_nbd_tells_nobody(tmp_path, client_of, stack, secrets, monkeypatch):
    """At -vv, through faults, expired tokens and redirects; then a wrong password, and no registry."""
    home = tmp_path / "home"
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    with (
        TokenService(tmp_path / "tokens", dict(USERS)) as tokens,
        DockerRegistry(tmp_path / "registry", token=tokens) as registry,
        SigningProxy(registry.host, random.Random(3)) as proxy,
        ScriptedServer() as proxy.store,
        secrets.watched_command_lines(),
    ):
        push_image(client_of(proxy.host, ANNA), "t/x", stack[0])
        for layer in stack[0]:
            path = f"/v2/t/x/blobs/{layer.digest}"
            proxy.store.put(path, layer.data)
            proxy.store.fault(path, Status(403, {}, SIGNATURE.encode()), Status(503))
        write_password(tmp_path / "docker", proxy.host, ANNA)
        tokens.lifetime_s = 1
        proxy.rate = 0.2
        said = read_all_and_then_in_vain(f"{proxy.host}/t/x:latest", proxy, registry, tokens, tmp_path)
        assert proxy.store.count() > 0
        assert proxy.store.headers_seen("Authorization") == []
    assert len(tokens.issued) > 1
    secrets.add(*tokens.issued)
    assert "HTTP 5" in said or "in trouble" in said, f"not much was logged: {said}"
    assert secrets.in_text(said) == []
    assert secrets.files_with_one(home) == []
    assert secrets.found == set()
    assert secrets.nr_looks > 10


def read_all_and_then_in_vain(reference: str, proxy, registry, tokens, folder) -> str:
    """What the command says, in all."""
    copy = shutil.which("nbdcopy")
    if copy is None:
        pytest.skip("nbdcopy is not installed")
    with NbdProcess(reference, "-vv", "--timeout", "30") as server:
        proxy.rate = 0.3
        subprocess.run([copy, server.uri, folder / "copy"], check=True, timeout=120)
        said = "".join(server.stop()[1:])
    tokens.users["anna"] = "another password"
    said += failure_of(reference)
    tokens.users["anna"] = USERS["anna"]
    registry.stop()
    return said + failure_of(reference)


def failure_of(reference: str) -> str:
    """What is said when it cannot be served."""
    server = NbdProcess(reference, "-vv", ready=False)
    code, stdout, stderr = server.end()
    assert code in (1, 4), stderr
    return stdout + stderr
