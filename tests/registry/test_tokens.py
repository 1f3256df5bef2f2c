"""Tokens are kept, renewed in time, and fetched once however many wait."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tcmu_overlaybd.errors import AuthenticationError, TimeoutExpiredError, TransientError
from tcmu_overlaybd.registry.auth import Authorization, Scope
from tcmu_overlaybd.registry.challenge import Challenge
from tcmu_overlaybd.registry.deadline import Deadline
from tcmu_overlaybd.registry.tokens import TokenCache

SCOPES = (Scope("a"),)
ASKED = (Challenge("bearer", {"realm": "r"}),)
NR_WAITERS = 32


class Service:
    """Gives tokens t0, t1, ...; counts; can fail, and be slow."""

    def __init__(self, lives_s: float = 1000, renewed_s: float = 1000) -> None:
        self.lives_s, self.renewed_s = lives_s, renewed_s
        self.nr_asked = 0
        self.failure: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()

    def fetch(self, challenges, scopes, deadline) -> Authorization:
        number, self.nr_asked = self.nr_asked, self.nr_asked + 1
        self.gate.wait(10)
        if self.failure is not None:
            raise self.failure
        now = time.monotonic()
        return Authorization(f"t{number}", now + self.renewed_s, now + self.lives_s)


@pytest.fixture
def service():
    return Service()


@pytest.fixture
def cache(service):
    return TokenCache(service.fetch, "h")


@pytest.fixture
def soon():
    return Deadline.after(10)


def wait_until_waiting(nr_asked_at: Service) -> None:
    while not nr_asked_at.nr_asked:
        time.sleep(0.001)
    time.sleep(0.1)  # the others reach the lock


def test_nothing_is_sent_before_the_registry_asks(cache, service, soon):
    assert cache.authorization(SCOPES, soon) is None
    assert service.nr_asked == 0


def test_one_fetch_serves_many_requests_of_one_scope(cache, service, soon):
    assert cache.challenged(ASKED, SCOPES, None, soon).header == "t0"
    assert cache.authorization(SCOPES, soon).header == "t0"
    assert cache.authorization((Scope("b"),), soon).header == "t1"
    assert service.nr_asked == 2


@pytest.mark.parametrize("refused", [None, "t0"])
def test_one_refresh_for_many_waiters(cache, service, soon, refused):
    if refused:
        cache.challenged(ASKED, SCOPES, None, soon)
    before = service.nr_asked
    service.gate.clear()
    with ThreadPoolExecutor(NR_WAITERS) as pool:
        waiting = [pool.submit(cache.challenged, ASKED, SCOPES, refused, soon) for _ in range(NR_WAITERS)]
        time.sleep(0.2)
        service.gate.set()
        assert len({one.result().header for one in waiting}) == 1
    assert service.nr_asked == before + 1


def test_a_wrong_password_is_tried_once_for_all_who_wait(cache, service, soon):
    service.failure = AuthenticationError("wrong")
    service.gate.clear()
    with ThreadPoolExecutor(NR_WAITERS) as pool:
        waiting = [pool.submit(cache.challenged, ASKED, SCOPES, None, soon) for _ in range(NR_WAITERS)]
        wait_until_waiting(service)
        service.gate.set()
        assert all(isinstance(one.exception(), AuthenticationError) for one in waiting)
    assert service.nr_asked == 1


def test_the_next_request_tries_again_after_a_failure(cache, service, soon):
    service.failure = TransientError("down")
    with pytest.raises(TransientError):
        cache.challenged(ASKED, SCOPES, None, soon)
    service.failure = None
    assert cache.authorization(SCOPES, soon).header == "t1"


def test_a_due_token_serves_while_another_renews_it(service, soon):
    service.renewed_s = 0
    cache = TokenCache(service.fetch, "h")
    cache.challenged(ASKED, SCOPES, None, soon)
    service.gate.clear()
    with ThreadPoolExecutor(1) as pool:
        renewing = pool.submit(cache.authorization, SCOPES, soon)
        while service.nr_asked < 2:
            time.sleep(0.001)
        assert cache.authorization(SCOPES, Deadline.after(0)).header == "t0"
        service.gate.set()
        assert renewing.result().header == "t1"


def test_a_failed_early_renewal_is_no_harm_yet(service, soon):
    service.renewed_s = 0
    cache = TokenCache(service.fetch, "h")
    cache.challenged(ASKED, SCOPES, None, soon)
    service.failure = TransientError("down")
    assert cache.authorization(SCOPES, soon).header == "t0"


def test_an_expired_token_is_never_sent(service, soon):
    service.renewed_s = service.lives_s = 0
    cache = TokenCache(service.fetch, "h")
    cache.challenged(ASKED, SCOPES, None, soon)
    assert cache.authorization(SCOPES, soon).header == "t1"


def test_a_refused_header_that_was_replaced_meanwhile_costs_no_fetch(cache, service, soon):
    cache.challenged(ASKED, SCOPES, None, soon)
    cache.challenged(ASKED, SCOPES, "t0", soon)
    assert cache.challenged(ASKED, SCOPES, "t0", soon).header == "t1"
    assert service.nr_asked == 2


def test_the_same_header_again_is_a_wrong_password(soon):
    cache = TokenCache(lambda *_: Authorization("Basic x"), "h")
    assert cache.challenged(ASKED, SCOPES, None, soon).header == "Basic x"
    with pytest.raises(AuthenticationError, match="h: user name or password is wrong"):
        cache.challenged(ASKED, SCOPES, "Basic x", soon)


def test_who_waits_for_a_token_waits_until_its_deadline(cache, service, soon):
    service.gate.clear()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(cache.challenged, ASKED, SCOPES, None, soon)
        wait_until_waiting(service)
        with pytest.raises(TimeoutExpiredError, match="waiting for a token"):
            cache.challenged(ASKED, SCOPES, None, Deadline.after(0.05))
        service.gate.set()
        first.result()
