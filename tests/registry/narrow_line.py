"""A proxy of TCP that lets through so many bytes a second, of all its connections together.

    with NarrowLine(registry.port, bytes_per_s=1 << 20) as line: ...   # connect to line.host

What the connections send is taken in turn, as the packets of a real line are.
"""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress

PIECE = 16 << 10
BUFFER = 32 << 10  # of a socket, so that the line and not the kernel says what has come


class NarrowLine:
    def __init__(self, port: int, bytes_per_s: int) -> None:
        """port of 127.0.0.1 is where it leads to."""
        self._port = port
        self._bytes_per_s = bytes_per_s
        self._lock = threading.Lock()
        self._free_at = 0.0
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for each in (self._listener, *self._sockets):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def __enter__(self) -> NarrowLine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near = self._listener.accept()[0]
                far = socket.create_connection(("127.0.0.1", self._port))
                far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
                near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
                self._sockets += [near, far]
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=self._copy, args=pair, daemon=True).start()

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(PIECE):
                time.sleep(self._wait_of(len(data)))
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def _wait_of(self, nr_bytes: int) -> float:
        with self._lock:
            now = time.monotonic()
            self._free_at = max(now, self._free_at) + nr_bytes / self._bytes_per_s
            return self._free_at - now
