"""The control socket: HTTP and JSON over a unix socket, mode 0660.

A thread per connection, so that an attach that waits for a dead image delays nobody;
their number is bounded, and a client that does not send its request in time is cut
off.  Who may connect is decided by the socket's owner and mode; who did is logged.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import socketserver
import stat
import struct
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec

from tcmu_overlaybd.config.decoding import decode_json
from tcmu_overlaybd.daemon.bounded_threads import BoundedThreads
from tcmu_overlaybd.daemon.messages import (
    AttachRequest,
    CacheStatus,
    CommitRequest,
    Committed,
    DetachRequest,
    DeviceList,
    DeviceStatus,
    Failure,
    Forked,
    ForkRequest,
    Leftovers,
    ResizeRequest,
    SnapshotRequest,
    Snapshotted,
    UpgradeStatus,
    Version,
)
from tcmu_overlaybd.daemon.reference_api import PREFIX, Answer
from tcmu_overlaybd.errors import (
    BusyError,
    FailedError,
    MissingError,
    OverlayBDError,
    UnavailableError,
    UsageError,
)

logger = logging.getLogger(__name__)

MAX_CONNECTIONS = 256
REQUEST_TIMEOUT_S = 10
METRICS_PATHS = ("/metrics", "/v1/metrics")
MAX_BODY = 1 << 20  # bytes; a list of 255 paths has some 50 KB
MAX_PATH = 107  # bytes in sun_path, without its NUL

S = TypeVar("S", bound=msgspec.Struct)


class Api(Protocol):
    """What the socket offers.  Methods may wait; each call has a thread of its own."""

    def version(self) -> Version: ...
    def devices(self) -> DeviceList: ...
    def status(self, name: str) -> DeviceStatus: ...
    def cache(self) -> CacheStatus: ...
    def attach(self, request: AttachRequest) -> DeviceStatus: ...
    def detach(self, name: str, request: DetachRequest) -> DeviceStatus: ...
    def commit(self, name: str, request: CommitRequest) -> Committed: ...
    def snapshot(self, request: SnapshotRequest) -> Snapshotted: ...
    def fork(self, name: str, request: ForkRequest) -> Forked: ...
    def resize(self, name: str, request: ResizeRequest) -> DeviceStatus: ...
    def leftovers(self) -> Leftovers: ...
    def repair(self) -> Leftovers: ...
    def upgrade(self) -> UpgradeStatus: ...
    def upgrade_status(self) -> UpgradeStatus: ...


def listen(path: Path) -> socket.socket:
    """A listening socket at path, in place of a dead daemon's.

    The caller holds the daemon's lock, so a socket that lies there is nobody's.
    """
    if len(os.fsencode(path)) > MAX_PATH:
        raise UsageError(f"{path}: longer than the {MAX_PATH} bytes that a unix socket's name may have")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        make_room(path)
        listener.bind(os.fspath(path))
        path.chmod(0o660)
        listener.listen(MAX_CONNECTIONS)
    except OSError as error:
        listener.close()
        raise FailedError(f"{path}: cannot listen: {error.strerror}") from error
    return listener


def make_room(path: Path) -> None:
    """Removes a dead daemon's socket, and nothing else.  Raises FailedError, BusyError."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise FailedError(f"{path}: is no socket, so it is not replaced by one")
    if is_listening(path):
        raise BusyError(f"{path}: another program listens there")
    path.unlink(missing_ok=True)


