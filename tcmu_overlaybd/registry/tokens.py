"""The authorizations of one registry: kept, renewed before they expire, fetched once for many waiters.

A *slot* holds what is sent for one set of scopes.  Who needs it renewed takes the slot's
lock and does it; the others wait for that, at most until their deadline, and take what
came of it, the failure included: a wrong password is tried once, however many wait.
While an authorization is due but not expired, nobody waits: the old one still serves.

Lock order: slot, then registry.  The registry's lock is never held during I/O.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from tcmu_overlaybd.errors import AuthenticationError, OverlayBDError
from tcmu_overlaybd.registry.auth import Authorization, Scope
from tcmu_overlaybd.registry.challenge import Challenge
from tcmu_overlaybd.registry.deadline import Deadline

Fetch = Callable[[Sequence[Challenge], Sequence[Scope], Deadline], Authorization]


class Slot:
    """``turn`` counts the outcomes there were; ``failure`` is that of the last one."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.current: Authorization | None = None
        self.failure: OverlayBDError | None = None
        self.turn = 0

    def outcome(self) -> Authorization:
        """Of the last turn, for each who waited for it."""
        if self.failure is not None:
            raise type(self.failure)(str(self.failure)) from self.failure
        if self.current is None:
            raise RuntimeError("a slot without a turn has no outcome")
        return self.current


class TokenCache:
    """fetch asks the registry's token service (or takes the password) and may raise."""

    def __init__(self, fetch: Fetch, what: str) -> None:
        self._fetch = fetch
        self._what = what
        self._lock = threading.Lock()
        self._slots: dict[tuple[Scope, ...], Slot] = {}
        self._challenges: tuple[Challenge, ...] = ()

    @property
    def was_asked(self) -> bool:
        """Whether the registry has wanted to know who we are."""
        return bool(self._challenges)

    @property
    def schemes(self) -> tuple[str, ...]:
        """The ways that it has offered, in lower case: ``basic``, ``bearer``."""
        return tuple(dict.fromkeys(challenge.scheme for challenge in self._challenges))

    def authorization(self, scopes: Sequence[Scope], deadline: Deadline) -> Authorization | None:
        """What to send; None as long as the registry has not asked for anything."""
        if not self._challenges:
            return None
        slot = self._slot(scopes)
        turn = slot.turn  # before current: what is renewed between the two is seen by one or the other
        current, now = slot.current, time.monotonic()
        if current is not None and now < current.renew_at:
            return current
        if current is not None and now < current.expires_at:
            return self._renew_unless_busy(slot, scopes, current, deadline)
        return self._renewed(slot, turn, scopes, deadline)

    def challenged(
        self,
        challenges: Sequence[Challenge],
        scopes: Sequence[Scope],
        refused: str | None,
        deadline: Deadline,
    ) -> Authorization:
        """What to send after a 401 to the header refused (None: there was none).

        Raises AuthenticationError when there is nothing else to be sent.
        """
        if challenges:
            self._challenges = tuple(challenges)
        slot = self._slot(scopes)
        turn = slot.turn
        current = slot.current
        if current is not None and current.header != refused:
            return current  # renewed by another since
        renewed = self._renewed(slot, turn, scopes, deadline)
        if renewed.header == refused:
            raise AuthenticationError(f"{self._what}: user name or password is wrong")
        return renewed

    def _slot(self, scopes: Sequence[Scope]) -> Slot:
        with self._lock:
            return self._slots.setdefault(tuple(scopes), Slot())

    def _renewed(self, slot: Slot, turn: int, scopes: Sequence[Scope], deadline: Deadline) -> Authorization:
        """What the first turn after the one given brings: ours, or that of whom we waited for."""
        if not slot.lock.acquire(timeout=deadline.remaining()):
            raise deadline.expired(f"{self._what}: waiting for a token")
        try:
            if slot.turn == turn:
                self._take_turn(slot, scopes, deadline)
            return slot.outcome()
        finally:
            slot.lock.release()

    def _renew_unless_busy(
        self, slot: Slot, scopes: Sequence[Scope], current: Authorization, deadline: Deadline
    ) -> Authorization:
        """Early renewal: a failure is no harm yet, the next request tries again."""
        if not slot.lock.acquire(blocking=False):
            return current
        try:
            if slot.current is current:
                self._take_turn(slot, scopes, deadline)
            return slot.current or current
        finally:
            slot.lock.release()

    def _take_turn(self, slot: Slot, scopes: Sequence[Scope], deadline: Deadline) -> None:
        """Fetches, under the slot's lock; what came of it is there for all who wait."""
        try:
            slot.current = self._fetch(self._challenges, scopes, deadline)
            slot.failure = None
        except OverlayBDError as error:
            slot.failure = error
        finally:
            slot.turn += 1
