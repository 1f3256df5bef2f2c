"""requests, with each wait bounded: an answer that drips cannot outlive the request's deadline.

The time-outs of requests bound a single ``recv``, so a peer that sends a byte every few
seconds holds a thread for as long as it likes, in the head as in the body.  Here every
read of the socket is given what is left of the deadline, as is the wait for one of the
connections that a host may have at once.

The trust that an adapter is given is the only one: what requests would add (certifi's
bundle, from ``verify``) is left out.
"""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from tcmu_overlaybd.registry.deadline import Deadline

_FAR = Deadline(float("inf"), float("inf"))


class _Bound(threading.local):
    """The deadline of the request that this thread is at: nothing between here and requests carries one."""

    deadline = _FAR


_bound = _Bound()


@contextmanager
def bounded_by(deadline: Deadline) -> Iterator[None]:
    """Responses that begin inside obey deadline until they are read."""
    _bound.deadline = deadline
    try:
        yield
    finally:
        _bound.deadline = _FAR


class _BoundedReader(io.RawIOBase):
    """What comes from a socket, until the deadline; then TimeoutError."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket) -> None:
        self._raw = raw
        self._sock = sock
        self._stall_s = sock.gettimeout() or float("inf")
        self._deadline = _bound.deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._deadline.at_most(self._stall_s)
        if left <= 0:
            raise TimeoutError("the deadline has passed")
        self._sock.settimeout(None if left == float("inf") else left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _BoundedResponse(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp = io.BufferedReader(_BoundedReader(self.fp.detach(), sock))


class _Connection(HTTPConnection):
    response_class = _BoundedResponse


class _SecureConnection(HTTPSConnection):
    response_class = _BoundedResponse


class _BoundedWait:
    """A pool where a request waits for a connection to be free until its deadline, then EmptyPoolError."""

    def _get_conn(self, timeout: float | None = None) -> Any:  # noqa: ARG002
        left = _bound.deadline.remaining()
        return super()._get_conn(None if left == float("inf") else left)  # type: ignore[misc]


class _Pool(_BoundedWait, HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(_BoundedWait, HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


_POOLS = {"http": _Pool, "https": _SecurePool}


class BoundedAdapter(HTTPAdapter):
    """What a ``requests.Session`` sends by; context says whom to trust and who we are."""

    def __init__(self, context: ssl.SSLContext, connections_per_host: int) -> None:
        self._context = context
        super().__init__(pool_maxsize=connections_per_host, pool_block=True)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs, ssl_context=self._context)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs, ssl_context=self._context)
        manager.pool_classes_by_scheme = _POOLS
        return manager

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:  # noqa: ARG002
        """Nothing to add: the context has it all."""
        conn.cert_reqs = "CERT_REQUIRED"
