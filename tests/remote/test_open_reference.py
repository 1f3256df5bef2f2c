"""An image's name is enough: its layers are read from a real registry, block by block."""

from __future__ import annotations

import json

import pytest

from tcmu_overlaybd.errors import UnavailableError
from tcmu_overlaybd.image.open import open_image
from tcmu_overlaybd.image.source import resolve_source
from tcmu_overlaybd.registry.docker_config import DockerConfig
from tcmu_overlaybd.registry.transport import Transport
from tcmu_overlaybd.remote.settings import StoreSettings
from tcmu_overlaybd.remote.store import BlobStore
from tests.registry.images import Blob, push_image

LAYERS = ("stack/l1.lsmt", "stack/l2.lsmt", "stack/l3.lsmt")
STACK = "stack3-raw.config.v1.json"


@pytest.fixture
def store(tmp_path):
    """Of nobody in particular: what docker's configuration of this machine says is not asked."""
    settings = StoreSettings(
        folder=tmp_path / "cache",
        free_floor_bytes=0,
        transport=Transport(proxy=""),
        credentials=DockerConfig(tmp_path / "config.json"),
    )
    with BlobStore(settings) as opened:
        yield opened


@pytest.fixture
def reference(open_registry, client_of, repository, vectors):
    blobs = [Blob((vectors / name).read_bytes()) for name in LAYERS]
    push_image(client_of(open_registry.host), repository, blobs)
    return f"{open_registry.host}/{repository}:latest"


def whole(opened) -> bytes:
    return opened.image.read(opened.image.size, 0, 30_000)


def test_an_image_opened_by_its_name_is_the_image_of_its_layers(reference, store, vectors):
    with open_image(vectors / STACK) as local, open_image(reference, store=store) as remote:
        assert whole(remote) == whole(local)
        assert [blob.digest for blob in remote.remote_blobs] == [
            lower.digest for lower in remote.config.layers
        ]
        assert sum(blob.stats().fetched_bytes for blob in remote.remote_blobs) > 0


def test_what_was_resolved_opens_again_without_asking_for_the_manifest(reference, store, open_registry):
    config = resolve_source(reference, store)
    assert config.repo_blob_url == f"http://{open_registry.host}/v2/{reference.split('/', 1)[1][:-7]}/blobs"
    manifests = open_registry.log.read_bytes().count(b"/manifests/")
    with open_image(config, store=store) as opened:
        assert len(opened.layers) == len(LAYERS)
    assert open_registry.log.read_bytes().count(b"/manifests/") == manifests


def test_without_a_store_a_name_is_an_error_that_says_so(reference):
    with pytest.raises(UnavailableError, match="nothing is to be fetched"):
        open_image(reference)


def test_export_info_and_verify_take_a_name(reference, program, vectors, tmp_path, monkeypatch):
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    program("image", "export", reference, "-o", tmp_path / "disk.raw")
    with open_image(vectors / STACK) as local:
        assert (tmp_path / "disk.raw").read_bytes() == whole(local)
    facts = json.loads(program("image", "info", reference, "--json").stdout)
    assert [layer["kind"] for layer in facts["layers"]] == ["committed"] * 3
    verdict = json.loads(program("image", "verify", reference, "--json").stdout)
    assert verdict["sound"]
    assert all(layer["checksums"] for layer in verdict["layers"])
