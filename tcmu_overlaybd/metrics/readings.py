"""What one scrape has read of the process: plain values, with no handle behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tcmu_overlaybd.native.cache import CacheStats
from tcmu_overlaybd.native.core import CommandKind, DeviceStats, Latency, LatencyClass
from tcmu_overlaybd.native.fetcher import FetcherStats
from tcmu_overlaybd.native.image import UpperStats
from tcmu_overlaybd.native.tcmu import RingStats


@dataclass(frozen=True, slots=True)
class DownloadReading:
    """Bytes of the layers of one device that are to become local files, and that have."""

    bytes: int
    local_bytes: int


@dataclass(frozen=True, slots=True)
class DeviceReading:
    """One device.  None: it has no such part, or not yet."""

    name: str
    state: str
    size: int = 0  # bytes
    stats: DeviceStats | None = None
    latency: Mapping[tuple[CommandKind, LatencyClass], Latency] = field(default_factory=dict)
    upper: UpperStats | None = None
    ring: RingStats | None = None
    download: DownloadReading | None = None


@dataclass(frozen=True, slots=True)
class LogReading:
    lines: Mapping[str, int]  # by level
    suppressed: int  # lines that the rate limit kept back
    lost: int  # records of C that found its queue full


@dataclass(frozen=True, slots=True)
class Readings:
    version: str
    is_test_build: bool
    started: float  # seconds since the epoch
    log: LogReading
    devices: Sequence[DeviceReading] = ()
    cache: CacheStats | None = None
    fetcher: FetcherStats | None = None
