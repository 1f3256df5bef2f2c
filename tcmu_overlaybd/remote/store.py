"""The store: blobs of registries as sources of bytes, through this process's cache.

A process has one, made at little cost: registries are talked to, and the cache and the
fetcher opened, when the first blob is wanted.

::

   Reference --find_image--> layers --open_blob--> CachedSource
                 |                        |
          RegistryClient         cache, fetcher --questions--> resolver

Closing: images first, then the store.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tcmu_overlaybd.errors import FailedError, FormatError, MissingError
from tcmu_overlaybd.native.cache import CacheStats
from tcmu_overlaybd.native.fetcher import FetcherStats
from tcmu_overlaybd.registry.client import RegistryClient
from tcmu_overlaybd.registry.deadline import Deadline
from tcmu_overlaybd.registry.image_lookup import find_image
from tcmu_overlaybd.registry.overlaybd_layers import OverlaybdImage, recognise
from tcmu_overlaybd.registry.reference import Reference, RepoBlobUrl, is_digest
from tcmu_overlaybd.remote.blob import RemoteBlob
from tcmu_overlaybd.remote.engine import Engine
from tcmu_overlaybd.remote.origins import BlobOrigin
from tcmu_overlaybd.remote.settings import StoreSettings

LOOKUP_S = 30.0  # for an image's manifest


@dataclass(frozen=True)
class FoundLayers:
    """An overlaybd image that a reference names, and where its blobs are."""

    repository: RepoBlobUrl
    image: OverlaybdImage


class BlobStore:
    """Thread-safe; ``_lock`` guards what is made when it is first needed."""

    def __init__(self, settings: StoreSettings) -> None:
        self.settings = settings
        self._lock = threading.Lock()
        self._clients: dict[tuple[str, str | None], RegistryClient] = {}
        self._engine: Engine | None = None
        self._is_closed = False

    def client(self, host: str, scheme: str | None = None) -> RegistryClient:
        """scheme None: as the host speaks (registry/reference.py)."""
        with self._lock:
            self._require_open()
            client = self._clients.get((host, scheme))
            if client is None:
                client = self._clients[host, scheme] = RegistryClient(
                    host,
                    self.settings.transport,
                    self.settings.credentials,
                    insecure_hosts=self.settings.insecure_hosts,
                    scheme=scheme,
                )
            return client

    def find_layers(self, reference: Reference, deadline: Deadline | None = None) -> FoundLayers:
        """Raises MissingError, AuthenticationError, UnavailableError; FormatError for other images."""
        client = self.client(reference.host)
        found = find_image(client, reference, deadline or Deadline.after(LOOKUP_S))
        image = recognise(found.manifest, str(reference))
        scheme = client.conversation.base.partition(":")[0]
        with self._lock:  # what its conversation has learned serves its blobs too
            self._clients.setdefault((reference.host, scheme), client)
        return FoundLayers(RepoBlobUrl(scheme, reference.host, reference.repository), image)

    def open_blob(self, repository: RepoBlobUrl, digest: str, size: int) -> RemoteBlob:
        """A blob of size bytes, 0 when only the registry knows; nothing of it is fetched yet.

        Raises BusyError when another process has the cache.
        """
        if not is_digest(digest):
            raise FormatError(f"{digest or 'a blob'}: a lower in a registry needs its digest, sha256:...")
        client = self.client(repository.host, repository.scheme)
        size = size or _size_of(client, repository.repository, digest)
        with self._lock:
            self._require_open()
            if self._engine is None:
                self._engine = Engine(self.settings)
            engine = self._engine
        return engine.open_blob(BlobOrigin(client, repository.repository, digest), repository, digest, size)

    def layer_folder(self, digest: str) -> Path:
        """Where a whole blob is kept that has no folder of its own (background download)."""
        return self.settings.folder / "layers" / digest.partition(":")[2]

    def cache_stats(self) -> CacheStats | None:
        """None as long as nothing was wanted of it."""
        with self._lock:
            return None if self._engine is None else self._engine.cache.stats()

    def fetcher_stats(self) -> FetcherStats | None:
        """None as long as nothing was fetched."""
        with self._lock:
            return None if self._engine is None else self._engine.fetcher.stats()

    def close(self) -> None:
        """All blobs are closed before; what still waits for a registry ends."""
        with self._lock:
            self._is_closed = True
            clients, self._clients = set(self._clients.values()), {}
            engine, self._engine = self._engine, None
        for client in clients:
            client.close()
        if engine is not None:
            engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _require_open(self) -> None:
        if self._is_closed:
            raise FailedError("the store of blobs is closed: this process is ending")


def _size_of(client: RegistryClient, repository: str, digest: str) -> int:
    size = client.head_blob(repository, digest, Deadline.after(LOOKUP_S))
    if size is None:
        raise MissingError(f"{client.host}/{repository}: there is no blob {digest}")
    if size == 0:
        raise FormatError(f"{client.host}/{repository}: blob {digest}: it is empty, so it is no layer")
    return size
