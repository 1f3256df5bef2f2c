"""SIGINT, SIGTERM and SIGHUP as something that a foreground command waits for.

While one is installed no such signal interrupts anything: the command notices it
where it waits, and then ends in its own order, flushed.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Self

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopSignals:
    """For the main thread; a context manager."""

    def __enter__(self) -> Self:
        self._received: int | None = None
        self._does_raise = False
        self._read_fd, self._write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._fd_before = signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._fd_before)
        os.close(self._read_fd)
        os.close(self._write_fd)

    def wait(self, *fds: int) -> bool:
        """Waits for one of the signals (true), or until one of fds is readable (false)."""
        while self._received is None:
            readable, _, _ = select.select([self._read_fd, *fds], [], [])
            if set(readable) & set(fds):
                return False
            with contextlib.suppress(BlockingIOError):
                os.read(self._read_fd, 512)  # the byte of some other signal also wakes us
        return True

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """While it lasts, one of the signals raises KeyboardInterrupt: for what does not wait here."""
        self._does_raise = True
        try:
            if self._received is not None:
                raise KeyboardInterrupt
            yield
        finally:
            self._does_raise = False

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._received = number
        if self._does_raise:
            raise KeyboardInterrupt
