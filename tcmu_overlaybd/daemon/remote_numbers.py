"""What of a device's layers comes from registries, in numbers: for ``status``.

The requests and bytes of a blob are those of all who read it from the same repository in
this process, since they share what is fetched.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from tcmu_overlaybd.daemon.messages import CacheStatus, DownloadStatus, RemoteLayer
from tcmu_overlaybd.remote.blob import RemoteBlob
from tcmu_overlaybd.remote.download import DownloadProgress
from tcmu_overlaybd.remote.store import BlobStore


def remote_numbers(blobs: Sequence[RemoteBlob], download: DownloadProgress | None) -> dict[str, Any]:
    """The fields of a DeviceStatus that are about registries; none for an image without blobs."""
    if not blobs:
        return {}
    layers = tuple(map(remote_layer, blobs))
    errors: Counter[str] = Counter()
    for layer in layers:
        errors.update(layer.errors)
    return {
        "registry": tuple(dict.fromkeys(layer.registry for layer in layers)),
        "bytes_fetched": sum(layer.fetched for layer in layers),
        "bytes_cached": sum(layer.cached for layer in layers),
        "requests": sum(layer.requests for layer in layers),
        "fetch_errors": dict(errors),
        "remote_layers": layers,
        "download": None if download is None else DownloadStatus(**asdict(download)),
    }


def remote_layer(blob: RemoteBlob) -> RemoteLayer:
    stats = blob.stats()
    return RemoteLayer(
        registry=f"{blob.repository.host}/{blob.repository.repository}",
        digest=blob.digest,
        size=blob.size,
        cached=stats.present_bytes,
        fetched=stats.fetched_bytes,
        requests=stats.requests,
        errors=stats.errors,
        is_local=stats.is_local,
    )


def cache_numbers(store: BlobStore) -> CacheStatus:
    """Of the cache that all devices share."""
    stats, settings = store.cache_stats(), store.settings
    if stats is None:
        return CacheStatus(str(settings.folder), False, settings.limit_bytes)
    return CacheStatus(str(settings.folder), True, **asdict(stats))
