"""A service that is asked for passwords: ``credentialConfig`` with mode http, https or uds.

The protocol is the reference's (spec/registry.md section 7)::

    GET <path>?remote_url=https://HOST/v2/REPOSITORY/blobs/
    {"success": true, "data": {"auths": {...}}}      as in docker's config.json

Over a socket of this machine (uds) the path asked for is ``/auth``.  Where the reference
goes on as nobody after a failure, and fails later with less to say, we say what failed.
"""

from __future__ import annotations

import http.client
import socket
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import msgspec

from tcmu_overlaybd.config.decoding import decode_json
from tcmu_overlaybd.errors import UnavailableError
from tcmu_overlaybd.registry.credentials import Credential
from tcmu_overlaybd.registry.deadline import Deadline
from tcmu_overlaybd.registry.docker_config import AuthEntry, find_in_auths
from tcmu_overlaybd.registry.reference import is_loopback
from tcmu_overlaybd.registry.transport import Transport
from tcmu_overlaybd.registry.wire import HttpRequest, Wire

MAX_REPLY = 1 << 20  # bytes

Ask = Callable[[str], tuple[int, bytes]]  # a query to a status and a body


class _Data(msgspec.Struct):
    auths: dict[str, AuthEntry] | None = None


class _Reply(msgspec.Struct):
    success: bool = False
    data: _Data | None = None


class CredentialService:
    """A source of credentials; the service is asked at each look.  name is for messages."""

    def __init__(self, name: str, ask: Ask) -> None:
        self._name = name
        self._ask = ask

    def find(self, host: str, repository: str) -> Credential | None:
        """Raises UnavailableError when the service does not answer, or not sensibly."""
        scheme = "http" if is_loopback(host) else "https"
        url = f"{scheme}://{host}/v2/{repository}/blobs/"
        status, body = self._ask("remote_url=" + quote(url, safe=":/"))
        what = f"{self._name}: asking for the password of {host}"
        if status != http.HTTPStatus.OK:
            raise UnavailableError(f"{what}: it answers {status}")
        try:
            reply = decode_json(body, _Reply)
        except (msgspec.DecodeError, RecursionError):
            raise UnavailableError(f"{what}: its answer is not what it should be") from None
        if not reply.success:
            raise UnavailableError(f"{what}: it says that it did not succeed")
        auths = reply.data.auths if reply.data is not None else None
        return find_in_auths(auths or {}, host, repository, self._name)


def web_service(url: str, transport: Transport, timeout_s: float) -> CredentialService:
    """At an http or https URL."""

    def ask(query: str) -> tuple[int, bytes]:
        wire = Wire(transport)
        try:
            request = HttpRequest("GET", f"{url}?{query}")
            with wire.send(request, Deadline.after(timeout_s), url) as reply:
                return reply.status, reply.read(MAX_REPLY)
        finally:
            wire.close()

    return CredentialService(url, ask)


def socket_service(path: Path, timeout_s: float) -> CredentialService:
    """Behind a unix socket; timeout_s is for each step of an answer."""

    def ask(query: str) -> tuple[int, bytes]:
        connection = _UnixConnection(path, timeout_s)
        try:
            connection.request("GET", f"/auth?{query}")
            response = connection.getresponse()
            return response.status, response.read(MAX_REPLY)
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise UnavailableError(f"{path}: the service of passwords does not answer: {reason}") from error
        finally:
            connection.close()

    return CredentialService(str(path), ask)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
