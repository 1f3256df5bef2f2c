"""``image pull``: the blobs of an image, side by side, and the configuration that stacks them.

What fails leaves the starts of blobs behind, which the next pull goes on with, and no
configuration (``pull_folder.py``).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from tcmu_overlaybd.config.image_config import ImageConfig, Lower, save_image_config
from tcmu_overlaybd.config.json_file import sync_folder
from tcmu_overlaybd.config.upper_dir import CONFIG_NAME
from tcmu_overlaybd.errors import CorruptError
from tcmu_overlaybd.registry.blob_fetch import BlobStart, Progress
from tcmu_overlaybd.registry.client import RegistryClient
from tcmu_overlaybd.registry.deadline import Deadline
from tcmu_overlaybd.registry.image_lookup import find_image
from tcmu_overlaybd.registry.overlaybd_layers import RemoteLayer, recognise
from tcmu_overlaybd.registry.platforms import Platform
from tcmu_overlaybd.registry.reference import Reference, RepoBlobUrl
from tcmu_overlaybd.remote.pull_folder import clear, disk_errors, file_name, locked
from tcmu_overlaybd.remote.side_by_side import LayerProgress, Stop, side_by_side

log = logging.getLogger(__name__)

READ_SIZE = 1 << 20  # bytes


@dataclass(frozen=True)
class PulledLayer:
    """``fetched``: bytes that came from the registry, the rest was here."""

    digest: str
    size: int
    path: Path
    fetched: int


@dataclass(frozen=True)
class PulledImage:
    """``digest`` of the manifest; layers lowest first."""

    reference: Reference
    digest: str
    config: Path
    layers: tuple[PulledLayer, ...]


class ImagePull:
    """Pulls images of one registry.  Every wait ends at deadline."""

    def __init__(self, client: RegistryClient, deadline: Deadline, progress: LayerProgress) -> None:
        self._client = client
        self._deadline = deadline
        self._progress = progress
        self._stop = Stop()

    def run(self, reference: Reference, folder: Path, platform: Platform | None = None) -> PulledImage:
        """Fills folder, made if absent.

        Raises BusyError when another pull fills it, FailedError when it holds something
        else, NoSpaceError, and what find_image, recognise and RegistryClient raise.
        """
        found = find_image(self._client, reference, self._deadline, platform)
        layers = recognise(found.manifest, str(reference)).layers
        url = RepoBlobUrl.parse(self._client.blob_url(reference.repository, ""))
        with locked(folder), disk_errors(folder):
            clear(folder, layers)
            work = partial(self._pull_layer, reference.repository, folder)
            pulled = side_by_side(work, layers, self._stop)
            config = folder / CONFIG_NAME
            save_image_config(config, describe(url, pulled))
        return PulledImage(reference, found.digest, config, tuple(pulled))

    def _pull_layer(self, repository: str, folder: Path, number: int, layer: RemoteLayer) -> PulledLayer:
        path = folder / file_name(layer)
        tell = partial(self._progress, number, "download")
        fetched = 0
        if not self._is_there(path, layer):
            with disk_errors(path):
                fetched = self._fetch(repository, layer, path, tell)
        tell(layer.size, layer.size)
        return PulledLayer(layer.digest, layer.size, path, fetched)

    def _is_there(self, path: Path, layer: RemoteLayer) -> bool:
        if not path.exists():
            return False
        with path.open("rb") as file:
            found = self._read_start(file)
        return found.size == layer.size and found.digest == layer.digest

    def _fetch(self, repository: str, layer: RemoteLayer, path: Path, tell: Progress) -> int:
        """Bytes that had to come.  What an earlier pull left is used unless it turns out wrong."""
        partial_path = path.with_name(path.name + ".partial")
        with partial_path.open("a+b") as file:
            have = self._read_start(file)
            begun = have.size
            try:
                self._download(repository, layer, file, have, tell)
            except CorruptError as error:
                if not begun:
                    raise
                log.info("%s; fetched anew, as %d bytes of it were from an earlier pull", error, begun)
                begun = 0
                self._download(repository, layer, file, BlobStart(), tell)
            file.flush()
            os.fsync(file.fileno())
        partial_path.rename(path)
        sync_folder(path.parent)
        return layer.size - begun

    def _download(
        self, repository: str, layer: RemoteLayer, file: BinaryIO, have: BlobStart, tell: Progress
    ) -> None:
        """Appends to file what have lacks; empties it when all together is not the layer."""

        def write(piece: bytes) -> None:
            self._stop.check()
            file.write(piece)

        try:
            self._client.download_blob(
                repository, layer.digest, layer.size, write, self._deadline, have=have, progress=tell
            )
        except CorruptError:
            file.truncate(0)
            raise

    def _read_start(self, file: BinaryIO) -> BlobStart:
        have = BlobStart()
        file.seek(0)
        while piece := file.read(READ_SIZE):
            self._stop.check()
            have.add(piece)
        return have


def describe(url: RepoBlobUrl, layers: Sequence[PulledLayer]) -> ImageConfig:
    """Files by their names, so that the folder can be moved; where they are from, for a push."""
    lowers = tuple(Lower(file=layer.path.name, digest=layer.digest, size=layer.size) for layer in layers)
    return ImageConfig(repo_blob_url=str(url), lowers=lowers)
