"""``image pull``: a folder that can be attached, or goes on to be one; never a half-made image."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from small_disk import small_tmpfs

from tcmu_overlaybd.registry.deadline import Deadline
from tcmu_overlaybd.registry.reference import Reference
from tcmu_overlaybd.registry.upload import Uploader
from tests.registry.docker_registry import DockerRegistry
from tests.registry.images import push_image, random_blob
from tests.remote.transfer import MIB, make_layer, requests_of, results


@pytest.fixture
def layers(tmp_path):
    return [make_layer(tmp_path, "one", 2 * MIB), make_layer(tmp_path, "two")]


@pytest.fixture
def target(password_registry, repository):
    return f"{password_registry.host}/{repository}"


@pytest.fixture
def reference(transfer, layers, target):
    results(transfer("push", *layers, f"{target}:v1"))
    return f"{target}:v1"


def blob_path(folder, layer):
    return folder / f"{hashlib.sha256(layer.read_bytes()).hexdigest()}.tar"


def gets_of_blobs(registry):
    return [line for line in requests_of(registry, "GET") if "/blobs/" in line]


def test_what_was_pushed_comes_back_byte_by_byte(transfer, program, layers, reference, tmp_path):
    folder = tmp_path / "pulled"
    pulled = results(transfer("pull", reference, "-o", folder))
    for path, layer in zip(layers, pulled["layers"], strict=True):
        assert blob_path(folder, path).read_bytes() == path.read_bytes()
        assert layer["fetched"] == layer["size"] == path.stat().st_size
    assert pulled["config"] == str(folder / "config.v1.json")
    exported = [tmp_path / "from-layers", tmp_path / "from-folder"]
    assert program("image", "export", *layers, "-o", exported[0]).returncode == 0
    assert program("image", "export", folder, "-o", exported[1]).returncode == 0
    assert exported[0].read_bytes() == exported[1].read_bytes()


def test_the_folder_can_be_moved(transfer, program, reference, tmp_path):
    results(transfer("pull", reference, "-o", tmp_path / "pulled"))
    shutil.move(tmp_path / "pulled", tmp_path / "moved")
    assert program("image", "verify", tmp_path / "moved").returncode == 0


def test_pulling_again_fetches_nothing(transfer, reference, tmp_path, password_registry):
    results(transfer("pull", reference, "-o", tmp_path / "pulled"))
    before = len(gets_of_blobs(password_registry))
    again = results(transfer("pull", reference, "-o", tmp_path / "pulled"))
    assert [layer["fetched"] for layer in again["layers"]] == [0, 0]
    assert len(gets_of_blobs(password_registry)) == before


def test_a_damaged_layer_is_fetched_again(transfer, layers, reference, tmp_path):
    folder = tmp_path / "pulled"
    results(transfer("pull", reference, "-o", folder))
    path = blob_path(folder, layers[0])
    with path.open("r+b") as file:
        file.seek(MIB)
        file.write(b"\0damaged")
    again = results(transfer("pull", reference, "-o", folder))
    assert [layer["fetched"] for layer in again["layers"]] == [layers[0].stat().st_size, 0]
    assert path.read_bytes() == layers[0].read_bytes()


def test_an_interrupted_pull_goes_on(transfer, layers, reference, tmp_path):
    folder = tmp_path / "pulled"
    folder.mkdir()
    partial = blob_path(folder, layers[0]).with_suffix(".tar.partial")
    partial.write_bytes(layers[0].read_bytes()[: MIB + 7])
    pulled = results(transfer("pull", reference, "-o", folder))
    assert pulled["layers"][0]["fetched"] == layers[0].stat().st_size - MIB - 7
    assert blob_path(folder, layers[0]).read_bytes() == layers[0].read_bytes()
    assert not partial.exists()


@pytest.mark.parametrize("garbage", [b"\0" * 5000, b"x" * (3 * MIB)], ids=["wrong", "too long"])
def test_what_is_not_the_start_of_the_layer_is_thrown_away(transfer, layers, reference, tmp_path, garbage):
    folder = tmp_path / "pulled"
    folder.mkdir()
    blob_path(folder, layers[0]).with_suffix(".tar.partial").write_bytes(garbage)
    pulled = results(transfer("pull", reference, "-o", folder))
    assert pulled["layers"][0]["fetched"] == layers[0].stat().st_size
    assert blob_path(folder, layers[0]).read_bytes() == layers[0].read_bytes()


def test_a_partial_file_that_is_complete_costs_no_request(
    transfer, layers, reference, tmp_path, password_registry
):
    folder = tmp_path / "pulled"
    folder.mkdir()
    for layer in layers:
        shutil.copy(layer, blob_path(folder, layer).with_suffix(".tar.partial"))
    before = len(gets_of_blobs(password_registry))
    results(transfer("pull", reference, "-o", folder))
    assert len(gets_of_blobs(password_registry)) == before


def test_the_same_layer_twice_is_one_file(transfer, layers, target, tmp_path):
    results(transfer("push", layers[0], layers[0], f"{target}:v1"))
    folder = tmp_path / "pulled"
    results(transfer("pull", f"{target}:v1", "-o", folder))
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["config.v1.json", blob_path(folder, layers[0]).name]
    )
    assert len(json.loads((folder / "config.v1.json").read_text())["lowers"]) == 2


def test_a_folder_of_another_image_is_left_alone(
    transfer, fails, account, layers, reference, target, tmp_path
):
    folder = tmp_path / "pulled"
    results(transfer("pull", reference, "-o", folder))
    before = {path: path.read_bytes() for path in folder.iterdir()}
    results(transfer("push", layers[1], f"{target}:v2"))
    sentence = fails(1, "image", "pull", f"{target}:v2", "-o", folder, env=account.env)
    assert sentence == f"{folder}: holds another image already"
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_a_folder_with_other_files_is_left_alone(fails, account, reference, tmp_path):
    (tmp_path / "pulled").mkdir()
    (tmp_path / "pulled" / "letter.txt").touch()
    sentence = fails(1, "image", "pull", reference, "-o", tmp_path / "pulled", env=account.env)
    assert "holds letter.txt" in sentence
    assert [path.name for path in (tmp_path / "pulled").iterdir()] == ["letter.txt"]


def test_two_pulls_do_not_fill_one_folder(fails, account, reference, tmp_path):
    folder = tmp_path / "pulled"
    folder.mkdir()
    descriptor = os.open(folder, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    assert "another pull" in fails(1, "image", "pull", reference, "-o", folder, env=account.env)
    os.close(descriptor)


@pytest.mark.parametrize(
    ("code", "name", "words"),
    [(3, ":nope", "not there"), (1, "@sha256:" + "0" * 64, "")],
)
def test_what_is_not_in_the_registry_leaves_no_folder(
    fails, account, reference, target, tmp_path, code, name, words
):
    folder = tmp_path / "pulled"
    sentence = fails(3, "image", "pull", target + name, "-o", folder, env=account.env)
    assert words in sentence
    assert not folder.exists()


def test_an_ordinary_image_is_told_how_to_become_one(
    fails, account, open_registry, client_of, repository, tmp_path
):
    client = client_of(open_registry.host)
    image = push_image(client, repository, [random_blob(MIB)], "overlaybd")
    manifest = json.loads(image.manifest)
    for layer in manifest["layers"]:
        del layer["annotations"]
    body = json.dumps(manifest).encode()
    Uploader(client, repository).put_manifest("ordinary", image.media_type, body, Deadline.after(30))
    folder, reference = tmp_path / "pulled", f"{open_registry.host}/{repository}:ordinary"
    sentence = fails(5, "image", "pull", reference, "-o", folder, env=account.env)
    assert "this is an ordinary image: make an overlaybd one" in sentence
    assert not folder.exists()


def test_a_blob_that_differs_from_its_digest_is_corrupt(fails, account, layers, transfer, tmp_path):
    with DockerRegistry(tmp_path / "registry") as registry:
        reference = f"{registry.host}/r:v1"
        results(transfer("push", *layers, reference))
        name = blob_path(tmp_path, layers[0]).stem
        data = registry.folder / f"store/docker/registry/v2/blobs/sha256/{name[:2]}/{name}/data"
        damaged = bytearray(data.read_bytes())
        damaged[1000] ^= 1
        data.write_bytes(damaged)
        folder = tmp_path / "pulled"
        sentence = fails(5, "image", "pull", reference, "-o", folder, env=account.env)
        assert f"blob sha256:{name}: what came has the digest" in sentence
        assert not (folder / "config.v1.json").exists()
        assert not blob_path(folder, layers[0]).exists()
        assert not any(path.stat().st_size for path in folder.glob("*.partial") if name in path.name)


def test_a_full_disk_is_told_and_goes_on_later(transfer, fails, account, layers, reference, tmp_path):
    with small_tmpfs(tmp_path / "small", 2 * MIB) as small:
        sentence = fails(1, "image", "pull", reference, "-o", small / "pulled", env=account.env)
        assert "the disk is full" in sentence
        assert not (small / "pulled" / "config.v1.json").exists()


def test_a_pull_that_is_killed_goes_on(account, transfer, client_of, tmp_path):
    with DockerRegistry(tmp_path / "registry") as registry:
        blob = random_blob(96 * MIB, 3)
        push_image(client_of(registry.host), "r", [blob], "v1")
        folder, reference = tmp_path / "pulled", f"{registry.host}/r:v1"
        command = [sys.executable, "-m", "tcmu_overlaybd", "image", "pull", reference, "-o", str(folder)]
        process = subprocess.Popen(command, env={**os.environ, **account.env})
        until = time.monotonic() + 30
        while not any(path.stat().st_size > MIB for path in folder.glob("*.partial")):
            assert time.monotonic() < until
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        assert [path.suffix for path in folder.iterdir()] == [".partial"]
        pulled = results(transfer("pull", reference, "-o", folder))
        assert pulled["layers"][0]["fetched"] <= len(blob.data) - MIB
        (file,) = folder.glob("*.tar")
        assert file.read_bytes() == blob.data


def test_a_reference_without_a_host_is_wrong_usage(fails, tmp_path):
    with pytest.raises(ValueError, match="no registry host"):
        Reference.parse("alpine")
    fails(2, "image", "pull", "alpine", "-o", tmp_path / "pulled")
