"""One HTTP request and its reply: no retry, no password, no redirect.

What goes wrong with the connection becomes an exception here, by what can be done about
it: TransientError when the same request may succeed in a moment, UnavailableError when
it will not.  A sentence never quotes the lower library, whose texts have URLs in them.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import TracebackType
from urllib.parse import SplitResult, urlsplit

import requests
import urllib3

from tcmu_overlaybd.errors import FailedError, OverlayBDError, TransientError, UnavailableError
from tcmu_overlaybd.registry.bounded_http import bounded_by
from tcmu_overlaybd.registry.deadline import Deadline
from tcmu_overlaybd.registry.transport import Transport

READ_SIZE = 1 << 16  # bytes; of a body at a time
DISCARD_SIZE = 1 << 16  # bytes; a longer rest of a body is not worth the connection


@dataclass(frozen=True)
class HttpRequest:
    method: str
    url: str = field(repr=False)  # of a redirect: may be signed
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes | None = field(default=None, repr=False)

    def with_header(self, name: str, value: str | None) -> HttpRequest:
        """The same with one more header, or without it."""
        others = {key: kept for key, kept in self.headers.items() if key.lower() != name.lower()}
        return replace(self, headers=others if value is None else {**others, name: value})

    @property
    def parts(self) -> SplitResult:
        return urlsplit(self.url)

    @property
    def origin(self) -> tuple[str, str, int]:
        return origin_of(self.url)


def origin_of(url: str) -> tuple[str, str, int]:
    """Scheme, host and port: what a password may be shown to, and nobody else."""
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    return parts.scheme, (parts.hostname or "").lower(), port


class HttpReply:
    """The head of a reply; the body is read or discarded, then closed (a context manager)."""

    def __init__(
        self, response: requests.Response, origin: tuple[str, str, int], deadline: Deadline, what: str
    ) -> None:
        self.status: int = response.status_code
        self.origin = origin
        self.headers: Mapping[str, str] = response.headers
        self._response = response
        self._deadline = deadline
        self._what = what

    def chunks(self) -> Iterator[bytes]:
        """The body as it comes, in pieces of at most READ_SIZE.

        Raises TransientError when it is cut or stalls, TimeoutExpiredError at the deadline.
        """
        while piece := self._read_some():
            yield piece

    def read(self, limit: int) -> bytes:
        """The whole body; UnavailableError when it is longer than limit bytes."""
        body = bytearray()
        for piece in self.chunks():
            body += piece
            if len(body) > limit:
                self._response.close()
                raise UnavailableError(f"{self._what}: the answer is longer than {limit} bytes")
        return bytes(body)

    def discard(self) -> bytes:
        """Reads away what is left of a short body, so that the connection can be used again, and closes."""
        body = bytearray()
        with self, contextlib.suppress(OverlayBDError):
            while len(body) <= DISCARD_SIZE and (piece := self._read_some()):
                body += piece
        return bytes(body)

    def close(self) -> None:
        """Gives the connection back when the body was read to its end, else ends it."""
        self._response.close()

    def __enter__(self) -> HttpReply:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read_some(self) -> bytes:
        try:
            return self._response.raw.read1(READ_SIZE)
        except (OSError, urllib3.exceptions.HTTPError, http.client.HTTPException) as error:
            self._deadline.require(self._what)
            raise failure_of(error, self._what) from error


class Wire:
    """Sends requests by one session; for any number of threads."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._session = transport.session()

    def send(self, request: HttpRequest, deadline: Deadline, what: str) -> HttpReply:
        """The reply, its body not yet read.

        what begins every message: ``HOST/REPOSITORY: operation``.  Raises TransientError,
        UnavailableError or FailedError for the connection, never for a status.
        """
        deadline.require(what)
        timeout = (
            deadline.at_most(self._transport.connect_timeout_s),
            deadline.at_most(self._transport.stall_timeout_s),
        )
        try:
            with bounded_by(deadline):
                response = self._session.request(
                    request.method,
                    request.url,
                    headers=dict(request.headers),
                    # A file is sent in small pieces, each within the time-out; bytes all at once.
                    data=io.BytesIO(request.body) if request.body else request.body,
                    proxies=self._transport.proxies_for(request.url),
                    timeout=timeout,
                    allow_redirects=False,
                    stream=True,
                )
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            deadline.require(what)
            raise failure_of(error, what) from error
        return HttpReply(response, request.origin, deadline, what)

    def close(self) -> None:
        self._session.close()


def failure_of(error: BaseException, what: str) -> OverlayBDError:
    """The exception that a failed connection is for our callers."""
    root = root_of(error)
    if isinstance(root, ssl.SSLCertVerificationError):
        return UnavailableError(f"{what}: its TLS certificate is not trusted: {root.verify_message}")
    if isinstance(root, ssl.SSLError) and not isinstance(root, ssl.SSLEOFError):
        return UnavailableError(f"{what}: no TLS connection: {root.reason or 'broken off'}")
    if isinstance(root, _INPUT_ERRORS):
        return FailedError(f"{what}: not a URL that can be asked ({type(root).__name__})")
    return next(
        (TransientError(f"{what}: {sentence}") for kinds, sentence in _SENTENCES if isinstance(root, kinds)),
        UnavailableError(f"{what}: the connection failed ({type(root).__name__})"),
    )


_INPUT_ERRORS = (
    requests.exceptions.InvalidURL,
    requests.exceptions.MissingSchema,
    requests.exceptions.InvalidSchema,
    requests.exceptions.InvalidHeader,
    urllib3.exceptions.LocationParseError,
)

_Kinds = tuple[type[BaseException], ...]

CUT_ERRORS: _Kinds = (
    ConnectionError,
    ssl.SSLEOFError,
    http.client.HTTPException,
    requests.exceptions.ChunkedEncodingError,
    urllib3.exceptions.ProtocolError,
    urllib3.exceptions.IncompleteRead,
)

# The first row that fits; the lower library's own classes stand for what has no cause below.
_SENTENCES: tuple[tuple[_Kinds, str], ...] = (
    ((socket.gaierror, urllib3.exceptions.NameResolutionError), "the host's name cannot be looked up"),
    ((ConnectionRefusedError,), "the connection is refused"),
    (
        (TimeoutError, requests.exceptions.Timeout, urllib3.exceptions.TimeoutError),
        "no answer in time",
    ),
    ((ConnectionError,), "the connection was cut"),  # http.client's RemoteDisconnected is a BadStatusLine too
    ((http.client.BadStatusLine, http.client.LineTooLong), "what answers does not speak HTTP"),
    (CUT_ERRORS, "the connection was cut"),
    ((OSError,), "the host cannot be reached"),
)


def root_of(error: BaseException) -> BaseException:
    """The innermost exception: these libraries wrap in ``args``, in ``reason`` and in ``__cause__``."""
    for _ in range(16):
        inner = [getattr(error, "reason", None), *error.args, error.__cause__]
        deeper = next((item for item in inner if isinstance(item, BaseException)), None)
        if deeper is None or deeper is error:
            break
        error = deeper
    return error
