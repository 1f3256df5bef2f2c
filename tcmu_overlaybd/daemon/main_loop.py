"""The main thread: the kernel's messages, signals, the watchdog, and the end, in one wait.

It waits in Python on file descriptors, never in C, so a signal is always heard.  While
``stop`` runs, in a thread of its own, the loop goes on: to remove a device takes an
answer of the hub.
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tcmu_overlaybd.daemon.readiness import notify, watchdog_interval
from tcmu_overlaybd.native.hub import Hub

logger = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT)
STOPPED = b"\0"  # no signal has this number
ENDED = b"\xff"  # nor this


class MainLoop:
    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._read_fd, self._write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._stopper: threading.Thread | None = None
        self._is_closed = False

    def run(self, stop: Callable[[], bool]) -> bool:
        """Returns what stop, called once a signal has come, returned."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._hub.fileno(), selectors.EVENT_READ, self._hub.ready)
            selector.register(self._read_fd, selectors.EVENT_READ, lambda: self._woken(stop))
            interval = watchdog_interval()
            while not self._has_stopped():
                for key, _ in selector.select(interval):
                    key.data()
                notify("WATCHDOG=1")
        return self._is_closed

    def end(self) -> None:
        """As a signal does; for any thread."""
        os.write(self._write_fd, ENDED)

    def _has_stopped(self) -> bool:
        return self._stopper is not None and not self._stopper.is_alive()

    def _woken(self, stop: Callable[[], bool]) -> None:
        numbers = os.read(self._read_fd, 64)
        wanted = [signal.Signals(number).name for number in numbers if number in SIGNALS]
        if self._stopper is None and (wanted or ENDED in numbers):
            logger.info("signal %s", wanted[0] if wanted else "of our own")
            self._stopper = threading.Thread(target=self._stop, args=(stop,), name="stop", daemon=True)
            self._stopper.start()
        if self._stopper is not None and STOPPED in numbers:
            self._stopper.join()

    def _stop(self, stop: Callable[[], bool]) -> None:
        try:
            self._is_closed = stop()
        except Exception:  # whatever it is, the loop must end
            logger.exception("the stop failed")
        finally:
            os.write(self._write_fd, STOPPED)

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Signals write their number to our pipe, where run finds them, also those that came
        before it; their handlers do nothing."""
        old = {number: signal.signal(number, lambda *_: None) for number in SIGNALS}
        before = signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            for number, handler in old.items():
                signal.signal(number, handler)
