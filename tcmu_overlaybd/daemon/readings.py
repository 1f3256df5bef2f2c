"""What the daemon is read for a scrape of its metrics.

A device's handles are valid under the table's lock only; it is taken for each device by
itself, so that a scrape of hundreds of them keeps no attach waiting.
"""

from __future__ import annotations

import time

from tcmu_overlaybd import __version__
from tcmu_overlaybd.daemon.device import Device
from tcmu_overlaybd.daemon.resources import Resources
from tcmu_overlaybd.daemon.served_image import ServedImage
from tcmu_overlaybd.daemon.table import DeviceTable
from tcmu_overlaybd.errors import OverlayBDError
from tcmu_overlaybd.logs.counts import counts
from tcmu_overlaybd.metrics.readings import DeviceReading, DownloadReading, LogReading, Readings
from tcmu_overlaybd.native.tcmu import Ring, RingStats
from tcmu_overlaybd.native.testing import is_test_build


class DaemonReadings:
    """Called for every scrape."""

    def __init__(self, resources: Resources) -> None:
        self._table = resources.table
        self._store = resources.store
        self._started = time.time()

    def __call__(self) -> Readings:
        devices = sorted(self._table.all(), key=lambda device: device.name)
        return Readings(
            version=__version__,
            is_test_build=is_test_build(),
            started=self._started,
            log=LogReading(dict(counts.lines), counts.suppressed, counts.lost),
            devices=[read_device(self._table, device) for device in devices],
            cache=self._store.cache_stats(),
            fetcher=self._store.fetcher_stats(),
        )


def read_device(table: DeviceTable, device: Device) -> DeviceReading:
    with table.lock:
        record, served, ring = device.record, device.served, device.ring
        if served is None:
            return DeviceReading(record.name, device.state, record.size, ring=read_ring(ring))
        return DeviceReading(
            record.name,
            device.state,
            record.size,
            stats=served.stats(),
            latency=served.device.latency(),
            upper=served.upper_stats(),
            ring=read_ring(ring),
            download=read_download(served),
        )


def read_ring(ring: Ring | None) -> RingStats | None:
    try:
        return None if ring is None else ring.stats()
    except OverlayBDError:
        return None  # the ring's thread is busy with what is more important


def read_download(served: ServedImage) -> DownloadReading | None:
    progress = served.download_progress()
    return None if progress is None else DownloadReading(progress.bytes, progress.local_bytes)
