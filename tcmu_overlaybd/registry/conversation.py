"""Talking to one registry: a request goes out until there is an answer worth having.

From the outside in, each layer a method that calls the next:

    answer    again, after a pause, what may succeed in a moment (retry.RetryPolicy)
    contact   plain HTTP or HTTPS: found out with the first request, then kept
    prove     with what the registry takes as proof of who we are (tokens.TokenCache)
    follow    to other places (redirects)

The scheme costs no request of its own: a host that may be spoken to in plain HTTP
(``reference.py``) is asked that way, and one that answers 400, or hangs up, is asked the
same over TLS.  An answer decides; until then both stay open.

For any number of threads; ``close`` ends the pauses of all of them.
"""

from __future__ import annotations

import logging
import ssl
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from http import HTTPStatus
from typing import TypeVar

from tcmu_overlaybd.errors import AuthenticationError, TransientError, UnavailableError
from tcmu_overlaybd.registry.auth import MAX_TOKEN_REPLY, Authorization, Scope, TokenReply, authorize
from tcmu_overlaybd.registry.challenge import Challenge, parse_challenges
from tcmu_overlaybd.registry.credentials import CredentialSource
from tcmu_overlaybd.registry.deadline import Deadline
from tcmu_overlaybd.registry.redirects import MAX_REDIRECTS, STATUSES, redirected
from tcmu_overlaybd.registry.reference import is_loopback
from tcmu_overlaybd.registry.refusals import status_error
from tcmu_overlaybd.registry.retry import RetryPolicy
from tcmu_overlaybd.registry.tokens import TokenCache
from tcmu_overlaybd.registry.wire import CUT_ERRORS, HttpReply, HttpRequest, Wire, origin_of, root_of

log = logging.getLogger(__name__)

T = TypeVar("T")

# Proof that was kept may have expired, and the one that replaces it may have been
# replaced by another thread's; more refusals are an answer.
MAX_PROOFS = 3


