"""Every metric there is, one row each: its name, kind, help, labels, and where its values come from.

Names follow Prometheus: base units, ``_total`` for counters.  Labels are bounded: ``device``
by the daemon's limit of devices, ``host`` by the fetcher's 17 rows, all others by an enum.
None is an image's name, a URL or a path, so none can hold a secret.  A counter of a device
starts anew when its image is opened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeVar

from tcmu_overlaybd.metrics.readings import DeviceReading, Readings
from tcmu_overlaybd.native.cache import CacheStats
from tcmu_overlaybd.native.core import DeviceStats, Latency
from tcmu_overlaybd.native.fetcher import HostTraffic
from tcmu_overlaybd.native.image import UpperStats
from tcmu_overlaybd.native.tcmu import RingStats

PREFIX = "tcmu_overlaybd_"
OTHER_HOSTS = "other"
DEVICE_STATES = ("attaching", "opening", "ready", "broken", "detaching")

Kind = Literal["counter", "gauge", "histogram"]
Labels = tuple[str, ...]  # values, in the order of the names
Value = float | Latency
Samples = Iterable[tuple[Labels, Value]]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Family:
    """``name`` is what is scraped, without the suffixes of a histogram's series."""

    name: str
    kind: Kind
    help: str
    labels: Labels
    samples: Callable[[Readings], Samples]


# ---- where values come from


def _one(value: Callable[[Readings], float]) -> Callable[[Readings], Samples]:
    return lambda readings: [((), value(readings))]


def _of(part: Callable[[Readings], T | None], value: Callable[[T], float]) -> Callable[[Readings], Samples]:
    """One value of a part of the process that may not be there."""

    def samples(readings: Readings) -> Samples:
        found = part(readings)
        return [] if found is None else [((), value(found))]

    return samples


def _each(
    part: Callable[[DeviceReading], T | None], value: Callable[[T], float]
) -> Callable[[Readings], Samples]:
    """One value of each device that has the part."""

    def samples(readings: Readings) -> Iterator[tuple[Labels, Value]]:
        for device in readings.devices:
            found = part(device)
            if found is not None:
                yield (device.name,), value(found)

    return samples


def _each_of(values: Callable[[DeviceStats], dict[str, int]]) -> Callable[[Readings], Samples]:
    """Several values of each device, told apart by one label more."""

    def samples(readings: Readings) -> Iterator[tuple[Labels, Value]]:
        for device in readings.devices:
            if device.stats is not None:
                for label, value in values(device.stats).items():
                    yield (device.name, label), value

    return samples


def _hosts(value: Callable[[HostTraffic], float]) -> Callable[[Readings], Samples]:
    def samples(readings: Readings) -> Iterator[tuple[Labels, Value]]:
        if readings.fetcher is not None:
            for host, traffic in readings.fetcher.hosts.items():
                yield (host or OTHER_HOSTS,), value(traffic)

    return samples


def _latency(readings: Readings) -> Iterator[tuple[Labels, Value]]:
    for device in readings.devices:
        for (kind, source), latency in device.latency.items():
            yield (device.name, kind.name.lower(), source.name.lower()), latency


def _states(readings: Readings) -> Iterator[tuple[Labels, Value]]:
    states = [device.state for device in readings.devices]
    for state in DEVICE_STATES:
        yield (state,), states.count(state)


def _build(readings: Readings) -> Samples:
    return [((readings.version, "test" if readings.is_test_build else "release"), 1)]


def _log_lines(readings: Readings) -> Samples:
    return [((level,), lines) for level, lines in readings.log.lines.items()]


def _chunk_errors(readings: Readings) -> Samples:
    errors = {} if readings.fetcher is None else readings.fetcher.errors
    return [((error,), nr) for error, nr in errors.items()]


def _cache(readings: Readings) -> CacheStats | None:
    return readings.cache


def _stats(device: DeviceReading) -> DeviceStats | None:
    return device.stats


def _upper(device: DeviceReading) -> UpperStats | None:
    return device.upper


def _ring(device: DeviceReading) -> RingStats | None:
    return device.ring


# ---- the rows


