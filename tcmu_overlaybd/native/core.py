"""The command core and its devices: images in service (csrc/command)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Self

from tcmu_overlaybd.native._binding import check, ffi, lib, status_name
from tcmu_overlaybd.native.handle import Handle, opened
from tcmu_overlaybd.native.image import Image

CLOSE_TIMEOUT_MS = 30_000

CANCELLED: int = lib.OBD_E_CANCELLED


class CommandKind(IntEnum):
    READ = lib.OBD_COMMAND_READ
    WRITE = lib.OBD_COMMAND_WRITE
    DISCARD = lib.OBD_COMMAND_DISCARD
    FLUSH = lib.OBD_COMMAND_FLUSH
    VERIFY = lib.OBD_COMMAND_VERIFY


class OnTimeout(IntEnum):
    """What becomes of a command at its deadline."""

    ERROR = lib.OBD_ON_TIMEOUT_ERROR
    RETRY = lib.OBD_ON_TIMEOUT_RETRY  # its sources are asked again
    FREEZE = lib.OBD_ON_TIMEOUT_FREEZE  # it has none


class Provenance(IntEnum):
    """Where the bytes of a read came from, the furthest last; see enum obd_provenance."""

    ZEROS = lib.OBD_FROM_ZEROS
    UPPER = lib.OBD_FROM_UPPER
    LAYER = lib.OBD_FROM_LAYER
    DOWNLOAD = lib.OBD_FROM_DOWNLOAD
    CACHE = lib.OBD_FROM_CACHE
    REGISTRY = lib.OBD_FROM_REGISTRY


class LatencyClass(IntEnum):
    """What a command had to wait for; see enum obd_latency_class."""

    LOCAL = lib.OBD_LATENCY_LOCAL
    CACHE = lib.OBD_LATENCY_CACHE
    REGISTRY = lib.OBD_LATENCY_REGISTRY


# Upper bounds of the buckets in seconds; the last has none.
LATENCY_BOUNDS_S = tuple((lib.OBD_LATENCY_FIRST_NS << i) / 1e9 for i in range(lib.OBD_NR_LATENCY_BUCKETS - 1))


@dataclass(frozen=True, slots=True)
class Latency:
    """How long commands took; see struct obd_latency."""

    counts: tuple[int, ...]  # by bucket, each for itself; one more than there are bounds
    sum_s: float


@dataclass(frozen=True, slots=True)
class DeviceStats:
    """See struct obd_device_stats; commands and bytes that are done, by kind in lower case."""

    commands: dict[str, int]
    bytes: dict[str, int]
    bytes_from: dict[str, int]  # of reads, by provenance in lower case
    errors: dict[str, int]  # by the word for the status; only those that happened
    in_flight: int
    parked: int
    parked_bytes: int
    oldest_ms: int
    parks: int


class Core(Handle):
    """Workers and deadlines for all devices of the process.  Its devices are closed first."""

    def __init__(self, pointer: Any) -> None:
        super().__init__(pointer, lib.obd_core_close)

    @classmethod
    def open(cls, *, nr_workers: int = 0, park_budget_bytes: int = 0) -> Self:
        """0 is the default: four workers per processor but at least 16, and 256 MiB."""
        params = ffi.new("struct obd_core_params *")
        params.nr_workers, params.park_budget_bytes = nr_workers, park_budget_bytes
        return cls(opened(lib.obd_core_open, "struct core", params))


class Device(Handle):
    """An image that takes commands.  Fronts stop before it is closed."""

    def __init__(self, pointer: Any) -> None:
        super().__init__(pointer, lambda handle: lib.obd_device_close(handle, CLOSE_TIMEOUT_MS))

    @classmethod
    def open(
        cls,
        core: Core,
        image: Image,
        *,
        name: str,
        io_timeout_ms: int = 0,
        on_timeout: OnTimeout = OnTimeout.ERROR,
        park_budget_bytes: int = 0,
    ) -> Self:
        """Keeps image open by itself.  0 is the default: 20 s, and 32 MiB."""
        text = ffi.new("char[]", name.encode())
        params = ffi.new("struct obd_device_params *")
        params.name, params.io_timeout_ms, params.on_timeout = text, io_timeout_ms, on_timeout
        params.park_budget_bytes = park_budget_bytes
        return cls(opened(lib.obd_device_open, "struct device", core.handle, image.handle, params))

    def fail_parked(self, status: int = CANCELLED) -> None:
        """Whatever waits, and every later command, ends with status; what runs goes on."""
        lib.obd_device_fail_parked(self.handle, status)

    def hold(self, timeout_ms: int) -> None:
        """No write runs when it returns, and none begins until resume: they wait; reads go on.

        Raises TimeoutExpiredError when one that runs does not end; it is not held then.
        """
        check(lib.obd_device_hold(self.handle, timeout_ms))

    def resume(self) -> None:
        """For one that is held."""
        lib.obd_device_resume(self.handle)

    def replace_image(self, image: Image) -> None:
        """While it is held: commands go to image, which has the same size and content."""
        check(lib.obd_device_replace_image(self.handle, image.handle))

    def drop_replaced(self, timeout_ms: int) -> None:
        """Gives images back that were replaced, when the reads that have them are over.

        Raises TimeoutExpiredError: they are given back some other time.
        """
        check(lib.obd_device_drop_replaced(self.handle, timeout_ms))

    def close(self, timeout_ms: int = CLOSE_TIMEOUT_MS) -> None:
        """Waits for the commands in flight, flushes the upper, and gives the image back.

        Raises TimeoutExpiredError when commands are still in flight: the device is then
        open as before.  Whatever else is raised, it is closed.  Closing twice is fine.
        """
        if self._pointer is None:
            return
        status = lib.obd_device_close(self._pointer, timeout_ms)
        if status != lib.OBD_E_TIMEOUT:
            self._pointer = None
        check(status)

    def grow(self, size: int) -> None:
        """As ``Image.grow``, and commands may go past the old end from now on."""
        check(lib.obd_device_grow(self.handle, size))

    def stats(self) -> DeviceStats:
        out = ffi.new("struct obd_device_stats *")
        lib.obd_device_stats(self.handle, out)
        return DeviceStats(
            commands={kind.name.lower(): out.nr_commands[kind] for kind in CommandKind},
            bytes={kind.name.lower(): out.nr_bytes[kind] for kind in CommandKind},
            bytes_from={place.name.lower(): out.nr_bytes_from[place] for place in Provenance},
            errors={status_name(i): nr for i, nr in enumerate(out.nr_errors) if nr},
            in_flight=out.nr_in_flight,
            parked=out.nr_parked,
            parked_bytes=out.parked_bytes,
            oldest_ms=out.oldest_ms,
            parks=out.nr_parks,
        )

    def latency(self) -> dict[tuple[CommandKind, LatencyClass], Latency]:
        """Of what has been carried out, by kind and class: only where there is any."""
        out = ffi.new("struct obd_latency[]", len(CommandKind) * len(LatencyClass))
        lib.obd_device_latency(self.handle, out)
        pairs = [(kind, latency_class) for kind in CommandKind for latency_class in LatencyClass]
        return {
            pair: Latency(tuple(latency.nr), latency.sum_ns / 1e9)
            for pair, latency in zip(pairs, out, strict=True)
            if any(latency.nr)
        }
