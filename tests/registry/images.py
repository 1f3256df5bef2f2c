"""Images for tests: layers of random bytes, pushed as ``image push`` will do it."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass

from tcmu_overlaybd.registry.blob_sources import BytesBlob
from tcmu_overlaybd.registry.client import RegistryClient
from tcmu_overlaybd.registry.deadline import Deadline
from tcmu_overlaybd.registry.image_build import BuiltImage, ImageBase, build_image
from tcmu_overlaybd.registry.media_types import DOCKER, Family
from tcmu_overlaybd.registry.overlaybd_layers import RemoteLayer
from tcmu_overlaybd.registry.platforms import Platform
from tcmu_overlaybd.registry.upload import Uploader


@dataclass(frozen=True)
class Blob:
    data: bytes

    @property
    def digest(self) -> str:
        return f"sha256:{hashlib.sha256(self.data).hexdigest()}"

    @property
    def layer(self) -> RemoteLayer:
        return RemoteLayer(self.digest, len(self.data))


def random_blob(size: int, seed: int = 0) -> Blob:
    return Blob(random.Random(seed).randbytes(size))


def push_image(
    client: RegistryClient,
    repository: str,
    blobs: list[Blob],
    tag: str = "latest",
    family: Family = DOCKER,
    platform: Platform | None = None,
) -> BuiltImage:
    deadline = Deadline.after(60)
    uploader = Uploader(client, repository)
    for blob in blobs:
        uploader.upload(blob.digest, BytesBlob(blob.data), deadline)
    base = ImageBase.blank(platform or Platform.here(), family)
    image = build_image([blob.layer for blob in blobs], base)
    uploader.upload(image.config_digest, BytesBlob(image.config), deadline)
    uploader.put_manifest(tag, image.media_type, image.manifest, deadline)
    return image
