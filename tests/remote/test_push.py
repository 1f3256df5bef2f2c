"""``image push``: every layer by the cheapest way, the manifest last, and nothing twice."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tcmu_overlaybd.image.commit import commit_image
from tcmu_overlaybd.image.layer_writer import LayerOptions
from tcmu_overlaybd.image.open import open_image
from tests.registry.docker_registry import DockerRegistry
from tests.registry.fixtures import ANNA
from tests.remote.transfer import MIB, Account, make_layer, outcomes, requests_of, results


@pytest.fixture
def layers(tmp_path):
    return [make_layer(tmp_path, "one"), make_layer(tmp_path, "two")]


@pytest.fixture
def target(password_registry, repository):
    return f"{password_registry.host}/{repository}"


def digest(path):
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def stored(client_of, registry, repository, tag, deadline):
    raw = client_of(registry.host, ANNA).get_manifest(repository, tag, deadline)
    return raw, json.loads(raw.body)


@pytest.mark.parametrize("oci", [False, True], ids=["docker", "OCI"])
def test_what_is_pushed_has_the_reference_layout(
    transfer, layers, target, password_registry, client_of, repository, deadline, oci
):
    """spec/image.md section 1."""
    pushed = results(transfer("push", *layers, f"{target}:v1", *(["--oci"] if oci else [])))
    raw, manifest = stored(client_of, password_registry, repository, "v1", deadline)
    kind = "oci.image.layer.v1.tar" if oci else "docker.image.rootfs.diff.tar"
    assert pushed["digest"] == raw.digest
    assert pushed["mediaType"] == manifest["mediaType"] == raw.media_type
    for layer, path in zip(manifest["layers"], layers, strict=True):
        assert layer["mediaType"] == f"application/vnd.{kind}"
        assert layer["digest"] == digest(path)
        assert layer["annotations"] == {
            "containerd.io/snapshot/overlaybd/version": "0.1.0",
            "containerd.io/snapshot/overlaybd/blob-digest": digest(path),
            "containerd.io/snapshot/overlaybd/blob-size": str(path.stat().st_size),
        }
    client = client_of(password_registry.host, ANNA)
    config = json.loads(client.get_blob(repository, manifest["config"]["digest"], MIB, deadline))
    assert config["rootfs"] == {"type": "layers", "diff_ids": [digest(path) for path in layers]}


@pytest.mark.parametrize("size", [512, MIB, 3 * MIB + 512])
def test_a_layer_that_is_no_tar_is_wrapped_as_commit_does_it(transfer, tmp_path, target, size):
    bare = make_layer(tmp_path, "bare", size, tar=False, seed=5)
    wrapped = make_layer(tmp_path, "wrapped", size, tar=True, seed=5)
    pushed = results(transfer("push", bare, f"{target}:v1", "--chunk-size", "100000"))
    assert pushed["layers"][0]["digest"] == digest(wrapped)
    assert outcomes(transfer("push", wrapped, f"{target}:v2")) == ["present"]


def test_pushing_again_sends_nothing(transfer, layers, target, password_registry):
    first = results(transfer("push", *layers, f"{target}:v1"))
    before = [len(requests_of(password_registry, method)) for method in ("POST", "PATCH")]
    again = transfer("push", *layers, f"{target}:v1")
    assert outcomes(again) == ["present", "present"]
    assert results(again)["digest"] == first["digest"]
    assert [len(requests_of(password_registry, method)) for method in ("POST", "PATCH")] == before


def test_an_image_in_the_registry_is_mounted_below_new_layers(
    transfer, layers, target, password_registry, tmp_path
):
    results(transfer("push", *layers, f"{target}/from:v1"))
    top = make_layer(tmp_path, "top")
    patches = len(requests_of(password_registry, "PATCH"))
    pushed = transfer("push", f"{target}/from:v1", top, f"{target}/to:v2")
    assert outcomes(pushed) == ["mounted", "mounted", "uploaded"]
    # The new layer and the configuration, and no byte of what is below.
    assert len(requests_of(password_registry, "PATCH")) - patches == 2
    place = f"/v2/{target.partition('/')[2]}/to/"
    mounts = [line for line in requests_of(password_registry, "POST") if "mount=" in line and place in line]
    assert len(mounts) == 2


def test_the_configuration_below_stays(transfer, layers, target, client_of, password_registry, deadline):
    """An image of a container keeps what it runs; only what tells about layers is changed."""
    from tests.registry.images import Blob, BytesBlob, Uploader

    repository = target.partition("/")[2]
    results(transfer("push", layers[0], f"{target}:v1", "--oci"))
    client = client_of(password_registry.host, ANNA)
    _, manifest = stored(client_of, password_registry, repository, "v1", deadline)
    config = json.loads(client.get_blob(repository, manifest["config"]["digest"], MIB, deadline))
    config |= {"config": {"Cmd": ["/bin/sh"]}, "author": "somebody"}
    blob = Blob(json.dumps(config).encode())
    uploader = Uploader(client, repository)
    uploader.upload(blob.digest, BytesBlob(blob.data), deadline)
    manifest["config"] |= {"digest": blob.digest, "size": len(blob.data)}
    uploader.put_manifest("v2", manifest["mediaType"], json.dumps(manifest).encode(), deadline)
    results(transfer("push", f"{target}:v2", layers[1], f"{target}:v3", "--message", "what is new"))
    _, manifest = stored(client_of, password_registry, repository, "v3", deadline)
    assert manifest["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    new = json.loads(client.get_blob(repository, manifest["config"]["digest"], MIB, deadline))
    assert (new["config"], new["author"]) == ({"Cmd": ["/bin/sh"]}, "somebody")
    assert [step.get("comment") for step in new["history"]] == [None, "what is new"]
    assert len(new["rootfs"]["diff_ids"]) == 2


def test_layers_of_another_registry_are_copied(
    transfer, layers, target, open_registry, client_of, repository, deadline
):
    results(transfer("push", *layers, f"{target}:v1"))
    copied = results(transfer("push", f"{target}:v1", f"{open_registry.host}/{repository}:v1"))
    assert [layer["outcome"] for layer in copied["layers"]] == ["uploaded", "uploaded"]
    client = client_of(open_registry.host)
    for path in layers:
        assert client.get_blob(repository, digest(path), 4 * MIB, deadline) == path.read_bytes()


def test_a_configuration_is_pushed_with_the_layer_its_upper_became(
    transfer, fails, account, layers, target, tmp_path
):
    """As after attach --writable, detach, image commit."""
    results(transfer("push", layers[0], f"{target}:v1"))
    results(transfer("pull", f"{target}:v1", "-o", tmp_path / "pulled"))
    upper = tmp_path / "upper"
    with open_image(tmp_path / "pulled", writable=True, upper_dir=upper) as opened:
        opened.image.write(b"new!" * 1024, 0, 30_000)
        opened.image.flush()
    top = tmp_path / "top"
    commit_image(upper, top, LayerOptions(tar=True))
    sentence = fails(2, "image", "push", upper, f"{target}:v2", env=account.env)
    assert "its upper is no layer yet: image commit" in sentence
    assert outcomes(transfer("push", upper, top, f"{target}:v2")) == ["present", "uploaded"]


@pytest.mark.parametrize("name", ["text", "cut"])
def test_what_is_no_sound_layer_is_not_pushed(fails, account, layers, target, tmp_path, name):
    (tmp_path / "text").write_text("no layer at all")
    (tmp_path / "cut").write_bytes(layers[0].read_bytes()[:-5000])
    fails(5, "image", "push", layers[1], tmp_path / name, f"{target}:v1", env=account.env)


def test_a_layer_that_is_not_there_is_missing(fails, account, layers, target, tmp_path):
    assert "no such" in fails(
        3, "image", "push", layers[0], tmp_path / "nope", f"{target}:v1", env=account.env
    )


def test_a_digest_is_no_place_to_push_to(fails, account, layers, target):
    sentence = fails(2, "image", "push", layers[0], f"{target}@sha256:{'0' * 64}", env=account.env)
    assert "pushed to a tag" in sentence


def test_a_wrong_password_is_told_in_one_sentence(fails, account, layers, target, password_registry):
    account.log_in(password_registry.host, password="of somebody else")
    sentence = fails(1, "image", "push", layers[0], f"{target}:v1", env=account.env)
    assert sentence == f"{password_registry.host}: user name or password is wrong"
    assert "of somebody else" not in sentence


def test_a_registry_that_is_down_is_unavailable(fails, account, layers):
    assert "refused" in fails(4, "image", "push", layers[0], "127.0.0.1:1/x:v1", env=account.env)


def test_a_failed_push_leaves_no_tag(fails, account, layers, tmp_path, client_of):
    """The disk of the registry is in the way of the second layer."""
    with DockerRegistry(tmp_path / "registry") as registry:
        uploads = registry.folder / "store/docker/registry/v2/repositories/r/_uploads"
        uploads.parent.mkdir(parents=True)
        uploads.write_text("a file where a folder is to be")
        fails(4, "image", "push", *layers, f"{registry.host}/r:v1", env=account.env)
        assert "PUT" not in "".join(requests_of(registry, "PUT"))


# -- ended in mid-upload


class RunningPush:
    """``image push`` of one large layer in many chunks, as a process to be ended."""

    CHUNK = 64 << 10

    def __init__(self, registry: DockerRegistry, account: Account, *arguments: object) -> None:
        self._registry = registry
        command = [sys.executable, "-m", "tcmu_overlaybd", "image", "push", *map(str, arguments)]
        command += ["--chunk-size", str(self.CHUNK)]
        self.process = subprocess.Popen(
            command, env={**os.environ, **account.env}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def end_after(self, nr_patches: int, number: int) -> int:
        """The exit code of a push that got this signal after so many chunks."""
        until = time.monotonic() + 30
        while len(requests_of(self._registry, "PATCH")) < nr_patches:
            assert time.monotonic() < until
            assert self.process.poll() is None, "it was done before it could be ended"
        self.process.send_signal(number)
        return self.process.wait(30)


@pytest.fixture
def registry(tmp_path):
    with DockerRegistry(tmp_path / "registry") as running:
        yield running


@pytest.fixture
def large(tmp_path):
    return make_layer(tmp_path, "large", 16 * MIB)


def assert_is_whole(client_of, registry, path, deadline):
    client = client_of(registry.host)
    assert client.get_blob("r", digest(path), 32 * MIB, deadline) == path.read_bytes()
    assert client.get_manifest("r", "v1", deadline)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_push_that_is_ended_goes_on_where_it_was(
    transfer, account, registry, large, client_of, deadline, number
):
    reference = f"{registry.host}/r:v1"
    assert RunningPush(registry, account, large, reference).end_after(30, number) == 130
    sent = len(requests_of(registry, "PATCH"))
    assert outcomes(transfer("push", large, reference, "--chunk-size", RunningPush.CHUNK)) == ["uploaded"]
    nr_chunks = -(-large.stat().st_size // RunningPush.CHUNK)
    assert len(requests_of(registry, "PATCH")) == nr_chunks + 1  # and the configuration
    assert sent >= 30
    assert_is_whole(client_of, registry, large, deadline)


def test_a_push_that_is_killed_can_be_done_again(
    transfer, account, registry, layers, large, client_of, deadline
):
    """What had arrived whole is not sent again; of the rest the registry decides."""
    reference = f"{registry.host}/r:v1"
    results(transfer("push", layers[0], f"{registry.host}/r:v0"))
    before = len(requests_of(registry, "PATCH"))
    running = RunningPush(registry, account, layers[0], large, reference)
    assert running.end_after(before + 30, signal.SIGKILL) == -signal.SIGKILL
    assert not re.search(r'"PUT /v2/r/manifests/v1', registry.log.read_text())
    assert outcomes(transfer("push", layers[0], large, reference)) == ["present", "uploaded"]
    assert_is_whole(client_of, registry, large, deadline)
    assert not list(account.uploads.iterdir())


def test_the_configuration_of_tools_says_who_we_are(program, layers, target, tmp_path, password_registry):
    """credentialFilePath, as the service's configuration has it; docker's own knows no password."""
    nobody = Account(tmp_path / "nobody")
    somebody = Account(tmp_path / "somebody", password_registry.host)
    config = tmp_path / "overlaybd.json"
    passwords = Path(somebody.env["DOCKER_CONFIG"]) / "config.json"
    config.write_text(json.dumps({"credentialFilePath": str(passwords)}))
    env = {**nobody.env, "TCMU_OVERLAYBD_CONFIG": str(config)}
    assert program("image", "push", *layers, f"{target}:v1", env=nobody.env).returncode == 1
    assert program("image", "push", *layers, f"{target}:v1", env=env).returncode == 0
