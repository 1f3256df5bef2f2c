"""Names of images: ``HOST[:PORT]/REPOSITORY[:TAG][@DIGEST]``, and of repositories in configurations.

A host is always written out: there is no default registry.  Without tag and digest the
tag is ``latest``; with both, the digest decides and the tag is decoration.

**Plain HTTP** is spoken to loopback hosts (``localhost``, 127.0.0.0/8, ``[::1]``) and to
those that the service's configuration calls insecure, never to others: a password would
be readable on the way.  Such a host is asked by HTTP first, and by HTTPS when that is
what it speaks (``conversation.py``).
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from tcmu_overlaybd.errors import FormatError, UsageError

DEFAULT_TAG = "latest"
MAX_REPOSITORY = 255  # characters

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f:.]+\])(?::([0-9]{{1,5}}))?")
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Reference:
    """One image of one registry; ``host`` is in lower case and has the port, if one was given."""

    host: str
    repository: str
    tag: str | None
    digest: str | None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Raises UsageError that says which part is wrong."""
        rest, _, digest = text.partition("@")
        host, _, path = rest.partition("/")
        if not path or not _is_written_out(host):
            raise UsageError(f"{text}: no registry host: write HOST[:PORT]/REPOSITORY[:TAG]")
        repository, _, tag = path.partition(":")
        _check(text, "host", host, is_host(host))
        _check(text, "repository", repository, is_repository(repository))
        if ":" in path:
            _check(text, "tag", tag, _TAG.fullmatch(tag))
        if "@" in text:
            _check(text, "digest (sha256: and 64 hex digits)", digest, is_digest(digest))
        return cls(host.lower(), repository, tag or (None if digest else DEFAULT_TAG), digest or None)

    @property
    def target(self) -> str:
        """What a manifest is asked for by: the digest when there is one."""
        return self.digest or self.tag or DEFAULT_TAG

    @property
    def name(self) -> str:
        """``HOST/REPOSITORY``."""
        return f"{self.host}/{self.repository}"

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.name}{tag}{'@' + self.digest if self.digest else ''}"


@dataclass(frozen=True)
class RepoBlobUrl:
    """``repoBlobUrl``, ``https://HOST/v2/REPOSITORY/blobs`` (spec/config.md section 2)."""

    scheme: str
    host: str
    repository: str

    @classmethod
    def parse(cls, text: str) -> RepoBlobUrl:
        """Takes it with and without a slash at the end.  Raises FormatError."""
        parts = urlsplit(text)
        match = re.fullmatch(r"/v2/(.+)/blobs/?", parts.path)
        plain = not (parts.query or parts.fragment)
        if match and plain and parts.scheme in ("http", "https") and is_host(parts.netloc):
            repository = match[1]
            if is_repository(repository):
                return cls(parts.scheme, parts.netloc.lower(), repository)
        raise FormatError(f"{text!r}: not of the form https://HOST/v2/REPOSITORY/blobs")

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}/v2/{self.repository}/blobs"


def is_host(text: str) -> bool:
    """A name, an IPv4 address or a bracketed IPv6 one, and perhaps a port."""
    match = _HOST.fullmatch(text)
    if match is None or not (match[1] is None or 0 < int(match[1]) < 65536):
        return False
    return not text.startswith("[") or _address(_without_port(text)) is not None


def is_repository(text: str) -> bool:
    return len(text) <= MAX_REPOSITORY and bool(_REPOSITORY.fullmatch(text))


def is_digest(text: str) -> bool:
    return bool(_DIGEST.fullmatch(text))


def is_loopback(host: str) -> bool:
    """Whether host, with or without a port, can only be this machine."""
    name = _without_port(host)
    address = _address(name)
    return name.lower() == "localhost" if address is None else address.is_loopback


def _is_written_out(host: str) -> bool:
    """Whether the part before the first slash is a host, and not the first part of a repository."""
    return "." in host or ":" in host or host.lower() == "localhost"


def _without_port(host: str) -> str:
    return host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return None


def _check(text: str, what: str, part: str, is_right: object) -> None:
    if not is_right:
        raise UsageError(f"{text}: {part!r} is no {what} of an image")