class Conversation:
    """With the registry at host.  insecure_hosts may be spoken to in plain HTTP, as loopback ones."""

    def __init__(
        self,
        host: str,
        wire: Wire,
        credentials: CredentialSource,
        *,
        insecure_hosts: frozenset[str],
        policy: RetryPolicy,
        scheme: str | None,
    ) -> None:
        self.host = host
        self.tokens: TokenCache = TokenCache(self._fetch_token, host)
        self._wire = wire
        self._credentials = credentials
        self._insecure_hosts = insecure_hosts
        self.policy = policy
        self._closing = threading.Event()
        self._scheme = scheme or (None if self.may_be_plain(host) else "https")

    @property
    def base(self) -> str:
        """``https://host``, or ``http://host`` when that is what it speaks, as far as is known."""
        return f"{self._scheme or 'http'}://{self.host}"

    def may_be_plain(self, host: str) -> bool:
        return is_loopback(host) or host.lower() in self._insecure_hosts

    def is_own(self, url: str) -> bool:
        """Whether a password may be shown there."""
        return origin_of(url) == origin_of(self.base) and (
            self._scheme == "https" or self.may_be_plain(self.host)
        )

    def close(self) -> None:
        """Ends what waits for a next attempt; nothing may be asked afterwards."""
        self._closing.set()
        self._wire.close()

    # -- again

    def answer(
        self,
        make: Callable[[], HttpRequest],
        consume: Callable[[HttpReply], T],
        scopes: Sequence[Scope],
        deadline: Deadline,
        what: str,
    ) -> T:
        """What consume makes of the first reply that is not worth another attempt.

        make gives the request, anew for each attempt, its URL a path of the registry or
        complete; it must bear being sent twice.  A body that breaks off while consume
        reads it is another attempt too.
        """
        attempt = 0
        while True:
            try:
                with self.once(make(), scopes, deadline, what) as reply:
                    pause = self._pause_after(reply, attempt, deadline)
                    if pause is None:
                        return consume(reply)
                    reply.discard()
                    log.info("%s: answered %d, asked again in %.1f s", what, reply.status, pause)
            except TransientError as error:
                pause = self._affordable(self.policy.pause_s(attempt, {}), attempt, deadline)
                if pause is None:
                    raise
                log.info("%s; asked again in %.1f s", error, pause)
            self._wait(pause, what)
            attempt += 1

    def pause(self, attempt: int, deadline: Deadline, what: str) -> None:
        """Before what the caller tries again by itself; raises at the deadline, and when this is closed."""
        self._wait(deadline.at_most(self.policy.pause_s(attempt, {})), what)
        deadline.require(what)

    def _wait(self, seconds: float, what: str) -> None:
        if self._closing.wait(seconds):
            raise UnavailableError(f"{what}: given up, because this is being closed")

    def _pause_after(self, reply: HttpReply, attempt: int, deadline: Deadline) -> float | None:
        if not self.policy.is_worth_it(reply.status):
            return None
        return self._affordable(self.policy.pause_s(attempt, reply.headers), attempt, deadline)

    def _affordable(self, pause: float, attempt: int, deadline: Deadline) -> float | None:
        """pause, or None when no attempt is left, or no time after it."""
        is_last = attempt + 1 >= self.policy.attempts
        return None if is_last or pause >= deadline.remaining() else pause

    # -- http or https

    def once(self, request: HttpRequest, scopes: Sequence[Scope], deadline: Deadline, what: str) -> HttpReply:
        """One attempt, with whatever proof and redirects it takes; the reply is to be closed."""
        if self._scheme is not None or not request.url.startswith("/"):
            return self._prove(self._placed(request, self.base), scopes, deadline, what)
        plain = self._placed(request, f"http://{self.host}")
        try:
            reply = self._prove(plain, scopes, deadline, what)
        except TransientError as error:
            if not _was_hung_up_on(error):
                raise
            return self._over_tls(request, scopes, deadline, what, error)
        if reply.status == HTTPStatus.BAD_REQUEST:
            refused = status_error(reply, what)
            return self._over_tls(request, scopes, deadline, what, refused)
        self._scheme = "http"
        return reply

    def _over_tls(
        self, request: HttpRequest, scopes: Sequence[Scope], deadline: Deadline, what: str, plain: Exception
    ) -> HttpReply:
        """After plain HTTP failed with plain; that failure stands when there is no TLS either."""
        try:
            reply = self._prove(self._placed(request, f"https://{self.host}"), scopes, deadline, what)
        except UnavailableError as error:
            root = root_of(error)
            speaks_tls = isinstance(root, ssl.SSLCertVerificationError) or not isinstance(root, OSError)
            raise error if speaks_tls else plain from None
        self._scheme = "https"
        return reply

    @staticmethod
    def _placed(request: HttpRequest, base: str) -> HttpRequest:
        return replace(request, url=base + request.url) if request.url.startswith("/") else request

    # -- who we are

    def _prove(
        self, request: HttpRequest, scopes: Sequence[Scope], deadline: Deadline, what: str
    ) -> HttpReply:
        """Sends request, with proof once the registry has asked for it."""
        home = origin_of(self.base if self._scheme else f"{request.parts.scheme}://{self.host}")
        if request.origin != home:
            return self._follow(request, deadline, what)
        held = self.tokens.authorization(scopes, deadline)
        header = None if held is None else held.header
        for _ in range(MAX_PROOFS):
            reply = self._follow(request.with_header("Authorization", header), deadline, what)
            if reply.status != HTTPStatus.UNAUTHORIZED or reply.origin != home:
                return reply
            challenges = parse_challenges(reply.headers.get("WWW-Authenticate", ""))
            reply.discard()
            self._require_privacy(request, what)
            header = self.tokens.challenged(challenges, scopes, header, deadline).header
        raise AuthenticationError(f"{what}: the registry does not accept the token it had us fetch")

    def _require_privacy(self, request: HttpRequest, what: str) -> None:
        if request.parts.scheme != "https" and not self.may_be_plain(self.host):
            raise AuthenticationError(
                f"{what}: it asks who we are, which is said over plain HTTP only to hosts named insecure"
            )

    def _fetch_token(
        self, challenges: Sequence[Challenge], scopes: Sequence[Scope], deadline: Deadline
    ) -> Authorization:
        """Drives auth.authorize; a broken connection is left to the layer that tries again."""
        repository = scopes[0].repository if scopes else ""
        credential = self._credentials.find(self.host, repository)
        what = f"{self.host}: asking for access to {repository or 'the registry'}"
        flow = authorize(challenges, scopes, credential, self.may_be_plain, what)
        try:
            request = next(flow)
            while True:
                with self._wire.send(request, deadline, what) as reply:
                    answer = TokenReply(reply.status, reply.read(MAX_TOKEN_REPLY))
                request = flow.send(answer)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]

    # -- other places

    def _follow(self, request: HttpRequest, deadline: Deadline, what: str) -> HttpReply:
        """Only what reads is followed: a registry says by Location where an upload goes on."""
        for _ in range(MAX_REDIRECTS + 1):
            reply = self._wire.send(request, deadline, what)
            if reply.status not in STATUSES or request.method not in ("GET", "HEAD"):
                return reply
            location = reply.headers.get("Location", "")
            reply.discard()
            request = redirected(request, location, what)
        raise UnavailableError(f"{what}: redirected more than {MAX_REDIRECTS} times")


def _was_hung_up_on(error: Exception) -> bool:
    """Whether the host was reached and did not answer in HTTP: perhaps because it wants TLS."""
    root = root_of(error)
    if isinstance(root, ConnectionRefusedError):
        return False
    return isinstance(root, CUT_ERRORS)