def _row(
    kind: Kind, name: str, text: str, samples: Callable[[Readings], Samples], labels: Labels = ()
) -> Family:
    return Family(PREFIX + name, kind, text, labels, samples)


DEVICE = ("device",)

PROCESS = (
    _row("gauge", "build_info", "Always 1; the labels say what runs.", _build, ("version", "build")),
    _row(
        "gauge", "start_time_seconds", "When the process started, since the epoch.", _one(lambda r: r.started)
    ),
    _row("counter", "log_lines_total", "Lines written to the log.", _log_lines, ("level",)),
    _row(
        "counter",
        "log_suppressed_lines_total",
        "Lines that the log's rate limit kept back.",
        _one(lambda r: r.log.suppressed),
    ),
    _row(
        "counter",
        "log_lost_records_total",
        "Log records of the data plane that found their queue full.",
        _one(lambda r: r.log.lost),
    ),
)

COMMANDS = (
    _row("gauge", "devices", "Devices by state.", _states, ("state",)),
    _row("gauge", "device_size_bytes", "Size of the disk.", _each(lambda d: d, lambda d: d.size), DEVICE),
    _row(
        "histogram",
        "command_duration_seconds",
        "Time from a command's arrival to its answer, by what it had to wait for.",
        _latency,
        ("device", "command", "source"),
    ),
    _row(
        "counter",
        "command_bytes_total",
        "Bytes of commands that ended well.",
        _each_of(lambda s: s.bytes),
        ("device", "command"),
    ),
    _row(
        "counter",
        "command_errors_total",
        "Commands that failed, by why.",
        _each_of(lambda s: s.errors),
        ("device", "error"),
    ),
    _row(
        "counter",
        "read_bytes_total",
        "Bytes that reads returned, by where they came from.",
        _each_of(lambda s: s.bytes_from),
        ("device", "source"),
    ),
    _row(
        "gauge",
        "commands_in_flight",
        "Commands not answered yet that left the front's thread.",
        _each(_stats, lambda s: s.in_flight),
        DEVICE,
    ),
    _row(
        "gauge",
        "commands_parked",
        "Of those in flight, waiting for data.",
        _each(_stats, lambda s: s.parked),
        DEVICE,
    ),
    _row(
        "gauge",
        "parked_bytes",
        "Missing bytes that parked commands are allowed to fetch now.",
        _each(_stats, lambda s: s.parked_bytes),
        DEVICE,
    ),
    _row(
        "counter",
        "parks_total",
        "Times a command was parked, or paused for another try.",
        _each(_stats, lambda s: s.parks),
        DEVICE,
    ),
    _row(
        "gauge",
        "oldest_command_seconds",
        "Age of the oldest command in flight.",
        _each(_stats, lambda s: s.oldest_ms / 1000),
        DEVICE,
    ),
)

UPPERS = (
    _row(
        "gauge",
        "upper_unflushed_bytes",
        "Acknowledged, not yet synced.",
        _each(_upper, lambda u: u.unflushed_bytes),
        DEVICE,
    ),
    _row(
        "counter",
        "upper_flush_requests_total",
        "Flushes asked for.",
        _each(_upper, lambda u: u.nr_flush_calls),
        DEVICE,
    ),
    _row(
        "counter",
        "upper_flushes_total",
        "Flushes made: pairs of syncs, each for all that asked meanwhile.",
        _each(_upper, lambda u: u.nr_flushes),
        DEVICE,
    ),
    _row(
        "gauge", "upper_log_bytes", "Size of the upper's data.", _each(_upper, lambda u: u.log_bytes), DEVICE
    ),
    _row(
        "gauge",
        "upper_live_bytes",
        "Of that, what is still visible.",
        _each(_upper, lambda u: u.live_bytes),
        DEVICE,
    ),
    _row(
        "gauge",
        "upper_segments",
        "Entries of the upper's index in memory.",
        _each(_upper, lambda u: u.nr_segments),
        DEVICE,
    ),
    _row(
        "gauge",
        "upper_journal_slots",
        "Writes that the journal can hold unflushed.",
        _each(_upper, lambda u: u.nr_journal_slots),
        DEVICE,
    ),
    _row(
        "gauge",
        "upper_journal_used_slots",
        "Writes that it holds.",
        _each(_upper, lambda u: u.nr_journal_used),
        DEVICE,
    ),
    _row(
        "gauge",
        "upper_replayed_records",
        "Journal records applied when it was opened.",
        _each(_upper, lambda u: u.replayed),
        DEVICE,
    ),
    _row(
        "gauge",
        "upper_failed",
        "1 when a sync has failed and the upper is read-only.",
        _each(_upper, lambda u: u.is_failed),
        DEVICE,
    ),
)

