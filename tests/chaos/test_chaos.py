"""Two minutes in which everything goes wrong but what is read (``make soak``: thirty).

``OBD_CHAOS_SEED`` and ``OBD_CHAOS_SECONDS`` repeat a run, or make a long one.  What
happened is in ``build/chaos/SEED.log``.
"""

from __future__ import annotations

import base64
import json
import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tcmu_overlaybd.formats.zfile import Codec
from tcmu_overlaybd.image.layer_writer import LayerOptions
from tests.chaos.faulty_proxy import FaultyProxy
from tests.chaos.processes import ImageServer
from tests.chaos.story import EVENT_KINDS, Account, Chaos, ServedImage
from tests.chaos.vandal import Vandal
from tests.registry.docker_registry import DockerRegistry
from tests.registry.fixtures import ANNA, USERS, Clients
from tests.registry.images import Blob, push_image
from tests.registry.token_service import TokenService
from tests.remote.remote_disk import make_layer

MIB = 1 << 20
IS_SOAK = os.environ.get("OBD_SOAK") == "1"
SECONDS = float(os.environ.get("OBD_CHAOS_SECONDS", "1800" if IS_SOAK else "120"))
SEED = int(os.environ.get("OBD_CHAOS_SEED", "2026"))
LOGS = Path(__file__).parents[2] / "build/chaos"
CACHE_LIMIT = 20 * MIB  # of 60 that the images have
TOKEN_SECONDS = 15

KINDS = {
    "main": (64 * MIB, LayerOptions(codec=Codec.LZ4)),
    "zstd": (24 * MIB, LayerOptions(codec=Codec.ZSTD, tar=True, block_size=65536)),
    "plain": (8 * MIB, LayerOptions()),
}


@dataclass(frozen=True)
class Layer:
    blob: Blob
    raw: Path


@pytest.fixture(scope="module")
def layers(tmp_path_factory) -> Iterator[dict[str, Layer]]:
    """Half of each is random, in pieces of all sizes."""
    root = tmp_path_factory.mktemp("layers")
    made = {}
    for seed, (name, (size, options)) in enumerate(KINDS.items()):
        folder = root / name
        folder.mkdir()
        layer = make_layer(folder, half_random(size, seed), options)
        made[name] = Layer(Blob(layer.read_bytes()), folder / "raw")
    yield made
    shutil.rmtree(root)


def half_random(size: int, seed: int) -> bytes:
    rng = random.Random(seed)
    disk = bytearray()
    while len(disk) < size:
        disk += rng.randbytes(rng.randrange(1, 20_000)) + bytes(rng.randrange(20_000))
    return bytes(disk[:size])


@pytest.fixture
def folder() -> Iterator[Path]:
    """With a short name: the paths of sockets are."""
    path = Path(tempfile.mkdtemp(prefix="chaos-"))
    yield path
    shutil.rmtree(path)


@pytest.mark.timeout(SECONDS + 600)
def test_no_wrong_byte_and_no_hang_whatever_goes_wrong(layers, folder, tmp_path):
    account = Account(tmp_path / "chaos.log")
    rng = random.Random(SEED)
    with (
        TokenService(tmp_path / "tokens", USERS) as tokens,
        DockerRegistry(tmp_path / "registry", token=tokens) as registry,
        FaultyProxy(registry.host, random.Random(rng.random())) as proxy,
    ):
        tokens.lifetime_s = TOKEN_SECONDS
        references = push_all(layers, proxy.host)
        proxy.lies_about = frozenset(layers[name].blob.digest for name in ("main", "zstd"))
        chaos = Chaos(
            seed=rng.randrange(1 << 30),
            server=ImageServer(folder, write_password(folder, proxy.host), CACHE_LIMIT),
            registry=registry,
            proxy=proxy,
            vandal=Vandal(
                folder / "cache", random.Random(rng.random()), frozenset({layers["plain"].blob.digest})
            ),
            main=references.pop("main"),
            others=references,
            account=account,
        )
        try:
            chaos.run(SECONDS)
            chaos.calm_down()
        finally:
            chaos.close()
            account.note("in all", f"{account.summary(SEED, SECONDS)}, {proxy.nr_faults} answers spoilt")
            keep(tmp_path / "chaos.log", folder / "server.log")
    assert account.mismatches == []
    assert account.hangs == 0
    assert account.errors.keys() <= {"EIO"}
    assert all(account.counts[kind] for kind in EVENT_KINDS) or SECONDS < 60, account.counts


def push_all(layers: dict[str, Layer], host: str) -> dict[str, ServedImage]:
    """As ``chaos/NAME``; the main layer also in another repository, where it is another origin's."""
    clients = Clients()
    found = {}
    for name, layer in [*layers.items(), ("again", layers["main"])]:
        push_image(clients(host, ANNA), f"chaos/{name}", [layer.blob])
        found[name] = ServedImage(f"{host}/chaos/{name}:latest", layer.raw)
    clients.close()
    return found


def write_password(folder: Path, host: str) -> Path:
    auth = base64.b64encode(f"{ANNA.username}:{ANNA.password}".encode()).decode()
    path = folder / "config.json"
    path.write_text(json.dumps({"auths": {host: {"auth": auth}}}))
    path.chmod(0o600)
    return path


def keep(*logs: Path) -> None:
    LOGS.mkdir(parents=True, exist_ok=True)
    for log in logs:
        if log.exists():
            shutil.copyfile(log, LOGS / f"{log.stem}-{SEED}.log")
