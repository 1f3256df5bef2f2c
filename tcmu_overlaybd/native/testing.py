"""Hooks of the test build: which one is loaded, and file operations that fail on purpose."""

from __future__ import annotations

from tcmu_overlaybd.native._binding import check, lib


def is_test_build() -> bool:
    return bool(lib.obd_is_test_build())


def file_fault(suffix: str, operation: str, n: int, error: int, *, sticky: bool = False) -> None:
    """The n-th operation on a file whose path ends in suffix fails with errno error.

    operation is "write", "sync", "reserve", "read" or "truncate"; n = 0 removes all rules.
    """
    check(lib.obd_test_file_fault(suffix.encode(), operation.encode(), n, error, sticky))
