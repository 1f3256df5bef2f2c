"""The compiled extension, and the one place that turns its status into exceptions.

``ffi`` and ``lib`` are imported from here by the modules of this package and by
nothing outside it.  TCMU_OVERLAYBD_TEST_BUILD=1 chooses the extension with test
hooks; an installed package does not have that one.
"""

from __future__ import annotations

import os
from typing import NoReturn

from tcmu_overlaybd import errors

if os.environ.get("TCMU_OVERLAYBD_TEST_BUILD") == "1":
    from tcmu_overlaybd.native._obd_test import ffi, lib
else:
    from tcmu_overlaybd.native._obd import ffi, lib

__all__ = ["EXCEPTIONS", "check", "ffi", "lib", "raise_status", "status_name"]

# One row for every status; a test walks the whole enum through it.
EXCEPTIONS: dict[int, type[errors.OverlayBDError]] = {
    lib.OBD_E_AGAIN: errors.FailedError,
    lib.OBD_E_MISS: errors.FailedError,
    lib.OBD_E_INVALID: errors.UsageError,
    lib.OBD_E_RANGE: errors.UsageError,
    lib.OBD_E_READ_ONLY: errors.ReadOnlyError,
    lib.OBD_E_NO_SPACE: errors.NoSpaceError,
    lib.OBD_E_NO_MEMORY: errors.FailedError,
    lib.OBD_E_LIMIT: errors.LimitError,
    lib.OBD_E_NOT_FOUND: errors.MissingError,
    lib.OBD_E_IO: errors.FailedError,
    lib.OBD_E_CORRUPT: errors.CorruptError,
    lib.OBD_E_UNSUPPORTED: errors.UnavailableError,
    lib.OBD_E_UNREACHABLE: errors.UnavailableError,
    lib.OBD_E_TIMEOUT: errors.TimeoutExpiredError,
    lib.OBD_E_CANCELLED: errors.FailedError,
    lib.OBD_E_BUSY: errors.BusyError,
    lib.OBD_E_JOURNAL: errors.JournalError,
    lib.OBD_E_MISCOMPARE: errors.FailedError,
    lib.OBD_E_CLOSED: errors.FailedError,
}


def raise_status(status: int) -> NoReturn:
    """Raises the exception of status with this thread's sentence."""
    text = ffi.string(lib.obd_error_text()).decode(errors="replace")
    name = ffi.string(lib.obd_status_name(status)).decode()
    raise EXCEPTIONS.get(status, errors.FailedError)(text or name)


def check(status: int) -> None:
    """Returns when status is OBD_OK, else raises."""
    if status != lib.OBD_OK:
        raise_status(status)


def status_name(status: int) -> str:
    """``"corrupt"`` for OBD_E_CORRUPT: the word used in metrics and JSON."""
    return (
        str(ffi.string(lib.obd_status_name(status)).decode())
        .removeprefix("OBD_E_")
        .removeprefix("OBD_")
        .lower()
    )


# The way back, for what Python found and a front has to answer: of several statuses
# with one exception, the one that says least.
STATUSES: dict[type[errors.OverlayBDError], int] = {
    **{kind: status for status, kind in EXCEPTIONS.items() if kind is not errors.FailedError},
    errors.UsageError: lib.OBD_E_INVALID,
    errors.UnavailableError: lib.OBD_E_UNREACHABLE,
    errors.FailedError: lib.OBD_E_IO,
}


def status_of(error: errors.OverlayBDError) -> int:
    """The enum obd_status for error: that of its class, or of the nearest base."""
    return next((STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES), int(lib.OBD_E_IO))
