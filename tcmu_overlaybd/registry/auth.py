"""From a challenge to a header ``Authorization``, without I/O.

``authorize`` is a generator: it yields requests to a token service, is sent the replies,
and returns the ``Authorization``.  Whoever drives it does the network part; a test needs
none (the idea of HTTPX's auth flow).

    Basic    the password itself, if there is one
    Bearer   realm?service=...&scope=... asked by GET with the password as Basic (or as
             nobody), or by POST when there is an identity token; the reply has the token

The realm may be on any host: the protocol wants it so.  It is asked over HTTPS only, or
on a host for which plain HTTP is permitted.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlencode, urlsplit

import msgspec

from tcmu_overlaybd.config.decoding import decode_json
from tcmu_overlaybd.errors import AuthenticationError, TransientError, UnavailableError
from tcmu_overlaybd.registry.challenge import Challenge
from tcmu_overlaybd.registry.credentials import Credential
from tcmu_overlaybd.registry.wire import HttpRequest

CLIENT_ID = "tcmu-overlaybd"
MAX_TOKEN_REPLY = 64 << 10  # bytes
DEFAULT_LIFETIME_S = 60.0  # when the token service says nothing
# A token is renewed when so much of its life is left, or so many seconds if that is less.
MARGIN_SHARE = 0.2
MARGIN_S = 30.0

_PRINTABLE = re.compile(r"[\x21-\x7e]+")  # a token becomes part of a header


@dataclass(frozen=True)
class Scope:
    """What is wanted of one repository: ``pull`` or ``pull,push``."""

    repository: str
    actions: str = "pull"

    def __str__(self) -> str:
        return f"repository:{self.repository}:{self.actions}"


@dataclass(frozen=True)
class Authorization:
    """``header`` is accepted until ``expires_at`` and better renewed from ``renew_at`` on (monotonic, s)."""

    header: str = field(repr=False)
    renew_at: float = float("inf")
    expires_at: float = float("inf")


@dataclass(frozen=True)
class TokenReply:
    """What a token service answered."""

    status: int
    body: bytes = field(repr=False)


class _TokenBody(msgspec.Struct):
    token: str | None = None
    access_token: str | None = None
    expires_in: float | None = None


Flow = Generator[HttpRequest, TokenReply, Authorization]


def authorize(
    challenges: Sequence[Challenge],
    scopes: Sequence[Scope],
    credential: Credential | None,
    may_be_plain: Callable[[str], bool],
    what: str,
) -> Flow:
    """Answers the best of challenges.  may_be_plain says of a host whether it may be asked by HTTP.

    Raises AuthenticationError when that takes a password that there is none of, or that
    the token service refuses; UnavailableError when the service's answer makes no sense.
    """
    offered = {challenge.scheme: challenge for challenge in reversed(challenges)}
    if bearer := offered.get("bearer"):
        return (yield from _bearer(bearer.parameters, scopes, credential, may_be_plain, what))
    if "basic" not in offered:
        names = ", ".join(sorted(offered)) or "none that can be read"
        raise UnavailableError(f"{what}: it wants to know who asks, in a way not spoken here ({names})")
    if credential is None or not credential.password:
        raise AuthenticationError(f"{what}: a password is needed: tcmu-overlaybd login")
    return Authorization(credential.basic())


def _bearer(
    parameters: Mapping[str, str],
    scopes: Sequence[Scope],
    credential: Credential | None,
    may_be_plain: Callable[[str], bool],
    what: str,
) -> Flow:
    realm = parameters.get("realm", "")
    _check_realm(realm, may_be_plain, what)
    began = time.monotonic()
    reply = yield _token_request(realm, parameters.get("service", ""), scopes, credential)
    if reply.status in (400, 401, 403):
        who = f"the password of {credential.username}" if credential else "a request without password"
        raise AuthenticationError(f"{what}: the token service refuses {who} ({reply.status})")
    if reply.status == 429 or reply.status >= 500:
        raise TransientError(f"{what}: the token service answers {reply.status}")
    if reply.status != 200:
        raise UnavailableError(f"{what}: the token service answers {reply.status}")
    return read_token(reply.body, began, what)


def _token_request(
    realm: str, service: str, scopes: Sequence[Scope], credential: Credential | None
) -> HttpRequest:
    wanted = [("service", service)] if service else []
    if credential is not None and credential.identity_token:
        form = [
            ("grant_type", "refresh_token"),
            ("client_id", CLIENT_ID),
            ("refresh_token", credential.identity_token),
            ("scope", " ".join(map(str, scopes))),
        ]
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        return HttpRequest("POST", realm, headers, urlencode(wanted + form).encode())
    query = wanted + [("scope", str(scope)) for scope in scopes]
    url = f"{realm}{'&' if '?' in realm else '?'}{urlencode(query)}" if query else realm
    return HttpRequest("GET", url, {"Authorization": credential.basic()} if credential else {})


def read_token(body: bytes, began: float, what: str) -> Authorization:
    """The token in a reply to a request of began (monotonic, s): its life is counted from there."""
    try:
        reply = decode_json(body, _TokenBody)
    except msgspec.DecodeError as error:
        raise UnavailableError(f"{what}: the token service's answer is no token") from error
    token = reply.token or reply.access_token or ""
    if not _PRINTABLE.fullmatch(token):
        raise UnavailableError(f"{what}: the token service's answer has no token")
    given = reply.expires_in
    lifetime = given if given is not None and given > 0 else DEFAULT_LIFETIME_S
    margin = min(MARGIN_S, lifetime * MARGIN_SHARE)
    return Authorization(f"Bearer {token}", began + lifetime - margin, began + lifetime)


def _check_realm(realm: str, may_be_plain: Callable[[str], bool], what: str) -> None:
    try:
        parts = urlsplit(realm)
        is_safe = parts.scheme == "https" or (parts.scheme == "http" and may_be_plain(parts.netloc))
        is_whole = bool(parts.hostname) and "@" not in parts.netloc and not parts.fragment
    except ValueError:
        is_safe = is_whole = False
    if not is_whole:
        raise UnavailableError(f"{what}: it names no token service that can be asked")
    if not is_safe:
        raise UnavailableError(f"{what}: its token service is not asked over plain HTTP ({parts.netloc})")
