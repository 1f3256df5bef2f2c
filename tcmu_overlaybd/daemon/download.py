"""The background download of one device: begun when it is ready, ended before its image closes.

It is a convenience: whatever is wrong with it is a line of the log, and nothing to the device.
"""

from __future__ import annotations

import logging
import threading

from tcmu_overlaybd.errors import OverlayBDError
from tcmu_overlaybd.image.lowers import whole_blobs
from tcmu_overlaybd.image.open import OpenImage
from tcmu_overlaybd.lio.own_disks import own_disk_below
from tcmu_overlaybd.remote.blob_download import WantedBlob
from tcmu_overlaybd.remote.download import DownloadProgress, Downloads, ImageDownload
from tcmu_overlaybd.remote.store import BlobStore

logger = logging.getLogger(__name__)


class DeviceDownload:
    """A start may come when the device is being detached already: after ``stop`` there is none."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()  # guards both
        self._download: ImageDownload | None = None
        self._is_stopped = False

    def start(self, opened: OpenImage, downloads: Downloads, store: BlobStore) -> None:
        with self._lock:
            if self._is_stopped:
                return
            try:
                self._download = self._begin(opened, downloads, store)
            except OverlayBDError as error:
                logger.warning("%s: no background download: %s", self._name, error)
            except Exception:
                logger.exception("%s: no background download", self._name)

    def stop(self) -> None:
        with self._lock:
            self._is_stopped = True
            if self._download is not None:
                self._download.stop()

    def progress(self) -> DownloadProgress | None:
        download = self._download
        return None if download is None else download.progress()

    def _begin(self, opened: OpenImage, downloads: Downloads, store: BlobStore) -> ImageDownload | None:
        blobs = whole_blobs(opened.config, opened.layers, store)
        allowed = [blob for blob in blobs if self._may_have(blob)]
        return downloads.start(self._name, allowed, opened.config.own_download)

    def _may_have(self, blob: WantedBlob) -> bool:
        """As with an upper: short of memory, the machine would hang (lio/own_disks.py)."""
        disk = own_disk_below(blob.folder)
        if disk:
            logger.warning(
                "%s: not downloaded to %s: it lies on %s, a disk of ours", self._name, blob.folder, disk
            )
        return not disk
