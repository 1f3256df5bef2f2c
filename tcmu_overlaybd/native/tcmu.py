"""The TCMU front: rings of the kernel's devices, and the control commands that Python answers.

Rings are walked by C threads (csrc/front/ring.h).  A command that only describes
the disk comes here through ``Tcmu.next_control``: one Python thread takes them
and answers each with ``Tcmu.reply``; one that is not answered within ten seconds
is answered by C ("not ready").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tcmu_overlaybd.errors import OverlayBDError
from tcmu_overlaybd.native._binding import check, ffi, lib, status_of
from tcmu_overlaybd.native.core import Device
from tcmu_overlaybd.native.handle import Handle, opened

# How long a call may wait for the ring thread to take notice; it never blocks, so
# only a stopped or starved process comes near it.
RING_THREAD_TIMEOUT_MS = 10_000


@dataclass(frozen=True, slots=True)
class ControlCommand:
    """A CDB for Python.  ``room`` is how many bytes of an answer the initiator takes."""

    ring_id: int
    token: int
    cdb: bytes  # 16 bytes, what the opcode does not use is zero
    data_out: bytes
    room: int


@dataclass(frozen=True, slots=True)
class RingStats:
    commands: int
    in_flight: int
    waiting: int  # of those in flight, wait for a device
    batches: int
    is_broken: bool


class Ring:
    """One device's ring.  ``unbind`` before the ``Tcmu`` is closed."""

    def __init__(self, handle: Any, ring_id: int) -> None:
        self._ring = handle
        self._device: Device | None = None  # kept alive while C may use it
        self.id = ring_id

    @property
    def _handle(self) -> Any:
        if self._ring == ffi.NULL:
            raise ValueError("this Ring is unbound")
        return self._ring

    def set_device(self, device: Device | None) -> None:
        """Data commands, also those that waited, go to device from now on; None: they wait again."""
        handle = ffi.NULL if device is None else device.handle
        check(lib.obd_ring_set_device(self._handle, handle, RING_THREAD_TIMEOUT_MS))
        self._device = device

    def set_broken(self, error: OverlayBDError) -> None:
        """Data commands, also those that waited, fail from now on with what error means."""
        check(lib.obd_ring_set_broken(self._handle, status_of(error), RING_THREAD_TIMEOUT_MS))

    def stats(self) -> RingStats:
        out = ffi.new("struct obd_ring_stats *")
        check(lib.obd_ring_stats(self._handle, out, RING_THREAD_TIMEOUT_MS))
        return RingStats(
            out.nr_commands, out.nr_in_flight, out.nr_waiting, out.nr_batches, bool(out.is_broken)
        )

    def unbind(self, *, leave_parked: bool, timeout_ms: int) -> None:
        """Takes no more commands and waits for those that run.

        With leave_parked, what is parked stays on the kernel's ring for the next
        daemon.  Raises TimeoutExpiredError when commands still run; the ring is then
        stopped, and unbind may be called again.
        """
        check(lib.obd_ring_unbind(self._handle, int(leave_parked), timeout_ms))
        self._ring = ffi.NULL
        self._device = None


class Tcmu(Handle):
    """The ring threads and the queue of control commands.

    Close it when every ring is unbound and no thread is inside ``next_control``.
    """

    def __init__(self, *, threads: int = 0) -> None:
        params = ffi.new("struct obd_tcmu_params *", {"nr_threads": threads})
        super().__init__(opened(lib.obd_tcmu_open, "struct tcmu", params), lib.obd_tcmu_close)

    def bind(self, fd: int, name: str, map_size: int, *, open_timeout_ms: int = 0) -> Ring:
        """Starts to walk the ring behind fd (of /dev/uioN; borrowed during the call).

        Data commands wait for ``Ring.set_device`` at most open_timeout_ms (0: 20 s).
        """
        text = ffi.new("char[]", name.encode())
        params = ffi.new("struct obd_ring_params *")
        params.fd, params.name, params.map_size, params.open_timeout_ms = fd, text, map_size, open_timeout_ms
        ring = opened(lib.obd_ring_bind, "struct ring", self.handle, params)
        return Ring(ring, lib.obd_ring_id(ring))

    def next_control(self, timeout_ms: int) -> ControlCommand | None:
        """The next command for Python; None after timeout_ms without one.

        Raises EOFError after ``wake``.
        """
        control = ffi.new("struct obd_control *")
        status = lib.obd_control_next(self.handle, control, timeout_ms)
        if status == lib.OBD_E_TIMEOUT:
            return None
        if status == lib.OBD_E_CLOSED:
            raise EOFError("tcmu: the queue of control commands has ended")
        check(status)
        data_out = bytes(ffi.buffer(control.data_out, control.data_out_length))
        cdb = bytes(ffi.buffer(control.cdb))
        return ControlCommand(control.ring_id, control.token, cdb, data_out, control.data_in_length)

    def reply(self, command: ControlCommand, *, data: bytes = b"", sense: int | None = None) -> bool:
        """Answers command: GOOD with data, or CHECK CONDITION with sense (key << 16 | asc << 8 | ascq).

        False when it came too late.
        """
        reply = ffi.new("struct obd_control_reply *")
        reply.ring_id, reply.token = command.ring_id, command.token
        reply.scsi_status, reply.sense = (0, 0) if sense is None else (2, sense)
        buffer = ffi.from_buffer(data)
        reply.data, reply.length = buffer, len(data)
        status = lib.obd_control_reply(self.handle, reply)
        if status == lib.OBD_E_NOT_FOUND:
            return False
        check(status)
        return True

    def wake(self) -> None:
        """Makes ``next_control`` raise EOFError, now and from now on."""
        lib.obd_tcmu_wake(self.handle)


def status_sense(status: int, *, is_write: bool) -> int:
    """key << 16 | asc << 8 | ascq that the SCSI border gives for status."""
    return int(lib.obd_status_sense(status, int(is_write)))
