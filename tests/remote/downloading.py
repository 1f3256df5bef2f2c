"""What the tests of background download share: a blob in a registry, and a download of it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path

from tcmu_overlaybd.config.download_config import DownloadConfig
from tcmu_overlaybd.native.cache import CachedSource
from tcmu_overlaybd.remote.blob_download import WantedBlob
from tcmu_overlaybd.remote.download import Downloads, ImageDownload

MIB = 1 << 20
PATIENCE_S = 60


def config(**more: object) -> DownloadConfig:
    """At once (within a second), with no limit."""
    return DownloadConfig(**{"enable": True, "delay": 0, "delay_extra": 1, "max_mbps": 0, **more})  # type: ignore[arg-type]


def wanted(source: CachedSource, data: bytes, folder: Path) -> WantedBlob:
    return WantedBlob(source, f"sha256:{hashlib.sha256(data).hexdigest()}", folder)


def start(downloads: Downloads, *blobs: WantedBlob) -> ImageDownload:
    download = downloads.start("image", blobs)
    assert download is not None
    return download


def wait_until(is_so: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < end, f"not within {PATIENCE_S} s: {what}"
        time.sleep(0.01)


def wait_for_state(download: ImageDownload, state: str) -> None:
    def is_so() -> bool:
        return download.progress().state == state

    wait_until(is_so, f"{state}, it is {download.progress()}")


def length_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
