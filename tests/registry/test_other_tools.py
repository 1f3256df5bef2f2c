"""Other people's tools take what we push, and leave it as it was."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest

from tcmu_overlaybd.errors import FormatError
from tcmu_overlaybd.registry.image_lookup import find_image
from tcmu_overlaybd.registry.media_types import DOCKER, OCI
from tcmu_overlaybd.registry.overlaybd_layers import recognise
from tcmu_overlaybd.registry.reference import Reference
from tests.registry.fixtures import ANNA, USERS
from tests.registry.images import push_image, random_blob

BLOBS = [random_blob(70_000, 21), random_blob(5_000, 22)]


@pytest.fixture
def skopeo(tmp_path):
    """Runs skopeo, which must succeed; gives its output."""
    program = shutil.which("skopeo")
    if program is None:
        pytest.skip("skopeo is not installed")
    policy = tmp_path / "policy.json"
    policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')

    def run(*arguments: str) -> bytes:
        done = subprocess.run(
            [program, "--policy", str(policy), *arguments], capture_output=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    return run


CREDS = f"anna:{USERS['anna']}"
UNSAFE = ("--src-tls-verify=false", "--dest-tls-verify=false")


@pytest.mark.parametrize("family", [DOCKER, OCI], ids=["docker", "OCI"])
def test_skopeo_inspects_and_copies_our_image_unchanged(
    skopeo, password_registry, open_registry, client_of, repository, deadline, family
):
    image = push_image(client_of(password_registry.host, ANNA), repository, BLOBS, "v1", family)
    source = f"docker://{password_registry.host}/{repository}:v1"
    raw = skopeo("inspect", "--raw", "--tls-verify=false", "--creds", CREDS, source)
    assert raw == image.manifest
    copy = f"{open_registry.host}/{repository}:v1"
    skopeo("copy", "--preserve-digests", *UNSAFE, "--src-creds", CREDS, source, f"docker://{copy}")
    found = find_image(client_of(open_registry.host), Reference.parse(copy), deadline)
    assert found.digest == image.manifest_digest
    layers = recognise(found.manifest, copy).layers
    assert [layer.digest for layer in layers] == [blob.digest for blob in BLOBS]


@pytest.mark.parametrize(("family", "seed"), [(DOCKER, 23), (OCI, 24)], ids=["docker", "OCI"])
def test_a_copy_that_was_compressed_on_the_way_is_told(
    skopeo, password_registry, open_registry, client_of, repository, deadline, family, seed
):
    """What skopeo does with tars unless it is told not to; in docker's form it drops annotations, too."""
    blobs = [random_blob(9_000, seed)]
    push_image(client_of(password_registry.host, ANNA), repository, blobs, "v1", family)
    source, copy = (f"{registry.host}/{repository}:v1" for registry in (password_registry, open_registry))
    skopeo("copy", *UNSAFE, "--src-creds", CREDS, f"docker://{source}", f"docker://{copy}")
    found = find_image(client_of(open_registry.host), Reference.parse(copy), deadline)
    with pytest.raises(FormatError, match=r"layer 1 of 1 .*skopeo copy --preserve-digests"):
        recognise(found.manifest, copy)


def test_skopeo_understands_our_configuration(skopeo, open_registry, client_of, repository):
    push_image(client_of(open_registry.host), repository, BLOBS, "v1")
    said = json.loads(
        skopeo("inspect", "--tls-verify=false", f"docker://{open_registry.host}/{repository}:v1")
    )
    assert (said["Os"], said["Layers"]) == ("linux", [blob.digest for blob in BLOBS])
