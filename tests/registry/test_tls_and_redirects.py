"""A registry behind nginx: TLS of a private CA, and blobs at another port or path."""

from __future__ import annotations

import pytest

from tcmu_overlaybd.errors import UnavailableError
from tcmu_overlaybd.registry.transport import Transport
from tests.registry.fixtures import ANNA
from tests.registry.images import push_image, random_blob
from tests.registry.nginx import redirecting, tls_proxy

BLOBS = [random_blob(400_000, 7), random_blob(10, 8)]


def pull(client, repository: str, deadline) -> None:
    for blob in BLOBS:
        got = bytearray()
        client.download_blob(repository, blob.digest, len(blob.data), got.extend, deadline)
        assert bytes(got) == blob.data


@pytest.fixture
def secure(tmp_path, authority, password_registry):
    with tls_proxy(tmp_path / "nginx", password_registry.host, authority.issue("nginx")) as nginx:
        yield nginx


def test_push_and_pull_over_tls_with_a_private_ca(secure, authority, client_of, repository, deadline):
    """On a loopback host: it is found out to speak TLS."""
    client = client_of(secure.host, ANNA, Transport(ca_file=authority.ca_file, proxy=""))
    push_image(client, repository, BLOBS)
    pull(client, repository, deadline)
    assert client.blob_url(repository, BLOBS[0].digest).startswith(f"https://{secure.host}/")


def test_over_tls_no_password_was_sent_before(secure, authority, client_of, repository, deadline):
    """nginx answers 400 to plain HTTP; what arrived with it had no password."""
    client = client_of(secure.host, ANNA, Transport(ca_file=authority.ca_file, proxy=""))
    push_image(client, repository, BLOBS)
    plain = [line for line in secure.log() if " 400 " in line]
    assert plain
    assert all(line.endswith("auth=-") for line in plain)


def test_a_private_ca_that_is_not_given_is_not_trusted(secure, client_of, repository, deadline):
    with pytest.raises(UnavailableError, match=r"its TLS certificate is not trusted: .*") as refused:
        client_of(secure.host, ANNA).get_manifest(repository, "latest", deadline)
    assert str(refused.value).startswith(f"{secure.host}/{repository}: manifest latest: ")


def test_a_client_certificate_is_shown_to_who_wants_it(
    tmp_path, authority, password_registry, client_of, repository, deadline
):
    pair = authority.issue("client")
    with tls_proxy(
        tmp_path / "nginx", password_registry.host, authority.issue("nginx"), authority.ca_file
    ) as nginx:
        shown = Transport(authority.ca_file, pair.certificate, pair.key, proxy="")
        push_image(client_of(nginx.host, ANNA, shown), repository, BLOBS)


@pytest.mark.parametrize("absolute", [True, False], ids=["another port", "another path"])
def test_blobs_come_from_another_place(
    tmp_path, password_registry, client_of, repository, deadline, absolute
):
    push_image(client_of(password_registry.host, ANNA), repository, BLOBS)
    store = password_registry.folder / "store"
    with redirecting(tmp_path / "nginx", password_registry.host, store, absolute=absolute) as nginx:
        client = client_of(nginx.host, ANNA)
        client.get_manifest(repository, "latest", deadline)
        pull(client, repository, deadline)
        arrived = nginx.log("blobs.log")
    assert len(arrived) == len(BLOBS)
    # The same host and port may see it; another port must not.
    assert all(line.endswith("auth=-") == absolute for line in arrived)
