"""The client's end of the control socket."""

from __future__ import annotations

import http.client
import os
import socket
from pathlib import Path
from typing import TypeVar

import msgspec

from tcmu_overlaybd.config.decoding import decode_json
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
from tcmu_overlaybd.errors import TimeoutExpiredError, UnavailableError

# What an answer may take beyond the time that the request itself is given.
SLACK_S = 30.0
REPAIR_TIMEOUT_S = 600.0  # a helper may take its time for each of them
COMMIT_TIMEOUT_S = 24 * 3600.0  # it takes as long as the upper is large; a dead daemon ends it at once

S = TypeVar("S", bound=msgspec.Struct)


class Client:
    """Asks the daemon behind a socket; every call raises what the daemon raised.

    Raises UnavailableError when no daemon answers, TimeoutExpiredError when it does not in time.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def version(self, timeout: float = SLACK_S) -> Version:
        return self._ask("GET", "/v1/version", None, Version, timeout)

    def devices(self) -> tuple[DeviceStatus, ...]:
        return self._ask("GET", "/v1/devices", None, DeviceList, SLACK_S).devices

    def status(self, name: str) -> DeviceStatus:
        return self._ask("GET", f"/v1/devices/{name}", None, DeviceStatus, SLACK_S)

    def leftovers(self) -> Leftovers:
        return self._ask("GET", "/v1/leftovers", None, Leftovers, SLACK_S)

    def repair(self) -> Leftovers:
        """Removes what a daemon that died left behind."""
        return self._ask("DELETE", "/v1/leftovers", None, Leftovers, REPAIR_TIMEOUT_S)

    def cache(self) -> CacheStatus:
        return self._ask("GET", "/v1/cache", None, CacheStatus, SLACK_S)

    def attach(self, request: AttachRequest) -> DeviceStatus:
        return self._ask("POST", "/v1/devices", request, DeviceStatus, request.timeout + SLACK_S)

    def detach(self, name: str, request: DetachRequest) -> DeviceStatus:
        return self._ask("DELETE", f"/v1/devices/{name}", request, DeviceStatus, request.timeout + SLACK_S)

    def commit(self, name: str, request: CommitRequest) -> Committed:
        return self._ask("POST", f"/v1/devices/{name}/commit", request, Committed, COMMIT_TIMEOUT_S)

    def snapshot(self, request: SnapshotRequest) -> Snapshotted:
        return self._ask("POST", "/v1/snapshot", request, Snapshotted, COMMIT_TIMEOUT_S)

    def fork(self, name: str, request: ForkRequest) -> Forked:
        return self._ask("POST", f"/v1/devices/{name}/fork", request, Forked, COMMIT_TIMEOUT_S)

    def resize(self, name: str, request: ResizeRequest) -> DeviceStatus:
        target = f"/v1/devices/{name}/resize"
        return self._ask("POST", target, request, DeviceStatus, request.timeout + SLACK_S)

    def begin_upgrade(self) -> UpgradeStatus:
        return self._ask("POST", "/v1/upgrade", None, UpgradeStatus, SLACK_S)

    def upgrade_status(self, timeout: float) -> UpgradeStatus:
        return self._ask("GET", "/v1/upgrade", None, UpgradeStatus, timeout)

    def _ask(
        self, method: str, target: str, request: msgspec.Struct | None, kind: type[S], timeout: float
    ) -> S:
        connection = UnixConnection(self.path, timeout)
        try:
            connection.request(method, target, b"" if request is None else msgspec.json.encode(request))
            response = connection.getresponse()
            body = response.read()
        except TimeoutError as error:
            raise TimeoutExpiredError(
                f"{self.path}: the daemon does not answer within {timeout:.0f} s"
            ) from error
        except PermissionError as error:
            raise UnavailableError(f"{self.path}: not allowed to talk to the daemon: try as root") from error
        except (OSError, http.client.HTTPException) as error:
            raise UnavailableError(f"{self.path}: {_why(error)}") from error
        finally:
            connection.close()
        return self._decode(body, kind, response.status)

    def _decode(self, body: bytes, kind: type[S], status: int) -> S:
        try:
            if status != http.client.OK:
                raise decode_json(body, Failure).exception()
            return decode_json(body, kind)
        except msgspec.DecodeError as error:
            raise UnavailableError(f"{self.path}: what answers is no daemon of ours: {error}") from error


def _why(error: Exception) -> str:
    if isinstance(error, (FileNotFoundError, ConnectionRefusedError)):
        return "no daemon runs; start it with: tcmu-overlaybd serve"
    if isinstance(error, http.client.RemoteDisconnected | ConnectionResetError | BrokenPipeError):
        return "the daemon ended before it answered"
    return f"the daemon cannot be asked: {error}"


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(os.fspath(self._path))
