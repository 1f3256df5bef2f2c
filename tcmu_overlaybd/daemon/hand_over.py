"""A new daemon takes over from this one while the disks are used (``upgrade``).

::

   this one                                      its successor: the same command line, so the
                                                 program that is installed there by now
   starts it, with the listening socket   ──▶    imports, reads configuration and state folder
                                          ◀──    "prepared"; waits for the lock
   flushes every upper; commands go on
   walks no ring any more: parked commands
   stay there; exits, with nothing closed ──▶    has the lock; finds its devices as after a crash

What the file system sees is the last line: a pause of what the successor takes to open the
images.  Until the rings are let go, whatever fails ends the successor, and this one goes on.
The socket is never closed, so a command that connects meanwhile is answered a little later.
"""

from __future__ import annotations

import logging
import os
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Self

from tcmu_overlaybd import __version__
from tcmu_overlaybd.daemon.messages import UpgradeState, UpgradeStatus
from tcmu_overlaybd.daemon.readiness import notify
from tcmu_overlaybd.errors import BusyError, FailedError, OverlayBDError, TimeoutExpiredError

logger = logging.getLogger(__name__)

VARIABLE = "TCMU_OVERLAYBD_HANDED"  # "LISTENER:PIPE", numbers of file descriptors
PREPARED = b"+"
PREPARE_TIMEOUT_S = 60.0
LOCK_TIMEOUT_S = 120.0  # the flush between "prepared" and our end, and something


@dataclass(frozen=True)
class Handed:
    """What a successor was given."""

    listener: socket.socket
    pipe: int

    @classmethod
    def of_environment(cls, environment: MutableMapping[str, str] = os.environ) -> Self | None:
        """None for a daemon that was started as usual.  No process of ours inherits it in its turn."""
        listener, _, pipe = environment.pop(VARIABLE, "").partition(":")
        if not (listener.isdecimal() and pipe.isdecimal()):
            return None
        for fd in (int(listener), int(pipe)):
            os.set_inheritable(fd, False)
        return cls(socket.socket(fileno=int(listener)), int(pipe))

    def say_prepared(self) -> None:
        """From now on only the lock is missing."""
        os.write(self.pipe, PREPARED)
        os.close(self.pipe)


class HandOver:
    """This daemon's side; one at a time."""

    def __init__(
        self, listener: socket.socket, flush: Callable[[], None], command: Sequence[str] | None = None
    ) -> None:
        """flush makes durable what was acknowledged, within a deadline of its own."""
        self._listener = listener
        self._flush = flush
        self._command = list(command or (sys.executable, *sys.orig_argv[1:]))
        self._lock = threading.Lock()  # guards the state
        self._state: UpgradeState = "none"
        self._successor: subprocess.Popen[bytes] | None = None
        self._reason = ""
        self.end: Callable[[], None] = lambda: None  # the main loop's, once there is one

    @property
    def is_leaving(self) -> bool:
        return self._state == "leaving"

    def status(self) -> UpgradeStatus:
        with self._lock:
            successor = self._successor.pid if self._successor else 0
            return UpgradeStatus(os.getpid(), __version__, self._state, successor, self._reason)

    def begin(self) -> UpgradeStatus:
        """Starts a successor; the rest goes on by itself.  Raises BusyError while one is on its way."""
        with self._lock:
            if self._state in ("preparing", "leaving"):
                raise BusyError("an upgrade is under way already")
            self._state, self._reason = "preparing", ""
        threading.Thread(target=self._run, name="upgrade", daemon=True).start()
        return self.status()

    def _run(self) -> None:
        try:
            self._hand_over()
        except (OverlayBDError, OSError) as error:
            logger.error("upgrade: %s", error)  # noqa: TRY400 the sentence is all
            self._give_up(str(error))

    def _hand_over(self) -> None:
        read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
        try:
            try:
                successor = self._start(write_fd)
            finally:
                os.close(write_fd)
            wait_until_prepared(successor, read_fd)
        finally:
            os.close(read_fd)
        self._flush()
        logger.info("upgrade: handing over to pid %d", successor.pid)
        notify(f"MAINPID={successor.pid}")
        os.environ.pop("NOTIFY_SOCKET", None)  # systemd listens to the successor from now on
        with self._lock:
            self._state = "leaving"
        self.end()

    def _start(self, pipe: int) -> subprocess.Popen[bytes]:
        listener = self._listener.fileno()
        logger.info("upgrade: starting %s", " ".join(self._command))
        successor = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            env={**os.environ, VARIABLE: f"{listener}:{pipe}"},
            pass_fds=[listener, pipe],
        )
        with self._lock:
            self._successor = successor
        return successor

    def _give_up(self, reason: str) -> None:
        if self._successor is not None:
            self._successor.kill()
            self._successor.wait()
        with self._lock:
            self._state, self._reason, self._successor = "failed", reason, None


def wait_until_prepared(successor: subprocess.Popen[bytes], pipe: int) -> None:
    """Raises FailedError when it ends instead, TimeoutExpiredError when it says nothing."""
    deadline = time.monotonic() + PREPARE_TIMEOUT_S
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        if not selector.select(deadline - time.monotonic()):
            raise TimeoutExpiredError(
                f"the new daemon (pid {successor.pid}) is not prepared after {PREPARE_TIMEOUT_S:.0f} s"
            )
    if os.read(pipe, 1) != PREPARED:
        raise FailedError(
            f"the new daemon (pid {successor.pid}) ended before it could take over; its log says why"
        )
