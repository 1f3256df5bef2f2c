"""An image opened by its name, from every kind of registry: all of its disk, blocks and all, reads right."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tcmu_overlaybd.errors import AuthenticationError, UnavailableError
from tcmu_overlaybd.image.open import open_image
from tcmu_overlaybd.registry.credentials import Credential
from tests.registry.docker_registry import DockerRegistry
from tests.registry.fixtures import ANNA
from tests.registry.images import push_image
from tests.registry.nginx import Nginx, redirecting, tls_proxy
from tests.remote.image_store import make_stack, store_in, write_password

READ_TIMEOUT_MS = 60_000
STEP = 1 << 20


@dataclass
class Place:
    """A registry as a client sees it.  behind: where images are pushed to."""

    host: str
    behind: DockerRegistry
    needs_password: bool = True
    ca_file: Path | None = None
    nginx: list[Nginx] = field(default_factory=list)


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    """Three layers, compressed and in tar wrappers, as images have them."""
    return make_stack(tmp_path_factory.mktemp("stack"), 3, 2 << 20)


@pytest.fixture
def anonymous(open_registry):
    return Place(open_registry.host, open_registry, needs_password=False)


@pytest.fixture
def htpasswd(password_registry):
    return Place(password_registry.host, password_registry)


@pytest.fixture
def tokens(token_registry):
    return Place(token_registry.host, token_registry)


@pytest.fixture
def tls(password_registry, authority, tmp_path):
    with tls_proxy(tmp_path / "nginx", password_registry.host, authority.issue("nginx")) as nginx:
        yield Place(nginx.host, password_registry, ca_file=authority.ca_file, nginx=[nginx])


@pytest.fixture
def other_port(password_registry, tmp_path):
    with redirected(password_registry, tmp_path, absolute=True) as place:
        yield place


@pytest.fixture
def other_path(password_registry, tmp_path):
    with redirected(password_registry, tmp_path, absolute=False) as place:
        yield place


@contextmanager
def redirected(registry: DockerRegistry, folder: Path, *, absolute: bool) -> Iterator[Place]:
    with redirecting(folder / "nginx", registry.host, registry.folder / "store", absolute=absolute) as nginx:
        yield Place(nginx.host, registry, nginx=[nginx])


KINDS = ["anonymous", "htpasswd", "tokens", "tls", "other_port", "other_path"]


@pytest.fixture(params=KINDS)
def place(request) -> Place:
    return request.getfixturevalue(request.param)


def pushed(place: Place, client_of, repository: str, stack) -> str:
    """The reference of an image that is there from now on."""
    push_image(client_of(place.behind.host, ANNA), repository, stack[0])
    return f"{place.host}/{repository}:latest"


def read_whole(reference: str, folder: Path, place: Place) -> tuple[bytes, int]:
    """What its disk holds, read in pieces; and by how many requests."""
    with (
        store_in(folder, ca_file=place.ca_file) as store,
        open_image(reference, store=store) as opened,
    ):
        size = opened.image.size
        pieces = [opened.image.read(STEP, offset, READ_TIMEOUT_MS) for offset in range(0, size, STEP)]
        return b"".join(pieces), sum(blob.stats().requests for blob in opened.remote_blobs)


def test_a_disk_reads_right_cold_and_warm(place, client_of, repository, stack, tmp_path):
    reference = pushed(place, client_of, repository, stack)
    if place.needs_password:
        write_password(tmp_path, place.host, ANNA)
    cold, requests = read_whole(reference, tmp_path, place)
    assert cold == stack[1]
    assert requests > 0
    warm, requests = read_whole(reference, tmp_path, place)
    assert warm == stack[1]
    assert requests == 0


@pytest.mark.parametrize("place", KINDS[1:], indirect=True)
@pytest.mark.parametrize("credential", [None, Credential("anna", "not this")], ids=["none", "wrong"])
def test_without_the_right_password_there_is_no_image(
    place, credential, client_of, repository, stack, tmp_path
):
    reference = pushed(place, client_of, repository, stack)
    if credential is not None:
        write_password(tmp_path, place.host, credential)
    with (
        store_in(tmp_path, ca_file=place.ca_file) as store,
        pytest.raises(AuthenticationError, match="password"),
    ):
        open_image(reference, store=store)


@pytest.mark.parametrize(
    ("place", "is_own"), [("other_port", False), ("other_path", True)], indirect=["place"]
)
def test_a_password_goes_to_its_host_and_port_and_nowhere_else(
    place, is_own, client_of, repository, stack, tmp_path
):
    reference = pushed(place, client_of, repository, stack)
    write_password(tmp_path, place.host, ANNA)
    assert read_whole(reference, tmp_path, place)[0] == stack[1]
    (nginx,) = place.nginx
    arrived = nginx.log("blobs.log")
    assert len(arrived) >= len(stack[0])
    assert all(line.endswith("auth=-") != is_own for line in arrived), arrived
    asked = [line for line in nginx.log() if "/blobs/sha256:" in line and " 307 " in line]
    assert asked
    assert not all(line.endswith("auth=-") for line in asked), "the registry itself was shown it"


@pytest.mark.parametrize("place", ["tls"], indirect=True)
def test_a_private_ca_that_is_not_given_is_not_trusted(place, client_of, repository, stack, tmp_path):
    reference = pushed(place, client_of, repository, stack)
    write_password(tmp_path, place.host, ANNA)
    with store_in(tmp_path) as store, pytest.raises(UnavailableError, match="certificate is not trusted"):
        open_image(reference, store=store)


@pytest.mark.parametrize("place", ["tls"], indirect=True)
@pytest.mark.parametrize("way", ["SSL_CERT_FILE", "certConfig.caFile"])
def test_the_command_is_told_of_a_private_ca(
    place, way, client_of, repository, stack, tmp_path, program, fails
):
    """``nbd``, by the environment or by the configuration; manifests and blobs are trusted alike."""
    reference = pushed(place, client_of, repository, stack)
    home = {"DOCKER_CONFIG": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    write_password(tmp_path, place.host, ANNA)
    config = tmp_path / "overlaybd.json"
    config.write_text(json.dumps({"certConfig": {"caFile": str(place.ca_file)}}))
    told = (
        {"SSL_CERT_FILE": str(place.ca_file)}
        if way == "SSL_CERT_FILE"
        else {"TCMU_OVERLAYBD_CONFIG": str(config)}
    )
    assert "certificate is not trusted" in fails(4, "image", "info", reference, env=home)
    disk = tmp_path / "disk"
    done = program("nbd", reference, "--run", f'nbdcopy "$uri" {disk}', env={**home, **told})
    assert done.returncode == 0, done.stderr
    assert disk.read_bytes() == stack[1]
