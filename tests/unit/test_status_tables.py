"""Every status of csrc/obd.h has a row in the table of every border (architecture, section 9)."""

from __future__ import annotations

import errno
import re
from pathlib import Path

import pytest

from tcmu_overlaybd import errors
from tcmu_overlaybd.native import _binding
from tcmu_overlaybd.native._binding import ffi, lib

HEADER = Path(__file__).resolve().parents[2] / "csrc" / "obd.h"
STATUSES = {int(number): name for number, name in ffi.typeof("enum obd_status").elements.items()}
STATUSES.pop(lib.OBD_NR_STATUS)
FAILURES = {number: name for number, name in STATUSES.items() if number != lib.OBD_OK}
TURNS = {lib.OBD_E_AGAIN, lib.OBD_E_MISS}  # never leave the core

# Sense keys
NOT_READY, UNIT_ATTENTION, ABORTED_COMMAND, MISCOMPARE = 0x02, 0x06, 0x0B, 0x0E


def params(numbers: dict[int, str]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("status", numbers, ids=numbers.values())


def test_the_enum_is_numbered_without_gaps() -> None:
    assert sorted(STATUSES) == list(range(lib.OBD_NR_STATUS))
    declared = re.findall(r"^    (OBD_OK|OBD_E_\w+)", HEADER.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(declared) == sorted(STATUSES.values())


@params(STATUSES)
def test_c_knows_the_name_of(status: int) -> None:
    assert ffi.string(lib.obd_status_name(status)).decode() == STATUSES[status]


def test_a_number_that_is_no_status_has_no_name() -> None:
    assert ffi.string(lib.obd_status_name(lib.OBD_NR_STATUS)) == b"?"
    assert ffi.string(lib.obd_status_name(-1)) == b"?"


@params(STATUSES)
def test_metrics_have_a_word_for(status: int) -> None:
    assert re.fullmatch(r"[a-z][a-z_]*", _binding.status_name(status))
    assert len({_binding.status_name(other) for other in STATUSES}) == len(STATUSES)


def test_python_has_one_exception_for_each_and_no_row_too_many() -> None:
    assert set(_binding.EXCEPTIONS) == set(FAILURES)


@params(FAILURES)
def test_the_exception_of(status: int) -> None:
    kind = _binding.EXCEPTIONS[status]
    assert issubclass(kind, errors.OverlayBDError)
    assert kind.exit_code in {1, 2, 3, 4, 5}
    with pytest.raises(kind):
        _binding.check(status)


def test_ok_raises_nothing() -> None:
    _binding.check(lib.OBD_OK)


@pytest.mark.parametrize(
    ("status", "exit_code"),
    [
        ("OBD_E_INVALID", 2),
        ("OBD_E_NOT_FOUND", 3),
        ("OBD_E_UNREACHABLE", 4),
        ("OBD_E_TIMEOUT", 4),
        ("OBD_E_CORRUPT", 5),
        ("OBD_E_BUSY", 1),
        ("OBD_E_NO_SPACE", 1),
    ],
)
def test_exit_codes_are_those_of_the_manual(status: str, exit_code: int) -> None:
    assert _binding.EXCEPTIONS[getattr(lib, status)].exit_code == exit_code


@pytest.mark.parametrize("is_write", [False, True], ids=["read", "write"])
@params(FAILURES)
def test_the_sense_of(status: int, is_write: bool) -> None:
    sense = lib.obd_status_sense(status, is_write)
    key = sense >> 16
    assert 0 < key <= MISCOMPARE
    assert sense < 1 << 24


@pytest.mark.parametrize("is_write", [False, True], ids=["read", "write"])
@params(FAILURES)
def test_linux_does_not_retry(status: int, is_write: bool) -> None:
    """An answer that is retried stalls the whole LUN while a command is parked."""
    sense = lib.obd_status_sense(status, is_write)
    assert sense >> 16 not in {UNIT_ATTENTION, ABORTED_COMMAND}
    assert sense != NOT_READY << 16 | 0x0401


@pytest.mark.parametrize(
    ("status", "is_write", "sense"),
    [
        ("OBD_E_UNREACHABLE", False, 0x020800),
        ("OBD_E_CORRUPT", False, 0x031100),
        ("OBD_E_IO", False, 0x044400),
        ("OBD_E_NO_SPACE", True, 0x072707),
        ("OBD_E_RANGE", False, 0x052100),
        ("OBD_E_READ_ONLY", True, 0x072700),
        ("OBD_E_MISCOMPARE", False, 0x0E1D00),
    ],
)
def test_the_sense_that_the_design_names(status: str, is_write: bool, sense: int) -> None:
    assert lib.obd_status_sense(getattr(lib, status), is_write) == sense


# The errors that a server may send (NBD protocol, "Error values").
NBD_ERRORS = {
    errno.EPERM,
    errno.EIO,
    errno.ENOMEM,
    errno.EINVAL,
    errno.ENOSPC,
    errno.EOVERFLOW,
    errno.ENOTSUP,
    errno.ESHUTDOWN,
}


@params(FAILURES)
def test_nbd_has_an_error_for(status: int) -> None:
    assert lib.obd_status_nbd_errno(status) in NBD_ERRORS


def test_ok_is_no_error_for_nbd() -> None:
    assert lib.obd_status_nbd_errno(lib.OBD_OK) == 0
