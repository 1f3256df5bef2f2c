"""One NBD connection's transmission phase, run by a C thread (csrc/front/nbd.h)."""

from __future__ import annotations

import socket
import threading

from tcmu_overlaybd.errors import TimeoutExpiredError
from tcmu_overlaybd.native._binding import check, ffi, lib
from tcmu_overlaybd.native.core import Device
from tcmu_overlaybd.native.handle import Handle, opened


class Connection(Handle):
    """A client that has shaken hands; ``device`` must stay open until it is closed.

    ``wait`` and ``close`` belong to one thread, ``stop`` to any.
    """

    def __init__(
        self, device: Device, client: socket.socket, *, structured: bool, block_status: bool, read_only: bool
    ) -> None:
        """Takes the socket, also when it raises."""
        flags = lib.OBD_NBD_STRUCTURED if structured else 0
        flags |= lib.OBD_NBD_BLOCK_STATUS if block_status else 0
        flags |= lib.OBD_NBD_READ_ONLY if read_only else 0
        params = ffi.new("struct obd_nbd_params *", {"fd": client.detach(), "flags": flags})
        super().__init__(opened(lib.obd_nbd_start, "struct nbd", device.handle, params), lib.obd_nbd_close)
        self._device = device  # kept alive while C uses it
        self._lock = threading.Lock()  # stop must not meet a handle that close has freed

    def wait(self, timeout_ms: int) -> bool:
        """Whether it has ended within the time; raises what ended it when that was no clean end."""
        try:
            check(lib.obd_nbd_wait(self.handle, timeout_ms))
        except TimeoutExpiredError:
            return False
        return True

    def stop(self) -> None:
        """No new request is read, those in flight are answered; does not wait."""
        with self._lock:
            if self._pointer is not None:
                lib.obd_nbd_stop(self._pointer)

    def close(self) -> None:
        """Stops it, waits for its end and frees it.  Requests with the core are waited for."""
        self.stop()
        with self._lock:
            super().close()


def nbd_errno(status: int) -> int:
    """The errno that an NBD client is told for an enum obd_status."""
    return int(lib.obd_status_nbd_errno(status))
