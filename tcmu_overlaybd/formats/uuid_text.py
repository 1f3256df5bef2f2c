"""UUIDs as layer headers hold them: 36 characters of text, upper case, then a NUL.

An absent id is written as the null UUID, never as empty bytes; what is no UUID
reads as the null one, and that is no error (spec/lsmt.md section 2).
"""

from __future__ import annotations

import re
import uuid

from tcmu_overlaybd.errors import UsageError

NULL = "00000000-0000-0000-0000-000000000000"
FIELD_SIZE = 37

_PATTERN = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def fresh() -> str:
    """A random (version 4) id."""
    return str(uuid.uuid4()).upper()


def from_user(text: str) -> str:
    """The id as it is written, or UsageError: the reference would take the null one silently."""
    if not _PATTERN.fullmatch(text):
        raise UsageError(f"{text!r} is not a UUID: 8-4-4-4-12 hexadecimal digits are needed")
    return text.upper()


def from_field(field: bytes) -> str:
    """The id in a header's 37 bytes; NULL when they hold none."""
    text = field[:-1].decode("ascii", errors="replace")
    return text.upper() if field[-1:] == b"\0" and _PATTERN.fullmatch(text) else NULL


def to_field(text: str) -> bytes:
    return text.encode("ascii").ljust(FIELD_SIZE, b"\0")
