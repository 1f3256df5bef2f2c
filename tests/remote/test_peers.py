"""What other people's tools make of an image that ``image push`` pushed."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tcmu_overlaybd.image.open import open_image
from tests.registry.fixtures import USERS
from tests.remote.transfer import make_layer, results

CREDS = f"anna:{USERS['anna']}"
START_S = 20.0

# What is not needed to pull, and needs what a container may not have.
CONTAINERD = """
version = 2
root = "{folder}/root"
state = "{folder}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
[grpc]
  address = "{folder}/containerd.sock"
[ttrpc]
  address = "{folder}/containerd.sock.ttrpc"
"""


@pytest.fixture
def layers(tmp_path: Path) -> list[Path]:
    return [make_layer(tmp_path, "one"), make_layer(tmp_path, "two", tar=False)]


@pytest.fixture
def ctr() -> Iterator[Callable[..., str]]:
    """Runs ctr, which must succeed, against a containerd of this test's own."""
    program = shutil.which("containerd")
    if program is None:
        pytest.skip("containerd is not installed")
    if os.geteuid() != 0:
        pytest.skip("containerd runs as root only")
    folder = Path(tempfile.mkdtemp(prefix="obd-ctr-"))  # the name of a socket in it must be short
    config = folder / "config.toml"
    config.write_text(CONTAINERD.format(folder=folder))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, "--config", str(config)], stdout=log, stderr=log)
    address = ["ctr", "--address", f"{folder}/containerd.sock", "--namespace", "test"]

    def run(*arguments: str) -> str:
        done = subprocess.run([*address, *arguments], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    try:
        until = time.monotonic() + START_S
        while subprocess.run([*address, "version"], capture_output=True, check=False).returncode != 0:
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < until, (folder / "log").read_text()
            time.sleep(0.1)
        yield run
    finally:
        process.terminate()
        process.wait(START_S)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("family", [[], ["--oci"]], ids=["docker", "OCI"])
def test_containerd_pulls_and_unpacks_what_was_pushed(
    ctr, transfer, password_registry, repository, layers, family
):
    """Each layer is for it a tar of one file, which is the layer."""
    reference = f"{password_registry.host}/{repository}:v1"
    pushed = results(transfer("push", *family, *layers, reference))
    ctr("images", "pull", "--plain-http", "--user", CREDS, "--snapshotter", "native", reference)
    assert pushed["digest"] in ctr("images", "list", f"name=={reference}")
    chain = ctr("snapshots", "--snapshotter", "native", "list").split("\n")[1:]
    assert len([line for line in chain if "Committed" in line]) == len(layers)


def test_a_copy_by_skopeo_in_another_registry_opens_there(
    transfer, password_registry, open_registry, repository, layers, tmp_path, program
):
    source, copy = (f"{registry.host}/{repository}:v1" for registry in (password_registry, open_registry))
    results(transfer("push", *layers, source))
    policy = tmp_path / "policy.json"
    policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    unsafe = ["--src-tls-verify=false", "--dest-tls-verify=false", "--preserve-digests"]
    places = [f"docker://{source}", f"docker://{copy}"]
    skopeo = ["skopeo", "--policy", str(policy), "copy", *unsafe, "--src-creds", CREDS, *places]
    subprocess.run(skopeo, check=True, timeout=60, capture_output=True)
    exported = tmp_path / "disk.raw"
    folders = {"STATE_DIRECTORY": str(tmp_path / "state"), "XDG_CACHE_HOME": str(tmp_path / "state")}
    done = program("image", "export", copy, "-o", exported, env=folders)
    assert done.returncode == 0, done.stderr
    with open_image(layers) as opened:
        expected = opened.image.read(opened.image.size, 0, 30_000)
    assert hashlib.sha256(exported.read_bytes()).digest() == hashlib.sha256(expected).digest()
