"""Registries for the tests of every folder: one process of each kind for a whole run.

Whoever stops one, or makes it fail, starts one of its own (docker_registry.DockerRegistry).
Repositories are shared: a test pushes into one named after itself.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tcmu_overlaybd.registry.client import RegistryClient
from tcmu_overlaybd.registry.credentials import Credential, FixedCredential
from tcmu_overlaybd.registry.deadline import Deadline
from tcmu_overlaybd.registry.retry import RetryPolicy
from tcmu_overlaybd.registry.transport import Transport
from tests.registry.certificates import Authority
from tests.registry.docker_registry import DockerRegistry
from tests.registry.scripted_server import ScriptedServer
from tests.registry.token_service import TokenService

USERS = {"anna": "pass word: with #signs"}
ANNA = Credential("anna", USERS["anna"])

# The pauses of production would only make the tests slow.
QUICK = RetryPolicy(attempts=4, first_pause_s=0.01, max_pause_s=0.05)


@pytest.fixture(scope="session")
def open_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    with DockerRegistry(tmp_path_factory.mktemp("open-registry")) as registry:
        yield registry


@pytest.fixture(scope="session")
def password_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    """Basic authentication; USERS may enter."""
    with DockerRegistry(tmp_path_factory.mktemp("password-registry"), users=USERS) as registry:
        yield registry


@pytest.fixture(scope="session")
def token_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TokenService]:
    with TokenService(tmp_path_factory.mktemp("token-service"), USERS) as service:
        yield service


@pytest.fixture(scope="session")
def token_registry(
    tmp_path_factory: pytest.TempPathFactory, token_service: TokenService
) -> Iterator[DockerRegistry]:
    """Wants tokens of token_service."""
    with DockerRegistry(tmp_path_factory.mktemp("token-registry"), token=token_service) as registry:
        yield registry


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as running:
        yield running


@pytest.fixture
def deadline() -> Deadline:
    return Deadline.after(30)


class Clients:
    """Makes clients, and closes them at the end of the test."""

    def __init__(self) -> None:
        self._made: list[RegistryClient] = []

    def __call__(
        self,
        host: str,
        credential: Credential | None = None,
        transport: Transport | None = None,
        **more: object,
    ) -> RegistryClient:
        source = None if credential is None else FixedCredential(credential)
        settings = {"policy": QUICK, **more}
        client = RegistryClient(host, transport or Transport(proxy=""), source, **settings)  # type: ignore[arg-type]
        self._made.append(client)
        return client

    def close(self) -> None:
        for client in self._made:
            client.close()


@pytest.fixture
def client_of() -> Iterator[Clients]:
    clients = Clients()
    yield clients
    clients.close()


@pytest.fixture
def repository(request: pytest.FixtureRequest) -> str:
    """A name that no other test uses."""
    name = "".join(char if char.isalnum() else "-" for char in request.node.name.lower())
    return f"t/{name}".strip("-").replace("--", "-").rstrip("-")
