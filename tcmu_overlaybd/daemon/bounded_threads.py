"""A thread for each connection of a server, and no more of them than there may be."""

from __future__ import annotations

import logging
import socket
import socketserver
import threading
from typing import cast

logger = logging.getLogger(__name__)


class BoundedThreads(socketserver.ThreadingMixIn):
    """For a ``socketserver``: a connection beyond ``max_connections`` is closed at once, and logged."""

    daemon_threads = True
    block_on_close = False
    what = "server"  # in the log
    max_connections = 256

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)
        self._room = threading.BoundedSemaphore(self.max_connections)

    def verify_request(self, request: object, client_address: object) -> bool:  # noqa: ARG002
        if self._room.acquire(blocking=False):
            return True
        logger.warning(
            "%s: %s refused: %d connections are open", self.what, client_address, self.max_connections
        )
        return False

    def process_request_thread(self, request: object, client_address: object) -> None:
        try:
            super().process_request_thread(cast(socket.socket, request), client_address)
        finally:
            self._room.release()

    def shutdown_request(self, request: object) -> None:
        cast(socket.socket, request).close()

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002
        logger.exception("%s: a connection of %s failed", self.what, client_address)
