"""A registry that misbehaves, seen through the cache: right bytes, or a right error in time."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tcmu_overlaybd.errors import TimeoutExpiredError, UnavailableError
from tcmu_overlaybd.native.cache import CachedSource
from tcmu_overlaybd.registry.transport import Transport
from tests.registry.http_faults import (
    Cut,
    Delay,
    Endless,
    Fault,
    Garbage,
    HangUp,
    IgnoreRange,
    ShortRange,
    Slow,
    Stall,
    Status,
    WrongRange,
    redirect,
    too_many,
    unauthorized,
)
from tests.registry.images import random_blob
from tests.registry.scripted_server import ScriptedServer
from tests.remote.cached_blob import CHUNK_SIZE, READ_TIMEOUT_MS, Blobs

BLOB = random_blob(12 * CHUNK_SIZE + 777, 8)
PATH = f"/v2/t/x/blobs/{BLOB.digest}"
SECRET = "signature=do-not-show"

# So that a stall is found out while the test is young.
QUICK = Transport(proxy="", stall_timeout_s=0.25)

FAULTS: dict[str, Fault] = {
    "400": Status(400),
    "401": unauthorized('Bearer realm="http://127.0.0.1/token",service="s"'),
    "403": Status(403),
    "404": Status(404),
    "410": Status(410),
    "416": Status(416),
    "408": Status(408),
    "429": Status(429),
    "429 with Retry-After": too_many("1"),
    "429 with a Retry-After that is no number": too_many("later"),
    "500": Status(500),
    "502": Status(502, {}, b"<html>" * 100_000),
    "503": Status(503),
    "204": Status(204),
    "206 of nothing": Status(206),
    "a redirect": redirect(PATH),
    "a relative redirect": redirect("../../y/blobs/elsewhere", 302),
    "the whole blob": IgnoreRange(),
    "another range": WrongRange(shift=1),
    "a range of an unknown total": WrongRange(text="bytes 0-1/*"),
    "no Content-Range": WrongRange(text=""),
    "fewer bytes than asked for": ShortRange(100),
    "a cut before the first byte": Cut(0),
    "a cut in the first chunk": Cut(1000),
    "a cut between chunks": Cut(CHUNK_SIZE),
    "a reset in the second chunk": Cut(CHUNK_SIZE + 1, reset=True),
    "no answer": HangUp(),
    "a reset instead of an answer": HangUp(reset=True),
    "no head": Stall(),
    "a stall after the head": Stall(0),
    "a stall in the third chunk": Stall(2 * CHUNK_SIZE + 9),
    "a late answer": Delay(0.1),
    "a late refusal": Delay(0.05, Status(503)),
    "small steps": Slow(step=50_000, pause_s=0.01),
    "a head in small steps": Slow(step=1 << 20, pause_s=0.001, head_too=True),
    "an endless body": Endless(1 << 22),
    "what is no HTTP": Garbage(),
}

BUSY = {"408", "429", "429 with Retry-After", "429 with a Retry-After that is no number", "500", "502", "503"}
REFUSED = {"400", "401", "403", "404", "410", "416"}


def put(server: ScriptedServer) -> str:
    server.put(PATH, BLOB.data)
    server.put("/v2/t/y/blobs/elsewhere", BLOB.data)
    return f"{server.url}{PATH}?{SECRET}"


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
@pytest.mark.parametrize("offset", [0, 3 * CHUNK_SIZE + 5], ids=["from 0", "from within"])
def test_after_one_fault_the_right_bytes_come(server, tmp_path, fault, offset):
    url = put(server)
    server.fault(PATH, fault)
    with Blobs(tmp_path, transport=QUICK) as blobs:
        source = blobs.open(url, BLOB.data)
        assert source.read(7 * CHUNK_SIZE, offset, READ_TIMEOUT_MS) == BLOB.data[offset:][: 7 * CHUNK_SIZE]


# Faults with which the bytes come all the same, if slowly: each try brings some more.
HARMLESS = {
    "a late answer",
    "small steps",
    "a head in small steps",
    "a cut in the first chunk",
    "a cut between chunks",
    "a reset in the second chunk",
    "a stall in the third chunk",
}


@pytest.mark.parametrize("name", [name for name in FAULTS if name not in HARMLESS])
def test_a_fault_that_stays_is_an_error_before_the_deadline(server, tmp_path, name):
    url = put(server)
    server.always(PATH, FAULTS[name])
    server.always("/v2/t/y/blobs/elsewhere", redirect("elsewhere"))
    with Blobs(tmp_path, transport=QUICK) as blobs:
        source = blobs.open(url, BLOB.data)
        began = time.monotonic()
        with pytest.raises(UnavailableError) as caught:
            source.read(CHUNK_SIZE, 3 * CHUNK_SIZE, 2500)
        assert time.monotonic() - began < 20, "long after its deadline"
        text = str(caught.value)
        assert "of t/x: fetching 65536 bytes at 196608: " in text
        assert not isinstance(caught.value, TimeoutExpiredError), "a reason was known"
        assert SECRET not in text
        if name in BUSY | REFUSED:
            assert text.endswith(f"HTTP {name[:3]}")


def test_a_blob_that_is_cut_again_and_again_comes_in_the_end(server, tmp_path):
    url = put(server)
    server.always(PATH, Cut(CHUNK_SIZE // 2 + 1))
    with Blobs(tmp_path) as blobs:
        source = blobs.open(url, BLOB.data)
        assert source.read(2 * CHUNK_SIZE, 0, READ_TIMEOUT_MS) == BLOB.data[: 2 * CHUNK_SIZE]
    asked = [seen.headers["range"] for seen in server.seen]
    assert asked[1].startswith(f"bytes={CHUNK_SIZE // 2 + 1}-"), "it goes on where it stopped"


def test_a_registry_that_is_down_is_read_again_when_it_is_back(server, tmp_path):
    url = put(server)
    server.always(PATH, HangUp(reset=True))
    with Blobs(tmp_path) as blobs:
        source = blobs.open(url, BLOB.data)
        with pytest.raises(UnavailableError):
            source.read(100, 0, 500)
        server.always(PATH, None)
        assert source.read(100, 0, READ_TIMEOUT_MS) == BLOB.data[:100]
        assert source.stats().errors == {"unreachable": 1}


def test_what_a_server_says_about_its_refusal_reaches_the_resolver(server, tmp_path):
    url = put(server)
    server.fault(PATH, unauthorized('Bearer realm="r"'), redirect("/elsewhere?a=b", 302))
    server.put("/elsewhere", BLOB.data)
    with Blobs(tmp_path) as blobs:
        source = blobs.open(url, BLOB.data, (("Authorization", "Bearer abc"),))
        assert source.read(10, 0, READ_TIMEOUT_MS) == BLOB.data[:10]
        asked = [(q.reason.name, q.http_status, q.location, q.www_authenticate) for q in blobs.questions]
    assert asked == [
        ("FIRST", 0, "", ""),
        ("REFUSED", 401, "", 'Bearer realm="r"'),
        ("REFUSED", 302, "/elsewhere?a=b", ""),
    ]
    assert server.headers_seen("Authorization", "/elsewhere") == [], "the resolver gave none for that place"


# Those that take no more than a moment each, so that a dozen fit into a deadline.
MOMENTARY = [fault for name, fault in FAULTS.items() if "Retry-After" not in name]
faults = st.sampled_from(MOMENTARY)
reads = st.tuples(st.integers(0, len(BLOB.data) - 1), st.integers(1, 5 * CHUNK_SIZE))


@settings(max_examples=settings().max_examples // 3)
@given(script=st.lists(faults, max_size=8), wanted=st.lists(reads, min_size=1, max_size=4))
def test_whatever_faults_come_no_wrong_byte_is_read(tmp_path_factory, script, wanted):
    with ScriptedServer() as server:
        url = put(server)
        server.fault(PATH, *script)
        with Blobs(tmp_path_factory.mktemp("cache"), transport=QUICK) as blobs:
            source = blobs.open(url, BLOB.data)
            for offset, length in wanted:
                check_read(source, offset, min(length, len(BLOB.data) - offset))


def check_read(source: CachedSource, offset: int, length: int) -> None:
    try:
        got = source.read(length, offset, READ_TIMEOUT_MS)
    except UnavailableError as error:
        if re.search(r"HTTP [34]\d\d$", str(error)) is None:
            raise  # only a refusal that comes back at once is an error before the deadline
    else:
        assert got == BLOB.data[offset:][:length]
