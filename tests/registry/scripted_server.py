"""An HTTP server that misbehaves by script: one fault an answer, then the truth.

``put`` says what a path truly holds; ranged GETs of it are answered as a good registry
would.  ``fault`` queues faults for a path: each request there takes one from the front,
and when none is left the truth is served.  Everything that arrived is in ``seen``, so a
test can count requests and connections and look for headers that should not be there.

    with ScriptedServer() as server:
        server.put("/blob", data)
        server.fault("/blob", Status(503), Cut(after=100))
        ...                                  # two bad answers, then data
        assert server.count("GET", "/blob") == 3

A path is looked up without its query.  Thread-safe; every connection has a thread, and
``close`` ends those that stall.
"""

from __future__ import annotations

import contextlib
import http.server
import re
import socket
import socketserver
import ssl
import struct
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tests.registry.http_faults import Answer, Fault


@dataclass(frozen=True)
class Seen:
    """One request as it arrived; ``connection`` counts from 0."""

    method: str
    target: str
    headers: Mapping[str, str]  # names in lower case
    body: bytes
    connection: int
    at: float

    @property
    def path(self) -> str:
        return path_of(self.method, self.target)


def path_of(method: str, target: str) -> str:
    """Without query; of a tunnel (CONNECT): host and port."""
    return target if method == "CONNECT" else urlsplit(target).path


Responder = Callable[[Seen], Answer]


class ScriptedServer:
    """Listens on a free port of 127.0.0.1 from construction to ``close``."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.seen: list[Seen] = []
        self.nr_connections = 0
        self.stopping = threading.Event()
        self._lock = threading.Lock()
        self._contents: dict[str, Answer] = {}
        self._responders: dict[str, Responder] = {}
        self._faults: dict[str, deque[Fault]] = defaultdict(deque)
        self._always: dict[str, Fault] = {}
        self._server = _Server(("127.0.0.1", 0), self, tls)
        self.port: int = self._server.server_address[1]
        self.host = f"127.0.0.1:{self.port}"
        self.url = f"{'https' if tls else 'http'}://{self.host}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    # -- the script

    def put(self, path: str, body: bytes, **headers: str) -> None:
        """What path holds; headers as keywords: ``Content_Type="..."``."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self._contents[path] = Answer(200, named, body)

    def respond(self, path: str, responder: Responder) -> None:
        """path is answered by a function of the request."""
        self._responders[path] = responder

    def fault(self, path: str, *faults: Fault) -> None:
        """The next requests of path get these, one each."""
        with self._lock:
            self._faults[path].extend(faults)

    def always(self, path: str, fault: Fault | None) -> None:
        """Every request of path gets fault, once the queue is empty; None ends that."""
        with self._lock:
            if fault is None:
                self._always.pop(path, None)
            else:
                self._always[path] = fault

    # -- what came

    def count(self, method: str = "GET", path: str | None = None) -> int:
        with self._lock:
            return sum(seen.method == method and path in (None, seen.path) for seen in self.seen)

    def headers_seen(self, name: str, path: str | None = None) -> list[str]:
        """The values of a header in all requests (of path) that had it."""
        with self._lock:
            chosen = [seen for seen in self.seen if path in (None, seen.path)]
        return [seen.headers[name.lower()] for seen in chosen if name.lower() in seen.headers]

    @property
    def nr_open(self) -> int:
        """Connections that are open now."""
        return self._server.nr_open

    def forget(self) -> None:
        with self._lock:
            self.seen.clear()

    # -- life

    def close_stalled(self) -> None:
        """Ends every connection that is open, so that who waits at one comes again."""
        self._server.close_connections()

    def close(self) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.close_connections()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> ScriptedServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- for the handlers

    def content(self, path: str) -> Answer | None:
        return self._contents.get(path)

    def take_fault(self, path: str) -> Fault | None:
        with self._lock:
            queue = self._faults[path]
            return queue.popleft() if queue else self._always.get(path)

    def note(self, seen: Seen) -> None:
        with self._lock:
            self.seen.append(seen)

    def next_connection(self) -> int:
        with self._lock:
            self.nr_connections += 1
            return self.nr_connections - 1

    def truth(self, seen: Seen) -> Answer:
        responder = self._responders.get(seen.path)
        if responder is not None:
            return responder(seen)
        content = self._contents.get(seen.path)
        if content is None:
            return Answer(404, {"Content-Type": "text/plain"}, b"nothing here")
        return ranged(content, seen.headers.get("range"))


def ranged(content: Answer, wanted: str | None) -> Answer:
    """content, or the part of it that a Range header asks for."""
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted or "")
    if match is None:
        return content
    total = len(content.body)
    first, last = int(match[1]), min(int(match[2] or total - 1), total - 1)
    if first > last:
        return Answer(416, {"Content-Range": f"bytes */{total}"})
    said = {"Content-Range": f"bytes {first}-{last}/{total}"}
    return Answer(206, {**content.headers, **said}, content.body[first : last + 1])


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    wbufsize = 0
    disable_nagle_algorithm = True
    server: _Server

    @property
    def scripted(self) -> ScriptedServer:
        return self.server.scripted

    @property
    def path_only(self) -> str:
        return path_of(self.command, self.path)

    def setup(self) -> None:
        super().setup()
        self.number = self.scripted.next_connection()

    def serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        seen = Seen(self.command, self.path, headers, body, self.number, time.monotonic())
        self.scripted.note(seen)
        truth = self.scripted.truth(seen)
        fault = self.scripted.take_fault(self.path_only)
        try:
            if fault is None:
                self.send(truth)
            else:
                fault.answer(self, truth)
        except OSError:
            self.close_connection = True

    # Names that http.server looks for.
    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_CONNECT = serve  # noqa: N815

    def send(self, answer: Answer) -> None:
        self.wfile.write(self.head_of(answer) + (b"" if self.command == "HEAD" else answer.body))

    def send_head(self, answer: Answer) -> None:
        self.wfile.write(self.head_of(answer))

    def head_of(self, answer: Answer) -> bytes:
        phrase = self.responses.get(answer.status, ("?",))[0]
        headers = {"Content-Length": str(len(answer.body)), **answer.headers}
        lines = [f"HTTP/1.1 {int(answer.status)} {phrase}", *(f"{k}: {v}" for k, v in headers.items())]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def hang_up(self, *, reset: bool = False) -> None:
        if reset:  # closing with a linger time of 0 sends an RST
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self, address: tuple[str, int], scripted: ScriptedServer, tls: ssl.SSLContext | None
    ) -> None:
        self.scripted = scripted
        self._tls = tls
        self._open: set[socket.socket] = set()
        super().__init__(address, Handler)

    def finish_request(self, request: Any, client_address: Any) -> None:
        # The handshake is done here, in the connection's own thread.
        if self._tls is not None:
            try:
                request = self._tls.wrap_socket(request, server_side=True)
            except (OSError, ssl.SSLError):
                return
        self._open.add(request)
        try:
            super().finish_request(request, client_address)
        finally:
            self._open.discard(request)
            request.close()

    def shutdown_request(self, request: Any) -> None:
        # shutdown() first would send a FIN where a fault wants an RST.
        self.close_request(request)

    @property
    def nr_open(self) -> int:
        return len(self._open)

    def close_connections(self) -> None:
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is what some tests are about."""
