"""What the tests of push and pull share: small layers, and the program as one who is logged in."""

from __future__ import annotations

import base64
import json
import random
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

from tcmu_overlaybd.image.importing import import_raw
from tcmu_overlaybd.image.layer_writer import LayerOptions
from tests.registry.docker_registry import DockerRegistry
from tests.registry.fixtures import ANNA

MIB = 1 << 20


class Account:
    """A user's home: a docker configuration with ANNA's password for some hosts."""

    def __init__(self, folder: Path, *hosts: str) -> None:
        self.env = {"DOCKER_CONFIG": str(folder / "docker"), "XDG_CACHE_HOME": str(folder / "cache")}
        self.uploads = folder / "cache/tcmu-overlaybd/uploads"
        self.log_in(*hosts)

    def log_in(self, *hosts: str, password: str = ANNA.password) -> None:
        folder = Path(self.env["DOCKER_CONFIG"])
        folder.mkdir(parents=True, exist_ok=True)
        auth = base64.b64encode(f"anna:{password}".encode()).decode()
        config = folder / "config.json"
        config.write_text(json.dumps({"auths": {host: {"auth": auth} for host in hosts}}))
        config.chmod(0o600)


def make_layer(
    folder: Path, name: str, size: int = MIB, *, tar: bool = True, seed: int | None = None
) -> Path:
    """A committed layer of size random bytes; its name gives the seed."""
    raw, layer = folder / f"{name}.raw", folder / name
    raw.write_bytes(random.Random(name if seed is None else seed).randbytes(size))
    import_raw(raw, layer, LayerOptions(tar=tar))
    raw.unlink()
    return layer


def results(done: CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def outcomes(done: CompletedProcess[str]) -> list[str]:
    return [layer["outcome"] for layer in results(done)["layers"]]


def requests_of(registry: DockerRegistry, method: str) -> list[str]:
    """What the registry's log has of a method: ``PATCH /v2/...``."""
    lines = registry.log.read_text().splitlines()
    return [line.split('"')[1] for line in lines if f'"{method} /v2/' in line]
