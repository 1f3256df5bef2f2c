"""A TCP proxy that makes a server far away: each round trip takes so much longer.

What a client sends is held back for ``delay_s``, and the first piece twice as long, since
connecting to a host so far away would have taken a round trip as well.  What the server
sends comes at once.  So a client that waits for each answer before it asks for more sees
``delay_s`` more for each thing it waits for, and nothing else is slower.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from queue import SimpleQueue
from typing import Self

PIECE = 1 << 16


class DelayingProxy:
    """``host`` stands for the server at 127.0.0.1:port; ``delay_s`` may be changed at any time."""

    def __init__(self, port: int, delay_s: float) -> None:
        self.delay_s = delay_s
        self.nr_connections = 0
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.nr_connections += 1
                server = socket.create_connection(("127.0.0.1", self._port))
                held: SimpleQueue[tuple[float, bytes]] = SimpleQueue()
                for work, arguments in (
                    (self._hold, (client, held)),
                    (_let_go, (held, server)),
                    (_pass_on, (server, client)),
                ):
                    threading.Thread(target=work, args=arguments, daemon=True).start()

    def _hold(self, client: socket.socket, held: SimpleQueue[tuple[float, bytes]]) -> None:
        connected_at = time.monotonic() + self.delay_s
        piece = b"."
        while piece:
            piece = _received(client)
            held.put((max(time.monotonic(), connected_at) + self.delay_s, piece))


def _let_go(held: SimpleQueue[tuple[float, bytes]], server: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            due, piece = held.get()
            if not piece:
                server.shutdown(socket.SHUT_WR)
                return
            time.sleep(max(0.0, due - time.monotonic()))
            server.sendall(piece)


def _pass_on(server: socket.socket, client: socket.socket) -> None:
    with server, client, contextlib.suppress(OSError):
        while piece := _received(server):
            client.sendall(piece)
        client.shutdown(socket.SHUT_RDWR)


def _received(end: socket.socket) -> bytes:
    try:
        return end.recv(PIECE)
    except OSError:
        return b""
