"""Ctrl-C for commands that wait in C.

Python acts on a signal when it runs again, and a read whose data does not come is in C
until its deadline.  So a thread listens, too, and ends such waits; then the command
goes the way of every KeyboardInterrupt, and cleans up behind itself.

Commands that listen to signals themselves (``nbd``, ``serve``) are not disturbed: the
signals of their time are not heard here, unless they ask for it by an ``interruptible``
of their own.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tcmu_overlaybd.cli.stop_signals import SIGNALS

STOPPED = 0  # no signal has this number


@contextmanager
def interruptible() -> Iterator[None]:
    """While it lasts, Ctrl-C (or another signal that has a handler) ends waits in C.  Does
    nothing outside of the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(write_fd, False)
    before = signal.set_wakeup_fd(write_fd, warn_on_full_buffer=False)
    listener = threading.Thread(target=listen, args=[read_fd], name="interrupt", daemon=True)
    listener.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.write(write_fd, bytes([STOPPED]))
        listener.join()
        os.close(read_fd)
        os.close(write_fd)
        interrupt_waits(False)


def listen(read_fd: int) -> None:
    while True:
        numbers = os.read(read_fd, 64)
        if set(numbers) & set(SIGNALS):
            interrupt_waits(True)
        if STOPPED in numbers:
            return


def interrupt_waits(wanted: bool) -> None:
    """Nobody waits in C unless it has been loaded; it is not, for a moment like this one."""
    if "tcmu_overlaybd.native._binding" not in sys.modules:
        return
    from tcmu_overlaybd.native import process

    process.interrupt_waits(wanted)
