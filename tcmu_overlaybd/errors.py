"""
Everything this package raises, by what the caller can do about it.

* OverlayBDError                 exit code
  x UsageError            2      the caller asked for something impossible
  x FailedError           1      it did not work; the sentence says why
    + BusyError           1      another process or name is in the way
    + NoSpaceError        1      a disk is full
    + ReadOnlyError       1      it cannot be written
    + JournalError        1      a journal does not belong to the upper beside it
    + LimitError          1      the format has no room for it
    + RefusedError        1      said to the kernel, with an errno value: it asked for what we do not do
    + AuthenticationError 1      a registry does not accept the password, or does not permit it
  x MissingError          3      no such file, tag or device (also a FileNotFoundError)
  x UnavailableError      4      something needed is missing or does not answer
    + TimeoutExpiredError 4      a deadline passed (also a TimeoutError)
    + KilledError         4      a program of ours was killed in the midst of its work
    + TransientError      4      a connection was refused or cut: the same may succeed in a moment
  x CorruptError          5      bytes break a checksum or a rule of a format
    + FormatError         5      it is not such a file at all, or a version we cannot read

Every message is one sentence with the object, the operation and the numbers.
"""

from __future__ import annotations

import errno


class OverlayBDError(Exception):
    """Base of all; ``exit_code`` is what the command line ends with."""

    exit_code = 1


class UsageError(OverlayBDError, ValueError):
    exit_code = 2


class FailedError(OverlayBDError):
    exit_code = 1


class BusyError(FailedError):
    pass


class NoSpaceError(FailedError):
    pass


class ReadOnlyError(FailedError):
    pass


class JournalError(FailedError):
    pass


class LimitError(FailedError):
    pass


class RefusedError(FailedError):
    def __init__(self, reason: str, error: int = errno.EINVAL) -> None:
        super().__init__(reason)
        self.error = error


class AuthenticationError(FailedError):
    pass


class MissingError(OverlayBDError, FileNotFoundError):
    exit_code = 3


class UnavailableError(OverlayBDError):
    exit_code = 4


class TimeoutExpiredError(UnavailableError, TimeoutError):
    pass


class KilledError(UnavailableError):
    pass


class TransientError(UnavailableError):
    pass


class CorruptError(OverlayBDError):
    exit_code = 5


class FormatError(CorruptError):
    pass
