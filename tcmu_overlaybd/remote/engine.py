"""What fetches blobs and keeps them: cache, fetcher and resolver, which come and go together.

They are closed in the order in which they need each other: resolver, fetcher, cache.  With
the fetcher everything ends that waits for a registry, so whoever is just opening an image
gives up then and closes its blobs.  The cache, whose memory they use, is closed after the
last of them; when that does not come in time, it is left to the end of the process.
"""

from __future__ import annotations

import itertools
import logging
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from tcmu_overlaybd.errors import FailedError
from tcmu_overlaybd.native.cache import Cache, CachedSource
from tcmu_overlaybd.native.fetcher import Fetcher, Origin
from tcmu_overlaybd.registry.reference import RepoBlobUrl
from tcmu_overlaybd.remote.blob import RemoteBlob
from tcmu_overlaybd.remote.origins import BlobOrigin
from tcmu_overlaybd.remote.resolver import Resolver
from tcmu_overlaybd.remote.settings import StoreSettings

logger = logging.getLogger(__name__)

CLOSE_TIMEOUT_S = 5.0


class Engine:
    """``_changed`` guards what is below it.  Thread-safe."""

    def __init__(self, settings: StoreSettings) -> None:
        self._stand_in: tempfile.TemporaryDirectory[str] | None = None
        self.cache = self._open_cache(settings)
        try:
            self.fetcher = Fetcher.open(**asdict(settings.transport.curl_values()))
        except BaseException:
            self.cache.close()
            raise
        self._resolver = Resolver(self.fetcher)
        self._numbers = itertools.count(1)
        self._changed = threading.Condition()
        self._nr_opening = 0
        self._nr_open = 0  # blobs
        self._is_closing = False

    def open_blob(self, origin: BlobOrigin, repository: RepoBlobUrl, digest: str, size: int) -> RemoteBlob:
        """A blob of size bytes.  Raises FailedError when this is being closed."""
        number = next(self._numbers)
        with self._opening():
            self._resolver.add(number, origin)
            try:
                with Origin.open(self.fetcher, number, size, origin.name) as handle:
                    source = CachedSource.open(self.cache, handle, bytes.fromhex(digest.partition(":")[2]))
            except BaseException:
                self._resolver.remove(number)
                raise
        return RemoteBlob(source, repository, digest, size, lambda: self._forget(number))

    def close(self) -> None:
        with self._changed:
            self._is_closing = True
            self._changed.wait_for(lambda: self._nr_opening == 0)  # they wait for nobody
        self._resolver.close()
        self.fetcher.close()
        with self._changed:
            are_closed = self._changed.wait_for(lambda: self._nr_open == 0, CLOSE_TIMEOUT_S)
        if not are_closed:
            logger.warning("the cache is left open: %d blobs are still in use", self._nr_open)
            return
        self.cache.close()
        if self._stand_in is not None:
            self._stand_in.cleanup()

    @contextmanager
    def _opening(self) -> Iterator[None]:
        """One more blob is open when the block ends well."""
        with self._changed:
            if self._is_closing:
                raise FailedError("the store of blobs is closed: this process is ending")
            self._nr_opening += 1
        nr_new = 0
        try:
            yield
            nr_new = 1
        finally:
            with self._changed:
                self._nr_opening -= 1
                self._nr_open += nr_new
                self._changed.notify_all()

    def _forget(self, number: int) -> None:
        """A blob has been closed."""
        self._resolver.remove(number)
        with self._changed:
            self._nr_open -= 1
            self._changed.notify_all()

    def _open_cache(self, settings: StoreSettings) -> Cache:
        try:
            make_folder(settings.folder)
            return _open_cache_in(settings.folder, settings)
        except FailedError as error:
            if not settings.has_stand_in:
                raise
            logger.info("%s: what this process fetches is kept in a temporary folder only", error)
            self._stand_in = tempfile.TemporaryDirectory(prefix="tcmu-overlaybd-cache-")
            return _open_cache_in(Path(self._stand_in.name), settings)


def make_folder(folder: Path) -> None:
    """With those above it; private.  Raises FailedError."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise FailedError(f"{folder}: the cache's folder cannot be made: {error.strerror}") from error


def _open_cache_in(folder: Path, settings: StoreSettings) -> Cache:
    return Cache.open(
        str(folder),
        limit_bytes=settings.limit_bytes,
        free_floor_bytes=settings.free_floor_bytes,
        chunk_size=settings.chunk_size,
    )
