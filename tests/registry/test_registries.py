"""Against real registries: what one has pushed can be found, read and pulled by whoever may."""

from __future__ import annotations

import pytest

from tcmu_overlaybd.errors import AuthenticationError, MissingError, UnavailableError
from tcmu_overlaybd.registry.credentials import Credential
from tcmu_overlaybd.registry.image_lookup import find_image
from tcmu_overlaybd.registry.media_types import DOCKER, OCI
from tcmu_overlaybd.registry.overlaybd_layers import recognise
from tcmu_overlaybd.registry.reference import Reference
from tests.registry.fixtures import ANNA
from tests.registry.images import push_image, random_blob

BLOBS = [random_blob(100_000, 1), random_blob(1, 2), random_blob(3 << 20, 3)]
KINDS = ["open_registry", "password_registry", "token_registry"]


@pytest.fixture(params=KINDS)
def any_registry(request):
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("family", [DOCKER, OCI], ids=["docker", "OCI"])
def test_an_image_comes_back_as_it_was_pushed(any_registry, client_of, repository, deadline, family):
    image = push_image(client_of(any_registry.host, ANNA), repository, BLOBS, "v1", family)
    client = client_of(any_registry.host, ANNA)
    found = find_image(client, Reference.parse(f"{any_registry.host}/{repository}:v1"), deadline)
    assert found.digest == image.manifest_digest
    layers = recognise(found.manifest, "the image").layers
    assert [(layer.digest, layer.size) for layer in layers] == [(b.digest, len(b.data)) for b in BLOBS]
    for blob in BLOBS:
        got = bytearray()
        client.download_blob(repository, blob.digest, len(blob.data), got.extend, deadline)
        assert bytes(got) == blob.data
        assert client.head_blob(repository, blob.digest, deadline) == len(blob.data)


def test_what_is_not_there_is_missing(any_registry, client_of, repository, deadline):
    client = client_of(any_registry.host, ANNA)
    with pytest.raises(MissingError, match=f"{any_registry.host}/{repository}: manifest nope: not there"):
        client.get_manifest(repository, "nope", deadline)
    assert client.head_blob(repository, random_blob(5, 9).digest, deadline) is None


@pytest.mark.parametrize("registry", KINDS[1:])
@pytest.mark.parametrize("credential", [None, Credential("anna", "wrong"), Credential("otto", "x")], ids=str)
def test_who_has_no_right_password_is_refused(request, client_of, repository, deadline, registry, credential):
    client = client_of(request.getfixturevalue(registry).host, credential)
    with pytest.raises(AuthenticationError) as refused:
        client.get_manifest(repository, "latest", deadline)
    assert "wrong" not in str(refused.value).replace("password is wrong", "")


def test_a_registry_that_is_not_there_is_unavailable(client_of, deadline):
    client = client_of("127.0.0.1:1")
    with pytest.raises(UnavailableError, match=r"127.0.0.1:1/x: manifest latest: the connection is refused"):
        client.get_manifest("x", "latest", deadline)
