"""What an NBD server is read for a scrape of its metrics: one device, called "nbd"."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Self

from tcmu_overlaybd import __version__
from tcmu_overlaybd.errors import MissingError
from tcmu_overlaybd.image.open import OpenImage
from tcmu_overlaybd.logs.counts import counts
from tcmu_overlaybd.metrics.readings import DeviceReading, LogReading, Readings
from tcmu_overlaybd.native.core import Device
from tcmu_overlaybd.native.image import UpperStats
from tcmu_overlaybd.native.testing import is_test_build
from tcmu_overlaybd.remote.store import BlobStore

NAME = "nbd"  # not the image's, which may be a path or a reference


class NbdReadings:
    """A context manager: after its end a scrape finds no device, and none is under way that has one."""

    def __init__(self, opened: OpenImage, device: Device, store: BlobStore) -> None:
        self._opened = opened
        self._device: Device | None = device
        self._store = store
        self._started = time.time()
        self._lock = threading.Lock()  # guards the device's life

    def __call__(self) -> Readings:
        with self._lock:
            devices = [] if self._device is None else [self._read(self._device)]
        return Readings(
            version=__version__,
            is_test_build=is_test_build(),
            started=self._started,
            log=LogReading(dict(counts.lines), counts.suppressed, counts.lost),
            devices=devices,
            cache=self._store.cache_stats(),
            fetcher=self._store.fetcher_stats(),
        )

    def _read(self, device: Device) -> DeviceReading:
        size = self._opened.image.size
        return DeviceReading(NAME, "ready", size, device.stats(), device.latency(), self._read_upper())

    def _read_upper(self) -> UpperStats | None:
        try:
            return self._opened.image.upper_stats()
        except MissingError:
            return None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._lock:
            self._device = None
