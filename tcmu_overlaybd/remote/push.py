"""``image push``: layers into a repository, then the manifest that makes an image of them.

The layers go up side by side, each by the cheapest way there is: it may be there, may be
mounted from another repository of the registry, or has to be sent.  The manifest is last,
so a tag never names an image that is not all there.

After a failure the uploads that are under way stop at their next part; what has arrived
stays in the registry, and the next push finds it there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial

from tcmu_overlaybd.errors import UsageError
from tcmu_overlaybd.registry.blob_sources import BlobSource, BytesBlob
from tcmu_overlaybd.registry.client import RegistryClient
from tcmu_overlaybd.registry.deadline import Deadline
from tcmu_overlaybd.registry.image_build import ImageBase, build_image
from tcmu_overlaybd.registry.overlaybd_layers import RemoteLayer
from tcmu_overlaybd.registry.reference import Reference
from tcmu_overlaybd.registry.upload import Outcome, Uploader
from tcmu_overlaybd.remote.push_layers import LocalLayer, PushLayer, RegistryLayer
from tcmu_overlaybd.remote.side_by_side import LayerProgress, Stop, side_by_side

HASH_SIZE = 1 << 20  # bytes read at a time

ClientOf = Callable[[str], RegistryClient]


@dataclass(frozen=True)
class PushedLayer:
    digest: str
    size: int  # bytes
    outcome: Outcome


@dataclass(frozen=True)
class PushedImage:
    """``digest`` and ``media_type`` of the manifest; layers lowest first."""

    reference: Reference
    digest: str
    media_type: str
    layers: tuple[PushedLayer, ...]


class ImagePush:
    """Pushes one image to the tag target.  Every wait ends at deadline."""

    def __init__(
        self,
        client_of: ClientOf,
        uploader: Uploader,
        target: Reference,
        deadline: Deadline,
        progress: LayerProgress,
    ) -> None:
        if target.digest:
            raise UsageError(f"{target}: an image is pushed to a tag; its digest comes out of that")
        self._client_of = client_of
        self._uploader = uploader
        self._target = target
        self._deadline = deadline
        self._progress = progress
        self._stop = Stop()

    def run(self, layers: Sequence[PushLayer], base: ImageBase, comment: str = "") -> PushedImage:
        """Raises UsageError without layers, and what RegistryClient, Uploader and reading layers raise."""
        if not layers:
            raise UsageError("there is nothing to push: the image has no layers")
        tag = self._target.target
        self._uploader.check(tag, self._deadline)
        pushed = side_by_side(self._push_layer, layers, self._stop)
        image = build_image([remote for remote, _ in pushed], base, comment)
        self._uploader.upload(image.config_digest, BytesBlob(image.config), self._deadline)
        self._uploader.put_manifest(tag, image.media_type, image.manifest, self._deadline)
        done = tuple(PushedLayer(remote.digest, remote.size, outcome) for remote, outcome in pushed)
        return PushedImage(self._target, image.manifest_digest, image.media_type, done)

    def _push_layer(self, number: int, layer: PushLayer) -> tuple[RemoteLayer, Outcome]:
        with self._open(layer) as opened:
            blob = StoppableBlob(opened, self._stop)
            remote = layer.layer if isinstance(layer, RegistryLayer) else self._digested(blob, number)
            outcome = self._uploader.upload(
                remote.digest,
                blob,
                self._deadline,
                mount_from=self._mount_from(layer),
                progress=partial(self._progress, number, "upload"),
            )
        self._progress(number, outcome, blob.size, blob.size)
        return remote, outcome

    def _open(self, layer: PushLayer) -> AbstractContextManager[BlobSource]:
        if isinstance(layer, LocalLayer):
            return layer.open()
        return layer.open(self._client_of(layer.host), self._deadline)

    def _mount_from(self, layer: PushLayer) -> str:
        if isinstance(layer, LocalLayer) or layer.host != self._target.host:
            return ""
        return layer.repository if layer.repository != self._target.repository else ""

    def _digested(self, blob: BlobSource, number: int) -> RemoteLayer:
        total = hashlib.sha256()
        for offset in range(0, blob.size, HASH_SIZE):
            piece = blob.read(offset, min(HASH_SIZE, blob.size - offset))
            total.update(piece)
            self._progress(number, "digest", offset + len(piece), blob.size)
        return RemoteLayer(f"sha256:{total.hexdigest()}", blob.size)


class StoppableBlob:
    """A blob that can be read until stop is set."""

    def __init__(self, blob: BlobSource, stop: Stop) -> None:
        self._blob = blob
        self._stop = stop
        self.size = blob.size

    def read(self, offset: int, length: int) -> bytes:
        self._stop.check()
        return self._blob.read(offset, length)
