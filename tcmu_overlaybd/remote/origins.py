"""Where one blob is fetched from now: the answers to the data plane's questions about it.

A blob is asked for at its registry first, with what proves who we are, once the registry
has wanted to know.  From there a redirect may lead to a store of somebody else: that URL is
used, without our proof (``registry.redirects``), until it is refused, which is how a URL
that has expired shows; then the registry is asked anew.  How many refusals in a row are
too many is the data plane's to say (csrc/cache/origin.c).
"""

from __future__ import annotations

import threading
import time
from http import HTTPStatus

from tcmu_overlaybd.errors import (
    AuthenticationError,
    FailedError,
    MissingError,
    OverlayBDError,
    TransientError,
)
from tcmu_overlaybd.native.fetcher import Question, Resolution, ResolveReason
from tcmu_overlaybd.registry.auth import Authorization, Scope
from tcmu_overlaybd.registry.client import RegistryClient
from tcmu_overlaybd.registry.deadline import Deadline
from tcmu_overlaybd.registry.redirects import STATUSES, redirect_url
from tcmu_overlaybd.registry.wire import origin_of

# What a status means when the registry itself gives it, and no other place is left to ask.
_REFUSALS: dict[int, tuple[type[OverlayBDError], str]] = {
    HTTPStatus.FORBIDDEN: (AuthenticationError, "not permitted"),
    HTTPStatus.NOT_FOUND: (MissingError, "the registry does not have it any more"),
    HTTPStatus.GONE: (MissingError, "the registry does not have it any more"),
}


class BlobOrigin:
    """Answers for one blob; what it last answered is what a refusal is about.  Thread-safe."""

    def __init__(self, client: RegistryClient, repository: str, digest: str) -> None:
        self.host = client.host
        self.name = f"{client.host}/{repository}: blob {digest[:19]}"
        self._client = client
        self._home = client.blob_url(repository, digest)
        self._scopes = (Scope(repository),)
        self._lock = threading.Lock()
        self._url = self._home
        self._sent: str | None = None  # the Authorization that went with it

    def resolve(self, question: Question, deadline: Deadline) -> Resolution:
        """Raises AuthenticationError, MissingError, UnavailableError when there is nowhere to ask."""
        conversation = self._client.conversation
        for attempt in range(conversation.policy.attempts - 1):
            try:
                return self._resolve(question, deadline)
            except TransientError:  # of a token service: who opens a layer would not ask again
                conversation.pause(attempt, deadline, self.name)
        return self._resolve(question, deadline)

    def _resolve(self, question: Question, deadline: Deadline) -> Resolution:
        with self._lock:
            if question.reason is not ResolveReason.REFUSED:
                return self._ask_home(deadline)
            if question.http_status in STATUSES:
                return self._redirected(question.location, deadline)
            if self._url != self._home:
                return self._ask_home(deadline)
            return self._refused_at_home(question, deadline)

    def _ask_home(self, deadline: Deadline) -> Resolution:
        proof = self._client.authorization_for(self._home, self._scopes, deadline)
        return self._answer(self._home, proof)

    def _redirected(self, location: str, deadline: Deadline) -> Resolution:
        target = redirect_url(self._url, location, self.name)
        is_own = origin_of(target) == origin_of(self._home)
        proof = self._client.authorization_for(target, self._scopes, deadline) if is_own else None
        return self._answer(target, proof)

    def _refused_at_home(self, question: Question, deadline: Deadline) -> Resolution:
        status = question.http_status
        if status == HTTPStatus.UNAUTHORIZED:
            proof = self._client.challenged(
                self._home, question.www_authenticate, self._scopes, self._sent, deadline
            )
            if proof is None:
                raise AuthenticationError(
                    f"{self.name}: the registry asks who we are, which is said in plain HTTP only"
                    " to hosts named insecure"
                )
            return self._answer(self._home, proof)
        kind, sentence = _REFUSALS.get(status, (FailedError, "an answer that makes no sense here"))
        raise kind(f"{self.name}: {sentence} ({status})")

    def _answer(self, url: str, proof: Authorization | None) -> Resolution:
        self._url, self._sent = url, None if proof is None else proof.header
        headers = () if proof is None else (("Authorization", proof.header),)
        return Resolution(url, headers, valid_ms(proof))


def valid_ms(proof: Authorization | None) -> int:
    """For how long it may be sent; 0: until it is refused."""
    if proof is None or proof.renew_at == float("inf"):
        return 0
    return max(1, int((proof.renew_at - time.monotonic()) * 1000))