def is_listening(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(os.fspath(path))
        except (BlockingIOError, TimeoutError):  # its queue is full, so somebody has it
            return True
        except OSError:
            return False
    return True


class ControlServer(BoundedThreads, socketserver.BaseServer):
    """Serves an Api on a listening socket, which it takes, from threads of its own."""

    what = "control"
    max_connections = MAX_CONNECTIONS

    def __init__(
        self,
        listener: socket.socket,
        api: Api,
        snapshot_api: Callable[[str], Answer] | None = None,
        metrics: Callable[[str], tuple[str, bytes]] | None = None,
    ) -> None:
        """snapshot_api: answers what is asked of the reference's API, if that is wanted.
        metrics: content type and body for an Accept header."""
        super().__init__(listener.getsockname(), ControlHandler)
        self.api = api
        self.metrics = metrics
        self.snapshot_api = snapshot_api
        self.path = str(listener.getsockname())
        self._listener = listener
        self._thread = threading.Thread(target=self.serve_forever, name="control", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """No new connection is taken; those that are served go on."""
        self.shutdown()
        self._thread.join()
        self._listener.close()

    def fileno(self) -> int:
        return self._listener.fileno()

    def get_request(self) -> tuple[socket.socket, str]:
        connection, _ = self._listener.accept()
        return connection, peer_of(connection)


def peer_of(connection: socket.socket) -> str:
    """``pid 12, uid 0``: who is at the other end, as the kernel says."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, uid, _ = struct.unpack("3i", credentials)
    return f"pid {pid}, uid {uid}"


class ControlHandler(BaseHTTPRequestHandler):
    """One connection: routes each request to the Api, and turns exceptions into Failures."""

    protocol_version = "HTTP/1.1"
    timeout = REQUEST_TIMEOUT_S
    server: ControlServer

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_DELETE(self) -> None:
        self._answer("DELETE")

    def do_PUT(self) -> None:
        self._answer("PUT")

    def _answer(self, method: str) -> None:
        snapshot_api = self.server.snapshot_api
        if snapshot_api is not None and self.path.startswith(PREFIX):
            self._answer_as_reference(snapshot_api(self.path))
            return
        if method == "GET" and self.path in METRICS_PATHS and self.server.metrics is not None:
            content_type, body = self.server.metrics(self.headers.get("Accept", ""))
            self._send_body(HTTPStatus.OK, content_type, body)
            return
        try:
            result = self._route(method)
        except OverlayBDError as error:
            self._send(HTTP_STATUS.get(type(error), HTTPStatus.CONFLICT), Failure.of(error))
        except Exception as error:  # the border: a fault of ours must not look like a dead daemon
            logger.exception("control: %s %s failed", method, self.path)
            self._send(HTTPStatus.INTERNAL_SERVER_ERROR, Failure.of(error))
        else:
            self._send(HTTPStatus.OK, result)

    def _route(self, method: str) -> msgspec.Struct:
        body = self._read_body()
        for wanted, pattern, call in ROUTES:
            found = pattern.fullmatch(self.path)
            if found and wanted == method:
                return call(self.server.api, body, *found.groups())
        raise MissingError(f"{method} {self.path}: the daemon knows no such request")

    def _read_body(self) -> bytes:
        length = self.headers.get("Content-Length", "0")
        if not length.isdecimal() or int(length) > MAX_BODY:
            self.close_connection = True
            raise UsageError(f"a request of {length} bytes is not accepted")
        return self.rfile.read(int(length))

    def _send(self, status: HTTPStatus, value: msgspec.Struct) -> None:
        self._send_body(status, "application/json", msgspec.json.encode(value))

    def _send_body(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _answer_as_reference(self, answer: Answer) -> None:
        """Without a type, as it does; what body came is not looked at."""
        self.close_connection = True
        self.send_response(answer.status)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    def address_string(self) -> str:
        return str(self.client_address)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        logger.debug("control: %s: %s", self.client_address, format % args)


HTTP_STATUS: dict[type[OverlayBDError], HTTPStatus] = {
    UsageError: HTTPStatus.BAD_REQUEST,
    MissingError: HTTPStatus.NOT_FOUND,
    UnavailableError: HTTPStatus.SERVICE_UNAVAILABLE,
}


def _decode(body: bytes, kind: type[S]) -> S:
    try:
        return decode_json(body or b"{}", kind)
    except msgspec.DecodeError as error:
        raise UsageError(f"the request is wrong: {error}") from error


def _attach(api: Api, body: bytes) -> msgspec.Struct:
    return api.attach(_decode(body, AttachRequest))


def _detach(api: Api, body: bytes, name: str) -> msgspec.Struct:
    return api.detach(name, _decode(body, DetachRequest))


def _commit(api: Api, body: bytes, name: str) -> msgspec.Struct:
    return api.commit(name, _decode(body, CommitRequest))


def _snapshot(api: Api, body: bytes) -> msgspec.Struct:
    return api.snapshot(_decode(body, SnapshotRequest))


def _fork(api: Api, body: bytes, name: str) -> msgspec.Struct:
    return api.fork(name, _decode(body, ForkRequest))


def _resize(api: Api, body: bytes, name: str) -> msgspec.Struct:
    return api.resize(name, _decode(body, ResizeRequest))


NAME = "([A-Za-z0-9._-]+)"
ROUTES: tuple[tuple[str, re.Pattern[str], Callable[..., msgspec.Struct]], ...] = (
    ("GET", re.compile("/v1/version"), lambda api, _body: api.version()),
    ("GET", re.compile("/v1/devices"), lambda api, _body: api.devices()),
    ("GET", re.compile("/v1/cache"), lambda api, _body: api.cache()),
    ("GET", re.compile("/v1/leftovers"), lambda api, _body: api.leftovers()),
    ("DELETE", re.compile("/v1/leftovers"), lambda api, _body: api.repair()),
    ("GET", re.compile("/v1/upgrade"), lambda api, _body: api.upgrade_status()),
    ("POST", re.compile("/v1/upgrade"), lambda api, _body: api.upgrade()),
    ("GET", re.compile(f"/v1/devices/{NAME}"), lambda api, _body, name: api.status(name)),
    ("POST", re.compile("/v1/devices"), _attach),
    ("POST", re.compile(f"/v1/devices/{NAME}/commit"), _commit),
    ("POST", re.compile("/v1/snapshot"), _snapshot),
    ("POST", re.compile(f"/v1/devices/{NAME}/fork"), _fork),
    ("POST", re.compile(f"/v1/devices/{NAME}/resize"), _resize),
    ("DELETE", re.compile(f"/v1/devices/{NAME}"), _detach),
)
