"""Blobs behind tokens and redirects, through the store, while registry and token service fail.

What is read is right, or an error that the script explains; and no token is ever sent
to where a redirect leads.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from tcmu_overlaybd.errors import OverlayBDError
from tcmu_overlaybd.registry.docker_config import DockerConfig
from tcmu_overlaybd.registry.reference import RepoBlobUrl
from tcmu_overlaybd.remote.settings import StoreSettings
from tcmu_overlaybd.remote.store import BlobStore
from tests.registry.http_faults import (
    Answer,
    Cut,
    Delay,
    Fault,
    Garbage,
    HangUp,
    Stall,
    Status,
    redirect,
    too_many,
)
from tests.registry.images import random_blob
from tests.registry.scripted_server import ScriptedServer, Seen, ranged
from tests.remote.test_fetch_faults import MOMENTARY, QUICK

BLOB = random_blob(700_000, 51)
PATH = f"/v2/t/x/blobs/{BLOB.digest}"
READ_TIMEOUT_MS = 60_000

TOKEN_FAULTS: list[Fault] = [
    Status(503),
    too_many("0"),
    HangUp(),
    Cut(3),
    Garbage(),
    Delay(0.05),
    Stall(),
    Status(401),
]
ELSEWHERE = "elsewhere"  # stands for a redirect to another port


@dataclass
class Registry:
    """A registry that wants a token, each of which it accepts nr_uses times; and the store beside it."""

    home: ScriptedServer
    elsewhere: ScriptedServer
    nr_uses: int
    left: dict[str, int] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def blob(self, seen: Seen) -> Answer:
        token = seen.headers.get("authorization", "")
        if self.left.get(token, 0) <= 0:
            challenge = f'Bearer realm="{self.home.url}/token",service="s",scope="repository:t/x:pull"'
            return Answer(401, {"WWW-Authenticate": challenge})
        self.left[token] -= 1
        return ranged(Answer(200, {}, BLOB.data), seen.headers.get("range"))

    def token(self, seen: Seen) -> Answer:
        token = f"token-{next(self.numbers)}"
        self.left[f"Bearer {token}"] = self.nr_uses
        return Answer(200, {"Content-Type": "application/json"}, json.dumps({"token": token}).encode())


@contextmanager
def registry(nr_uses: int) -> Iterator[Registry]:
    with ScriptedServer() as home, ScriptedServer() as elsewhere:
        made = Registry(home, elsewhere, nr_uses)
        home.respond(PATH, made.blob)
        home.respond("/token", made.token)
        elsewhere.put(PATH, BLOB.data)
        yield made


def store_in(folder) -> BlobStore:
    return BlobStore(
        StoreSettings(
            folder=folder / "cache",
            free_floor_bytes=0,
            transport=QUICK,
            credentials=DockerConfig(folder / "config.json"),
        )
    )


BLOB_FAULTS = st.one_of(st.sampled_from(MOMENTARY), st.just(ELSEWHERE))
READS = st.tuples(st.integers(0, len(BLOB.data) - 1), st.integers(1, 200_000))


@settings(max_examples=settings().max_examples // 3)
@given(
    script=st.lists(BLOB_FAULTS, max_size=6),
    token_script=st.lists(st.sampled_from(TOKEN_FAULTS), max_size=3),
    stored=st.lists(st.sampled_from(MOMENTARY), max_size=2),
    nr_uses=st.integers(1, 4),
    wanted=st.lists(READS, min_size=1, max_size=4),
)
def test_whatever_fails_no_wrong_byte_is_read(
    tmp_path_factory, script, token_script, stored, nr_uses, wanted
):
    folder = tmp_path_factory.mktemp("store")
    with registry(nr_uses) as it, store_in(folder) as store:
        place = f"{it.elsewhere.url}{PATH}"
        faults = [redirect(place) if fault == ELSEWHERE else fault for fault in script]
        it.home.fault(PATH, *faults)
        it.home.fault("/token", *token_script)
        it.elsewhere.fault(PATH, *stored)
        blob = store.open_blob(RepoBlobUrl("http", it.home.host, "t/x"), BLOB.digest, len(BLOB.data))
        try:
            for offset, length in wanted:
                failure = failure_of_read(blob.source, offset, min(length, len(BLOB.data) - offset))
                assert failure is None or is_warranted([*faults, *token_script, *stored], place), failure
        finally:
            blob.close()
        assert it.elsewhere.headers_seen("Authorization") == []


def failure_of_read(source, offset: int, length: int) -> OverlayBDError | None:
    try:
        assert source.read(length, offset, READ_TIMEOUT_MS) == BLOB.data[offset : offset + length]
    except OverlayBDError as error:
        return error
    return None


def is_warranted(faults: list[Fault], place: str) -> bool:
    """Somebody refused, or led astray: everything else passes, and is waited for."""
    codes = [fault.code for fault in faults if isinstance(fault, Status) and not leads_to(place, fault)]
    return any(300 <= code < 500 and code not in (408, 429) for code in codes)


def leads_to(place: str, fault: Status) -> bool:
    return fault.headers.get("Location") == place
