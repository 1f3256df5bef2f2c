"""An NBD server on a unix socket: accepts, shakes hands, hands over to C.

One thread accepts; each connection has its own (connection.py).  A client that
lingers, lies or floods costs one of a bounded number of connections and nothing
else.

It is stopped in two steps, so that the owner of the device can cancel what is
parked in between: ``begin_stop`` (no new connection, handshakes are cut off) and
``finish_stop`` (requests in flight are answered, inside a deadline).
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
from pathlib import Path
from urllib.parse import quote

from tcmu_overlaybd.errors import BusyError, TimeoutExpiredError, UsageError
from tcmu_overlaybd.native.core import Device
from tcmu_overlaybd.nbd.connection import ConnectionThread
from tcmu_overlaybd.nbd.handshake import Export

MAX_CONNECTIONS = 64
MAX_PATH = 107  # bytes; sun_path has 108 with its NUL
BACKLOG = 64
PAUSE_SECONDS = 0.1  # when the process is out of file descriptors

log = logging.getLogger("tcmu_overlaybd.nbd")


def uri(path: Path, name: str = "") -> str:
    """``nbd+unix:///NAME?socket=PATH``, as libnbd and qemu read it."""
    return f"nbd+unix:///{quote(name)}?socket={quote(os.fspath(path.absolute()))}"


class Server:
    """Serves one device as one export."""

    def __init__(self, path: Path, device: Device, export: Export) -> None:
        """Listens from now on; raises BusyError, UsageError or OSError when it cannot."""
        self.path = path
        self.uri = uri(path, export.name)
        self.device = device
        self._export = export
        self._listener = listen(path)
        self._inode = path.lstat().st_ino
        self._lock = threading.Lock()  # guards the next two
        self._connections: set[ConnectionThread] = set()
        self._is_stopping = False
        self._acceptor = threading.Thread(target=self._accept, name="nbd-accept", daemon=True)
        self._acceptor.start()

    def begin_stop(self) -> None:
        """No new connection; those that are end when what is in flight is answered.  Does not wait."""
        with self._lock:
            self._is_stopping = True
            connections = set(self._connections)
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept
        for connection in connections:
            connection.stop()

    def wait_stopped(self, timeout: float) -> bool:
        """Whether all connections have ended, at most timeout seconds from now."""
        deadline = time.monotonic() + timeout
        with self._lock:
            threads = [self._acceptor, *self._connections]
        for thread in threads:
            thread.join(max(0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in threads)

    def finish_stop(self, timeout: float) -> None:
        """Takes the socket away; raises TimeoutExpiredError when a connection goes on for timeout s."""
        self._listener.close()
        self._remove_socket()
        if not self.wait_stopped(timeout):
            raise TimeoutExpiredError(f"{self.path}: its connections have not ended after {timeout:g} s")

    def _remove_socket(self) -> None:
        """Unless somebody else's lies there by now."""
        with contextlib.suppress(OSError):
            if self.path.lstat().st_ino == self._inode:
                self.path.unlink()

    def _accept(self) -> None:
        while not self._is_stopping:
            try:
                sock, _ = self._listener.accept()
            except OSError as error:
                if self._is_stopping:
                    return
                log.warning("%s: accepting a connection: %s", self.path, error.strerror)
                time.sleep(PAUSE_SECONDS)
                continue
            self._admit(sock)

    def _admit(self, sock: socket.socket) -> None:
        """Starts a connection's thread, or hangs up."""
        connection = ConnectionThread(sock, self.device, self._export, self._forget)
        refusal = self._start(connection)
        if refusal:
            log.warning("%s: a connection is refused: %s", self.path, refusal)
            sock.close()

    def _start(self, connection: ConnectionThread) -> str:
        """Why it cannot be started; "" when it was."""
        with self._lock:
            if self._is_stopping:
                return "the server is stopping"
            if len(self._connections) >= MAX_CONNECTIONS:
                return f"there are {MAX_CONNECTIONS}"
            try:
                connection.start()
            except RuntimeError as error:  # the system has no thread left
                return str(error)
            self._connections.add(connection)
        return ""

    def _forget(self, connection: ConnectionThread) -> None:
        with self._lock:
            self._connections.discard(connection)


def listen(path: Path) -> socket.socket:
    """A listening socket that only its owner can connect to.

    A socket file that nobody listens on is left over from a killed server and is
    replaced; a live one is BusyError, and anything else at the path is never touched.
    """
    if len(os.fsencode(path)) > MAX_PATH:
        raise UsageError(f"{path}: a socket's path has at most {MAX_PATH} bytes")
    if path.exists() and not path.is_socket():
        raise BusyError(f"{path}: something that is not a socket lies there")
    if path.is_socket():
        remove_stale_socket(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(os.fspath(path))
        path.chmod(0o600)  # nobody can connect before listen
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error
    return listener


def remove_stale_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except OSError as error:
            raise BusyError(f"{path}: a socket lies there: {error.strerror or error}") from error
    raise BusyError(f"{path}: another server listens there")
