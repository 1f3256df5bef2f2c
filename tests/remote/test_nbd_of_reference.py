"""``nbd REFERENCE``: a disk straight out of a registry, and every way in which it can not be had."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tcmu_overlaybd.errors import UnavailableError
from tcmu_overlaybd.image.open import open_image
from tcmu_overlaybd.image.source import resolve_source
from tcmu_overlaybd.registry.deadline import Deadline
from tcmu_overlaybd.registry.upload import Uploader
from tests.nbd.serving import NbdProcess
from tests.registry.docker_registry import DockerRegistry
from tests.registry.fixtures import ANNA, USERS
from tests.registry.images import push_image, random_blob
from tests.remote.image_store import make_stack, store_in, write_password

LAYER_BYTES = 1 << 20


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    return make_stack(tmp_path_factory.mktemp("stack"), 3, LAYER_BYTES)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Where a user's cache and passwords are, with nothing in it."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    return folder


@pytest.fixture
def tool():
    """``tool("qemu-io")`` is its path; the test is skipped where it is not installed."""

    def find(name: str) -> str:
        path = shutil.which(name)
        if path is None:
            pytest.skip(f"{name} is not installed")
        return path

    return find


def sha256_over_nbd(uri: str, folder) -> str:
    copy = shutil.which("nbdcopy")
    if copy is None:
        pytest.skip("nbdcopy is not installed")
    subprocess.run([copy, uri, folder / "copy"], check=True, timeout=120)
    with (folder / "copy").open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def test_a_reference_is_served_as_a_disk(password_registry, client_of, repository, stack, home, tmp_path):
    layers, disk = stack
    push_image(client_of(password_registry.host, ANNA), repository, layers)
    write_password(home, password_registry.host, ANNA)
    with NbdProcess(f"{password_registry.host}/{repository}:latest") as server:
        assert sha256_over_nbd(server.uri, tmp_path) == hashlib.sha256(disk).hexdigest()


def test_what_was_served_once_needs_the_registry_for_its_manifest_only(
    open_registry, client_of, repository, stack, home, tmp_path
):
    layers, disk = stack
    push_image(client_of(open_registry.host), repository, layers)
    gets = []
    for _ in range(2):
        with NbdProcess(f"{open_registry.host}/{repository}") as server:
            assert sha256_over_nbd(server.uri, tmp_path) == hashlib.sha256(disk).hexdigest()
        gets.append(sum(open_registry.nr_gets(repository, layer.digest) for layer in layers))
    assert 0 < gets[0] == gets[1]


def test_a_writable_disk_over_a_reference_keeps_what_is_written(
    open_registry, client_of, repository, stack, home, tmp_path, tool
):
    push_image(client_of(open_registry.host), repository, stack[0])
    upper = tmp_path / "upper"
    written = os.urandom(64 << 10)
    (tmp_path / "written").write_bytes(written)
    writable = [f"{open_registry.host}/{repository}", "--writable", "--upper", upper]
    with NbdProcess(*writable) as server:
        command = ["write -q -s %s 4096 64k" % (tmp_path / "written"), "flush"]
        subprocess.run(
            [tool("qemu-io"), "-f", "raw", "-c", command[0], "-c", command[1], server.uri], check=True
        )
    config = json.loads((upper / "config.v1.json").read_text())
    assert config["repoBlobUrl"] == f"http://{open_registry.host}/v2/{repository}/blobs"
    with NbdProcess(upper / "config.v1.json") as server:
        sha256_over_nbd(server.uri, tmp_path)
    expected = bytearray(stack[1])
    expected[4096 : 4096 + len(written)] = written
    assert (tmp_path / "copy").read_bytes() == bytes(expected)


def test_two_servers_at_once_share_no_cache_and_both_serve(
    open_registry, client_of, repository, stack, home, tmp_path
):
    """The second one keeps what it fetches in a folder that goes with it."""
    push_image(client_of(open_registry.host), repository, stack[0])
    reference = f"{open_registry.host}/{repository}"
    with NbdProcess(reference), NbdProcess(reference, "-v") as second:
        assert sha256_over_nbd(second.uri, tmp_path) == hashlib.sha256(stack[1]).hexdigest()
        code, _, stderr = second.stop()
    assert code == 0
    (sentence,) = [line for line in stderr.splitlines() if "is in use by process" in line]
    assert sentence.endswith("what this process fetches is kept in a temporary folder only")


def test_the_configuration_of_the_reference_s_snapshotter_is_served(
    password_registry, client_of, repository, stack, home, tmp_path
):
    """Keys as its ConstructOverlayBDSpec writes them (spec/image.md section 6.6), null and empty ones too."""
    layers, disk = stack
    push_image(client_of(password_registry.host, ANNA), repository, layers)
    write_password(home, password_registry.host, ANNA)
    config = {
        "repoBlobUrl": f"http://{password_registry.host}/v2/{repository}/blobs/",
        "lowers": [
            {"digest": layer.digest, "size": len(layer.data), "dir": str(tmp_path / str(number))}
            for number, layer in enumerate(layers)
        ],
        "upper": {},
        "resultFile": str(tmp_path / "init-debug.log"),
    }
    (tmp_path / "1").mkdir()
    (tmp_path / "1/overlaybd.commit").write_bytes(layers[1].data)
    path = tmp_path / "config.v1.json"
    path.write_text(json.dumps(config))
    with NbdProcess(path) as server:
        assert sha256_over_nbd(server.uri, tmp_path) == hashlib.sha256(disk).hexdigest()
    assert password_registry.nr_gets(repository, layers[0].digest) > 0
    assert password_registry.nr_gets(repository, layers[1].digest) == 0, "it lay in its dir"


def test_merge_and_commit_take_what_lies_in_a_registry(
    open_registry, client_of, repository, stack, home, tmp_path, program, tool
):
    layers, disk = stack
    push_image(client_of(open_registry.host), repository, layers)
    reference = f"{open_registry.host}/{repository}"
    assert program("image", "merge", reference, "-o", tmp_path / "merged").returncode == 0
    upper = tmp_path / "upper"
    with NbdProcess(reference, "--writable", "--upper", upper) as server:
        write = [tool("qemu-io"), "-f", "raw", "-c", "write -q -P 7 8192 4096", server.uri]
        subprocess.run(write, check=True)
    committed = program("image", "commit", upper / "config.v1.json", "-o", tmp_path / "top", "--json")
    assert committed.returncode == 0, committed.stderr
    for name, files in (("a", ["merged"]), ("b", ["merged", "top"])):
        paths = [tmp_path / file for file in files]
        assert program("image", "export", *paths, "-o", tmp_path / name).returncode == 0
    assert (tmp_path / "a").read_bytes() == disk
    assert (tmp_path / "b").read_bytes() == disk[:8192] + b"\7" * 4096 + disk[12288:]


# ---- what cannot be had ------------------------------------------------------------------


def test_a_wrong_password(password_registry, repository, home, fails):
    write_password(home, password_registry.host, type(ANNA)("anna", "no such"))
    sentence = fails(1, "nbd", f"{password_registry.host}/{repository}:latest")
    assert "user name or password is wrong" in sentence
    assert "no such" not in sentence


def test_no_password_where_one_is_wanted(password_registry, repository, home, fails):
    sentence = fails(1, "image", "info", f"{password_registry.host}/{repository}:latest")
    assert "a password is needed: tcmu-overlaybd login" in sentence


def test_an_unknown_tag(open_registry, client_of, repository, stack, home, fails):
    push_image(client_of(open_registry.host), repository, stack[0])
    sentence = fails(3, "nbd", f"{open_registry.host}/{repository}:other")
    assert f"{open_registry.host}/{repository}: manifest other: " in sentence


def test_an_unknown_repository(open_registry, home, fails):
    assert "t/nothing" in fails(3, "nbd", f"{open_registry.host}/t/nothing:latest")


def test_an_ordinary_image_is_told_how_to_become_one(open_registry, client_of, repository, home, fails):
    client = client_of(open_registry.host)
    image = push_image(client, repository, [random_blob(1000, 4)])
    manifest = json.loads(image.manifest)
    for layer in manifest["layers"]:
        del layer["annotations"]
    body = json.dumps(manifest).encode()
    Uploader(client, repository).put_manifest("latest", image.media_type, body, Deadline.after(30))
    sentence = fails(5, "nbd", f"{open_registry.host}/{repository}:latest")
    assert "this is an ordinary image: make an overlaybd one" in sentence


def test_a_layer_that_is_no_overlaybd_blob(open_registry, client_of, repository, home, fails):
    push_image(client_of(open_registry.host), repository, [random_blob(100_000, 4)])
    sentence = fails(5, "nbd", "-q", f"{open_registry.host}/{repository}:latest")  # it warns of each try
    assert sentence.startswith("layer 1 of 1: ")
    assert "neither LSMT, ZFile nor a tar of one" in sentence


def test_a_registry_that_is_down(tmp_path, client_of, stack, home, fails):
    with DockerRegistry(tmp_path / "registry") as registry:
        push_image(client_of(registry.host), "t/x", stack[0])
        registry.stop()
        assert "the connection is refused" in fails(4, "nbd", f"{registry.host}/t/x:latest")
        assert not (home / "cache").exists(), "nothing half-made"


def test_a_blob_that_is_gone(tmp_path, client_of, stack, home, fails):
    with DockerRegistry(tmp_path / "registry") as registry:
        push_image(client_of(registry.host), "t/x", stack[0])
        digest = stack[0][1].digest.partition(":")[2]
        shutil.rmtree(tmp_path / "registry/store/docker/registry/v2/blobs/sha256" / digest[:2] / digest)
        sentence = fails(3, "nbd", f"{registry.host}/t/x:latest")
        assert sentence.startswith("layer 2 of 3: ")


def test_a_writable_disk_that_cannot_be_opened_leaves_no_upper(open_registry, home, tmp_path, fails):
    upper = tmp_path / "upper"
    fails(3, "nbd", f"{open_registry.host}/t/nothing", "--writable", "--upper", upper)
    assert not upper.exists()


def test_a_host_that_wants_a_password_in_plain_http(home, fails):
    """Not on loopback: it is not even tried without TLS."""
    sentence = fails(4, "image", "info", "registry.invalid:5000/a/b:c")
    assert "the host's name cannot be looked up" in sentence


def test_the_password_is_nowhere_to_be_read(password_registry, client_of, repository, stack, home, tmp_path):
    """Not on the command line, not in what is said at -vv, not in the upper's configuration."""
    push_image(client_of(password_registry.host, ANNA), repository, stack[0])
    write_password(home, password_registry.host, ANNA)
    upper = tmp_path / "upper"
    arguments = [f"{password_registry.host}/{repository}", "-vv", "--writable", "--upper", upper]
    with NbdProcess(*arguments) as server:
        sha256_over_nbd(server.uri, tmp_path)
        command_line = Path(f"/proc/{server.pid}/cmdline").read_text()
        _, stdout, stderr = server.stop()
    basic = ANNA.basic().removeprefix("Basic ")
    for text in (command_line, stdout, stderr, *(path.read_text() for path in upper.glob("*.json"))):
        assert USERS["anna"] not in text
        assert basic not in text


def test_a_configuration_whose_registry_is_down(tmp_path, client_of, stack):
    """It is waited for as long as was given, and then said what it did."""
    with DockerRegistry(tmp_path / "registry") as registry, store_in(tmp_path) as store:
        push_image(client_of(registry.host), "t/x", stack[0])
        config = resolve_source(f"{registry.host}/t/x", store)
        registry.stop()
        with pytest.raises(UnavailableError, match=r"^layer \d of 3: .*onnect") as refused:
            open_image(config, store=store, deadline=Deadline.after(2))
        assert "in time" not in str(refused.value)
        registry.start()
        open_image(config, store=store).close()
