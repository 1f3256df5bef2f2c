"""Hooks of the test build: which one is loaded, and what can be made to go wrong from outside.

A command that a test starts as a process calls ``arm_from_environment`` first:

* ``OBD_TEST_FILE_FAULT="suffix:operation:n:errno[:sticky]"`` gives ``file_fault`` one rule
* ``TCMU_OVERLAYBD_TEST_HOLD_GIL=seconds``: at SIGUSR1 a thread holds the interpreter
  lock that long, asleep

In a release build neither does anything.  OBD_TEST_KILL_AT is read by C (csrc/base/hook.h), for
the steps of Python, too: ``hook``.
"""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tcmu_overlaybd.native._binding import check, lib


def is_test_build() -> bool:
    return bool(lib.obd_is_test_build())


def hook(name: str) -> None:
    """A step at which a test may kill the process; tests/kill_points.py lists them all."""
    lib.obd_test_hook(name.encode())


def file_fault(suffix: str, operation: str, n: int, error: int, *, sticky: bool = False) -> None:
    """The n-th operation on a file whose path ends in suffix fails with errno error.

    operation is "write", "tear" (a write that fails half-way), "sync", "reserve", "read",
    "truncate", "punch", "open", "rename", "remove", or a sync that does not fail: "stall"
    (hangs while PATH.stall exists), "forget" (does nothing) or "late" (is overtaken by the
    next one); n = 0 removes all rules.
    """
    check(lib.obd_test_file_fault(suffix.encode(), operation.encode(), n, error, sticky))


@contextmanager
def recorded_files(folder: Path, tape: Path) -> Iterator[None]:
    """Notes on tape, in order, what changes files of folder (tests/fault/file_tape.py reads it)."""
    check(lib.obd_test_record_files(os.fsencode(folder), os.fsencode(tape)))
    try:
        yield
    finally:
        check(lib.obd_test_record_files(b"", b""))


def arm_from_environment() -> None:
    """Does what a test asked for when it started this process; on the main thread."""
    if not is_test_build():
        return
    if rule := os.environ.get("OBD_TEST_FILE_FAULT"):
        suffix, operation, n, error, *sticky = rule.split(":")
        file_fault(suffix, operation, int(n), int(error), sticky=bool(sticky))
    if seconds := os.environ.get("TCMU_OVERLAYBD_TEST_HOLD_GIL"):
        microseconds = int(float(seconds) * 1e6)
        signal.signal(
            signal.SIGUSR1, lambda *_: threading.Thread(target=hold_gil, args=[microseconds]).start()
        )


def hold_gil(microseconds: int) -> None:
    """Sleeps without letting any other Python thread run: ``PyDLL`` keeps the lock."""
    ctypes.PyDLL(None).usleep(microseconds)
