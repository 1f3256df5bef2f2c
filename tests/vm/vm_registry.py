"""A registry of the test's own inside the VM, with an image that has a file system with much to fetch."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

from vm_images import MIB, make_ext4, make_layer

from tests.registry.docker_registry import DockerRegistry
from tests.registry.fixtures import ANNA, Clients
from tests.registry.images import Blob, push_image

BIG = 40 * MIB  # of a file of random bytes
NR_SMALL = 20


@dataclass(frozen=True)
class RemoteImage:
    registry: DockerRegistry
    reference: str
    raw: Path
    content: Path  # what its file system holds: big, and some small files


def make_content(folder: Path) -> Path:
    folder.mkdir()
    (folder / "big").write_bytes(os.urandom(BIG))
    for number in range(NR_SMALL):
        (folder / f"small-{number}").write_bytes(os.urandom(number * 1000))
    return folder


def push_file_system(registry: DockerRegistry, folder: Path, host: str = "") -> RemoteImage:
    """host: where clients find the registry, if that is somewhere else."""
    content = make_content(folder / "content")
    raw = make_ext4(folder / "disk.raw", content, 64 * MIB)
    layer = make_layer(raw, "--zfile", "lz4", "--tar")
    clients = Clients()
    push_image(clients(registry.host, ANNA), "vm/image", [Blob(layer.read_bytes())])
    clients.close()
    return RemoteImage(registry, f"{host or registry.host}/vm/image:latest", raw, content)


def write_password(folder: Path, host: str) -> dict[str, str]:
    """The environment of a daemon that knows it."""
    auth = {"username": ANNA.username, "password": ANNA.password}
    path = folder / "config.json"
    path.write_text(json.dumps({"auths": {host: auth}}))
    path.chmod(0o600)
    return {"DOCKER_CONFIG": str(folder)}


def seconds_of(action) -> float:
    """How long it takes."""
    begun = time.monotonic()
    action()
    return time.monotonic() - begun
