"""Metrics on a TCP port, for a Prometheus that cannot reach the control socket.  Off unless asked for.

Plain HTTP with no password, as exporters are: it listens on this machine only, unless an
address says otherwise.  It answers GET of one path, and tells nothing but numbers.
"""

from __future__ import annotations

import logging
import socket
import socketserver
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from types import TracebackType
from typing import Self

from tcmu_overlaybd.config.service_config import ExporterConfig
from tcmu_overlaybd.daemon.bounded_threads import BoundedThreads
from tcmu_overlaybd.errors import FailedError, UsageError
from tcmu_overlaybd.metrics.exposition import Exposition

logger = logging.getLogger(__name__)

MAX_CONNECTIONS = 16
REQUEST_TIMEOUT_S = 10


def parse_address(text: str) -> ExporterConfig:
    """``ADDRESS:PORT``, ``[ADDRESS]:PORT`` for IPv6, or ``PORT`` for this machine's own."""
    address, _, port = text.rpartition(":")
    if not port.isdecimal() or int(port) > 65535:
        raise UsageError(f"{text}: no ADDRESS:PORT to serve metrics on")
    return ExporterConfig(True, port=int(port), address=address.strip("[]") or ExporterConfig().address)


class MetricsServer(BoundedThreads, socketserver.TCPServer):
    """A context manager: answers while it lasts.  Raises FailedError when nobody may listen there."""

    what = "metrics"
    max_connections = MAX_CONNECTIONS
    allow_reuse_address = True

    def __init__(self, place: ExporterConfig, exposition: Exposition) -> None:
        self.address_family = socket.AF_INET6 if ":" in place.address else socket.AF_INET
        self.exposition = exposition
        self.path = place.uri_prefix
        try:
            super().__init__((place.address, place.port), MetricsHandler)
        except OSError as error:
            raise FailedError(
                f"{place.address}, port {place.port}: cannot serve metrics there: {error.strerror}"
            ) from error
        self._thread = threading.Thread(target=self.serve_forever, name="metrics", daemon=True)

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def __enter__(self) -> Self:
        self._thread.start()
        logger.info("metrics: http://%s:%d%s", self.server_address[0], self.port, self.path)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


class MetricsHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = REQUEST_TIMEOUT_S
    server: MetricsServer

    def do_GET(self) -> None:
        if self.path.partition("?")[0] != self.server.path:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        content_type, body = self.server.exposition.render(self.headers.get("Accept", ""))
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        logger.debug("metrics: %s: %s", self.client_address, format % args)