RINGS = (
    _row(
        "counter",
        "ring_commands_total",
        "SCSI commands taken from the kernel's ring.",
        _each(_ring, lambda r: r.commands),
        DEVICE,
    ),
    _row(
        "counter",
        "ring_batches_total",
        "Times the kernel was told of answers.",
        _each(_ring, lambda r: r.batches),
        DEVICE,
    ),
    _row(
        "gauge",
        "ring_commands_in_flight",
        "Of those taken, not answered yet.",
        _each(_ring, lambda r: r.in_flight),
        DEVICE,
    ),
    _row(
        "gauge",
        "ring_commands_waiting",
        "Of those, waiting until the image is open.",
        _each(_ring, lambda r: r.waiting),
        DEVICE,
    ),
    _row(
        "gauge",
        "ring_broken",
        "1 when the kernel's side made no sense and the ring is not served any more.",
        _each(_ring, lambda r: r.is_broken),
        DEVICE,
    ),
)

CACHE = (
    _row("gauge", "cache_limit_bytes", "What the cache may use.", _of(_cache, lambda c: c.limit_bytes)),
    _row("gauge", "cache_used_bytes", "What it uses.", _of(_cache, lambda c: c.used_bytes)),
    _row("gauge", "cache_blobs", "Blobs that it has chunks of.", _of(_cache, lambda c: c.blobs)),
    _row("counter", "cache_hits_total", "Chunks read without waiting.", _of(_cache, lambda c: c.hits)),
    _row(
        "counter",
        "cache_misses_total",
        "Chunks that a command had to wait for.",
        _of(_cache, lambda c: c.misses),
    ),
    _row(
        "counter",
        "cache_evicted_chunks_total",
        "Chunks that went to make room.",
        _of(_cache, lambda c: c.evicted),
    ),
    _row(
        "counter",
        "cache_damaged_chunks_total",
        "Chunks found damaged when read.",
        _of(_cache, lambda c: c.damaged),
    ),
    _row(
        "counter",
        "cache_unkept_chunks_total",
        "Chunks served without being kept.",
        _of(_cache, lambda c: c.not_kept),
    ),
)

REGISTRIES = (
    _row("counter", "registry_requests_total", "Ranged GETs.", _hosts(lambda t: t.requests), ("host",)),
    _row(
        "counter",
        "registry_fetched_bytes_total",
        "Bytes of blobs that came.",
        _hosts(lambda t: t.fetched_bytes),
        ("host",),
    ),
    _row(
        "counter",
        "registry_refused_requests_total",
        "Answered with 3xx or 4xx: resolved anew.",
        _hosts(lambda t: t.refused),
        ("host",),
    ),
    _row(
        "counter",
        "registry_failed_requests_total",
        "Cut, unanswered, or answered with 429 or 5xx.",
        _hosts(lambda t: t.failed),
        ("host",),
    ),
    _row(
        "counter",
        "registry_missing_chunks_total",
        "Chunks that did not come, by why.",
        _chunk_errors,
        ("error",),
    ),
    _row(
        "gauge",
        "download_bytes",
        "Bytes of layers that are to become local files.",
        _each(lambda d: d.download, lambda p: p.bytes),
        DEVICE,
    ),
    _row(
        "gauge",
        "download_local_bytes",
        "Of them, those that have.",
        _each(lambda d: d.download, lambda p: p.local_bytes),
        DEVICE,
    ),
)

FAMILIES = (*PROCESS, *COMMANDS, *UPPERS, *RINGS, *CACHE, *REGISTRIES)
