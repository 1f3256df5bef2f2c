"""The mem front: commands for a device from Python's own memory, for tests and benchmarks."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

from tcmu_overlaybd.native._binding import check, ffi, lib
from tcmu_overlaybd.native.core import CommandKind, Device

Buffer = bytes | bytearray | memoryview


def read(device: Device, length: int, offset: int) -> bytes:
    """Raises what the command ended with: CorruptError, TimeoutExpiredError, UnavailableError, ..."""
    buffer = bytearray(length)
    _run(device, CommandKind.READ, offset, length, buffer)
    return bytes(buffer)


def write(device: Device, data: Buffer, offset: int, *, fua: bool = False) -> None:
    """With fua it is durable on return.  Raises NoSpaceError, ReadOnlyError, ..."""
    _run(device, CommandKind.WRITE, offset, len(data), data, fua=fua)


def discard(device: Device, length: int, offset: int) -> None:
    _run(device, CommandKind.DISCARD, offset, length)


def flush(device: Device) -> None:
    """All that was written before is durable when it returns."""
    _run(device, CommandKind.FLUSH, 0, 0)


def verify(device: Device, length: int, offset: int, expected: Buffer | None = None) -> None:
    """Reads the range; raises FailedError with the place when it holds something else than expected."""
    _run(device, CommandKind.VERIFY, offset, length, expected)


class Pending:
    """A submitted command.  Its buffer is kept alive here until it has been waited for."""

    def __init__(
        self, device: Device, kind: CommandKind, offset: int, length: int, buffer: Buffer | None = None
    ) -> None:
        self._params, self._view = _mem_params(kind, offset, length, buffer, fua=False)
        self._device = device
        self._command = ffi.new("struct mem_command **")
        check(lib.obd_mem_submit(device.handle, self._params, self._command))

    def wait(self, timeout_ms: int) -> bool:
        """Whether it is done; raises what it ended with when that was no success."""
        if self._command[0] == ffi.NULL:
            raise ValueError("this command has been waited for")
        status = lib.obd_mem_wait(self._command, timeout_ms)
        if self._command[0] != ffi.NULL:
            return False
        check(status)
        return True


def read_loop(device: Device, offsets: Sequence[int], length: int, nr_threads: int) -> int:
    """Reads length bytes at each of offsets, shared among threads of C; returns nanoseconds."""
    places = offsets if isinstance(offsets, array) else array("Q", offsets)
    elapsed = ffi.new("uint64_t *")
    view = ffi.from_buffer("uint64_t[]", places)
    check(lib.obd_mem_read_loop(device.handle, view, len(places), length, nr_threads, elapsed))
    return int(elapsed[0])


def _mem_params(
    kind: CommandKind, offset: int, length: int, buffer: Buffer | None, *, fua: bool
) -> tuple[Any, Any]:
    view = ffi.NULL if buffer is None else ffi.from_buffer(buffer)
    params = ffi.new("struct obd_mem_params *")
    params.kind, params.fua, params.offset, params.length, params.buffer = kind, fua, offset, length, view
    return params, view


def _run(
    device: Device,
    kind: CommandKind,
    offset: int,
    length: int,
    buffer: Buffer | None = None,
    *,
    fua: bool = False,
) -> None:
    params, _view = _mem_params(kind, offset, length, buffer, fua=fua)
    check(lib.obd_mem_run(device.handle, params))
