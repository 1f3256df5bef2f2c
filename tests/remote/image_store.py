"""Stores of blobs as a process has them, and images to be opened from them."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec

from tcmu_overlaybd.formats.zfile import Codec
from tcmu_overlaybd.image.importing import import_raw
from tcmu_overlaybd.image.layer_writer import LayerOptions
from tcmu_overlaybd.registry.credentials import Credential
from tcmu_overlaybd.registry.docker_config import DockerConfig
from tcmu_overlaybd.registry.transport import Transport
from tcmu_overlaybd.remote.settings import StoreSettings
from tcmu_overlaybd.remote.store import BlobStore
from tests.registry.images import Blob

DISK_SIZE = 64 << 20


def store_in(folder: Path, *, ca_file: Path | None = None, **more: object) -> BlobStore:
    """With passwords of ``folder/config.json``, and nothing of this machine's configuration."""
    settings = StoreSettings(
        folder=folder / "cache",
        free_floor_bytes=0,
        transport=Transport(ca_file=ca_file, proxy=""),
        credentials=DockerConfig(folder / "config.json"),
        **more,  # type: ignore[arg-type]
    )
    return BlobStore(settings)


def write_password(folder: Path, host: str, credential: Credential) -> Path:
    """A docker configuration that knows credential for host."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "config.json"
    auth = {"username": credential.username, "password": credential.password}
    path.write_bytes(msgspec.json.encode({"auths": {host: auth}}))
    path.chmod(0o600)
    return path


def make_stack(folder: Path, nr_layers: int, layer_bytes: int) -> tuple[list[Blob], bytes]:
    """Layers as an image has them, each with layer_bytes of its own, and the disk that they make."""
    disk = bytearray(DISK_SIZE)
    layers = []
    for number in range(nr_layers):
        piece = random.Random(number).randbytes(layer_bytes)
        at = number * (DISK_SIZE // nr_layers) // 4096 * 4096
        disk[at : at + layer_bytes] = piece
        raw, layer = folder / "raw", folder / f"layer-{number}"
        with raw.open("wb") as file:
            file.truncate(DISK_SIZE)
            file.seek(at)
            file.write(piece)
        import_raw(raw, layer, LayerOptions(codec=Codec.LZ4, tar=True))
        layers.append(Blob(layer.read_bytes()))
    return layers, bytes(disk)
