"""What a registry's status means for us, as an exception with one sentence.

The registry's own words (``{"errors": [{"code": ..., "message": ...}]}``) are quoted, cut
to a line of printable characters: they come from outside.
"""

from __future__ import annotations

import msgspec

from tcmu_overlaybd.config.decoding import decode_json
from tcmu_overlaybd.errors import (
    AuthenticationError,
    CorruptError,
    FailedError,
    MissingError,
    OverlayBDError,
    UnavailableError,
)
from tcmu_overlaybd.registry.wire import HttpReply

MAX_QUOTE = 160  # characters


class _Error(msgspec.Struct):
    code: str = ""
    message: str = ""


class _Errors(msgspec.Struct):
    errors: list[_Error] = []


# 401 and 403 are told apart for people only: in both another password may help, a retry will not.
_KINDS: dict[int, tuple[type[OverlayBDError], str]] = {
    400: (FailedError, "the registry finds the request wrong"),
    401: (AuthenticationError, "the registry wants to know who asks"),
    403: (AuthenticationError, "not permitted"),
    404: (MissingError, "not there"),
    405: (FailedError, "the registry does not permit that"),
    413: (FailedError, "larger than the registry, or what is in front of it, takes"),
    416: (CorruptError, "shorter than it should be"),
    429: (UnavailableError, "the registry asks to come back later"),
}


def status_error(reply: HttpReply, what: str) -> OverlayBDError:
    """The exception for a reply that is no success; takes its body."""
    status = reply.status
    quote = quoted(reply.discard())
    said = f"{status}: {quote}" if quote else str(status)
    kind, sentence = _KINDS.get(status) or (
        (UnavailableError, "the registry is in trouble")
        if status >= 500
        else (FailedError, "an answer that makes no sense here")
    )
    return kind(f"{what}: {sentence} ({said})")


def require_status(reply: HttpReply, status: int, what: str) -> None:
    """Raises the exception for any other status."""
    if reply.status != status:
        raise status_error(reply, what)


def quoted(body: bytes) -> str:
    """The first error that a body in the registry's form names, fit for a sentence; "" without one."""
    try:
        errors = decode_json(body, _Errors).errors
    except (msgspec.DecodeError, RecursionError):
        return ""
    text = errors[0].message or errors[0].code if errors else ""
    printable = "".join(char if char.isprintable() else " " for char in text[:MAX_QUOTE])
    return " ".join(printable.split())
