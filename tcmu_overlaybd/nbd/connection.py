"""One client of the NBD server: a thread that shakes hands and then waits for C.

The handshake has HANDSHAKE_SECONDS as a whole, however slowly the bytes come.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable

from tcmu_overlaybd.errors import OverlayBDError
from tcmu_overlaybd.native.core import Device
from tcmu_overlaybd.native.nbd import Connection
from tcmu_overlaybd.nbd.handshake import Agreement, Export, ProtocolError, negotiate

HANDSHAKE_SECONDS = 10
WAIT_MS = 3_600_000  # the connection's end wakes the wait, the time is only an upper bound

log = logging.getLogger("tcmu_overlaybd.nbd")


class ConnectionThread(threading.Thread):
    """Takes the socket. ``stop`` may be called at any time, by any thread."""

    def __init__(
        self,
        sock: socket.socket,
        device: Device,
        export: Export,
        forget: Callable[[ConnectionThread], None],
    ) -> None:
        """``forget`` is called, with no lock held, when the connection is over."""
        super().__init__(name="nbd-client", daemon=True)
        self._sock = sock
        self._device = device
        self._export = export
        self._forget = forget
        self._lock = threading.Lock()  # guards the next two
        self._is_stopping = False
        self._connection: Connection | None = None

    def stop(self) -> None:
        """Cuts a handshake off; asks the transmission phase to end."""
        with self._lock:
            self._is_stopping = True
            if self._connection is not None:
                self._connection.stop()
                return
        with contextlib.suppress(OSError):  # not connected any more, or C's by now
            self._sock.shutdown(socket.SHUT_RDWR)

    def run(self) -> None:
        try:
            agreement = shake_hands(self._sock, self._export)
            if agreement is not None:
                self._transmit(agreement)
        except (OverlayBDError, OSError) as error:
            log.info("a client's connection ended: %s", error)
        finally:
            self._sock.close()
            self._forget(self)

    def _transmit(self, agreement: Agreement) -> None:
        with Connection(
            self._device,
            self._sock,
            structured=agreement.structured,
            block_status=agreement.block_status,
            read_only=agreement.export.is_read_only,
        ) as connection:
            with self._lock:
                self._connection = connection
                if self._is_stopping:
                    connection.stop()
            while not connection.wait(WAIT_MS):
                pass


def shake_hands(sock: socket.socket, export: Export) -> Agreement | None:
    """Drives ``negotiate`` over a socket; raises ProtocolError, or OSError (time-outs too)."""
    deadline = time.monotonic() + HANDSHAKE_SECONDS
    flow = negotiate(export)
    try:
        step = next(flow)
        while True:
            if isinstance(step, bytes):
                sock.settimeout(time_left(deadline))
                sock.sendall(step)
                step = next(flow)
            else:
                step = flow.send(receive_exactly(sock, step, deadline))
    except StopIteration as end:
        agreement: Agreement | None = end.value
        return agreement


def receive_exactly(sock: socket.socket, length: int, deadline: float) -> bytes:
    """Never reads more: what follows the handshake is for C."""
    parts = bytearray()
    while len(parts) < length:
        sock.settimeout(time_left(deadline))
        part = sock.recv(length - len(parts))
        if not part:
            raise ProtocolError("nbd handshake: the client went away")
        parts += part
    return bytes(parts)


def time_left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError(f"nbd handshake: not done after {HANDSHAKE_SECONDS} s")
    return left
