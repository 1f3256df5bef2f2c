"""A client against a server that misbehaves: right bytes or a right error, in time."""

from __future__ import annotations

import contextlib
import hashlib
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tcmu_overlaybd.errors import (
    AuthenticationError,
    CorruptError,
    FailedError,
    MissingError,
    OverlayBDError,
    TimeoutExpiredError,
    UnavailableError,
)
from tcmu_overlaybd.registry.client import MAX_MANIFEST
from tcmu_overlaybd.registry.credentials import Credential
from tcmu_overlaybd.registry.deadline import Deadline
from tcmu_overlaybd.registry.retry import RetryPolicy, retry_after_s
from tcmu_overlaybd.registry.transport import Transport
from tests.registry import http_faults as faults
from tests.registry.fixtures import QUICK
from tests.registry.images import Blob, random_blob

ANNA = Credential("anna", "s3cret")
MANIFEST = b'{"schemaVersion": 2, "layers": [], "config": {}}'
PATH = "/v2/r/manifests/t"
BLOB = random_blob(300_000)
BLOB_PATH = f"/v2/r/blobs/{BLOB.digest}"


@pytest.fixture(autouse=True)
def contents(server):
    server.put(PATH, MANIFEST)
    server.put(BLOB_PATH, BLOB.data)


def download(client, deadline, blob: Blob = BLOB, size: int | None = None) -> bytes:
    got = bytearray()
    client.download_blob("r", blob.digest, len(blob.data) if size is None else size, got.extend, deadline)
    return bytes(got)


# -- again


PASSING = [
    faults.Status(500),
    faults.Status(502, body=b"<html>"),
    faults.Status(503, {"Retry-After": "0"}),
    faults.too_many("0"),
    faults.Status(408),
    faults.HangUp(reset=True),
    faults.Cut(after=10),
    faults.Cut(after=10, reset=True),
    faults.Stall(after=5),
    faults.Stall(),
]


@pytest.mark.parametrize("fault", PASSING, ids=repr)
def test_what_passes_is_tried_again(server, client_of, deadline, fault):
    client = client_of(server.host, transport=Transport(proxy="", stall_timeout_s=0.3), scheme="http")
    server.fault(PATH, fault)
    assert client.get_manifest("r", "t", deadline).body == MANIFEST
    assert server.count("GET", PATH) == 2


@pytest.mark.parametrize("status", [500, 503, 429])
def test_what_does_not_pass_is_unavailable_after_so_many_attempts(server, client_of, deadline, status):
    server.always(
        PATH, faults.Status(status, body=b'{"errors": [{"code": "X", "message": "tired\\n\\u0007"}]}')
    )
    with pytest.raises(
        UnavailableError, match=rf"{server.host}/r: manifest t: the registry .*\({status}: tired\)$"
    ):
        client_of(server.host).get_manifest("r", "t", deadline)
    assert server.count("GET", PATH) == QUICK.attempts


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, FailedError),
        (403, AuthenticationError),
        (404, MissingError),
        (405, FailedError),
        (418, FailedError),
        (501, UnavailableError),
    ],
)
def test_what_will_not_pass_is_not_tried_again(server, client_of, deadline, status, error):
    server.always(PATH, faults.Status(status))
    with pytest.raises(error, match=rf"{server.host}/r: manifest t: .*\({status}\)"):
        client_of(server.host, scheme="http").get_manifest("r", "t", deadline)
    assert server.count("GET", PATH) == 1


def test_retry_after_is_obeyed(server, client_of, deadline):
    server.fault(PATH, faults.too_many("1"))
    client_of(server.host).get_manifest("r", "t", deadline)
    first, second = [seen.at for seen in server.seen]
    assert second - first >= 1


def test_a_retry_after_beyond_the_deadline_is_not_waited_for(server, client_of):
    server.fault(PATH, faults.too_many("3600"))
    began = time.monotonic()
    with pytest.raises(UnavailableError, match="come back later"):
        client_of(server.host).get_manifest("r", "t", Deadline.after(20))
    assert time.monotonic() - began < 10
    assert server.count() == 1


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7),
        (" 7 ", 7),
        ("", None),
        ("soon", None),
        ("-1", None),
        ("1.5", None),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("9" * 40, 999_999_999),
    ],
)
def test_retry_after_is_a_number_or_a_date(text, seconds):
    assert retry_after_s(text) == seconds


@given(st.text(max_size=40))
def test_any_retry_after_is_a_pause_or_none(text):
    seconds = retry_after_s(text)
    assert seconds is None or seconds >= 0


@given(st.integers(0, 200))
def test_pauses_grow_up_to_a_limit(attempt):
    policy = RetryPolicy(first_pause_s=0.1, max_pause_s=5)
    assert 0.05 <= policy.pause_s(attempt, {}) <= 5


def test_attempts_end_at_the_deadline(server, client_of):
    server.always(PATH, faults.Status(503))
    client = client_of(server.host, policy=RetryPolicy(attempts=10**6, first_pause_s=0.01, max_pause_s=0.02))
    began = time.monotonic()
    with pytest.raises(UnavailableError):
        client.get_manifest("r", "t", Deadline.after(0.5))
    assert time.monotonic() - began < 10


def test_closing_ends_the_pauses(server, client_of, deadline):
    server.always(PATH, faults.too_many("25"))
    client = client_of(server.host)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.get_manifest, "r", "t", deadline)
        while not server.count():
            time.sleep(0.01)
        time.sleep(0.1)
        client.close()
        assert isinstance(waiting.exception(5), UnavailableError)


# -- bytes


def test_a_manifest_is_held_against_the_digest_asked_for(server, client_of, deadline):
    digest = f"sha256:{hashlib.sha256(MANIFEST).hexdigest()}"
    server.put(f"/v2/r/manifests/{digest}", MANIFEST)
    client = client_of(server.host)
    assert client.get_manifest("r", digest, deadline).digest == digest
    server.put(f"/v2/r/manifests/{digest}", MANIFEST + b" ")
    with pytest.raises(CorruptError, match=f"manifest {digest}: 49 bytes came with the digest"):
        client.get_manifest("r", digest, deadline)


def test_a_manifest_by_tag_is_held_against_the_header(server, client_of, deadline):
    server.put(PATH, MANIFEST, Docker_Content_Digest=BLOB.digest)
    with pytest.raises(CorruptError, match=BLOB.digest):
        client_of(server.host).get_manifest("r", "t", deadline)


@pytest.mark.parametrize("fault", [faults.Endless(), faults.Status(200, body=bytes(MAX_MANIFEST + 1))])
def test_a_huge_manifest_is_refused(server, client_of, deadline, fault):
    server.fault(PATH, fault)
    with pytest.raises(UnavailableError, match="longer than 4194304 bytes"):
        client_of(server.host).get_manifest("r", "t", deadline)
    assert server.count() == 1


def test_a_small_blob_is_checked_and_bounded(server, client_of, deadline):
    client = client_of(server.host)
    assert client.get_blob("r", BLOB.digest, len(BLOB.data), deadline) == BLOB.data
    with pytest.raises(UnavailableError, match="longer than 299999 bytes"):
        client.get_blob("r", BLOB.digest, len(BLOB.data) - 1, deadline)
    server.fault(BLOB_PATH, faults.OtherBytes(5))
    with pytest.raises(CorruptError, match=BLOB.digest):
        client.get_blob("r", BLOB.digest, len(BLOB.data), deadline)


@pytest.mark.parametrize(
    "cuts",
    [
        [faults.Cut(after=100_000)],
        [faults.Cut(after=100_000), faults.Cut(after=1, reset=True), faults.Stall(after=7)],
        [faults.Cut(after=100_000), faults.IgnoreRange()],
        [faults.Cut(after=100_000), faults.Status(503), faults.ShortRange(50_000)],
    ],
    ids=["one", "three", "then whole", "then short"],
)
def test_a_download_goes_on_where_it_was_cut(server, client_of, deadline, cuts):
    server.fault(BLOB_PATH, *cuts)
    client = client_of(server.host, transport=Transport(proxy="", stall_timeout_s=0.3))
    assert download(client, deadline) == BLOB.data
    asked = [seen.headers.get("range", "") for seen in server.seen]
    assert asked[0] == ""
    assert all(text.startswith("bytes=") for text in asked[1:])


@pytest.mark.parametrize(
    "fault",
    [faults.WrongRange(shift=1), faults.WrongRange(text=""), faults.WrongRange(text="bytes 0-9/*")],
    ids=repr,
)
def test_a_download_with_a_wrong_range_is_refused(server, client_of, deadline, fault):
    server.fault(BLOB_PATH, faults.Cut(after=100_000), fault)
    with pytest.raises(UnavailableError, match=r"bytes from \d+ were asked"):
        download(client_of(server.host), deadline)


def test_a_download_of_other_bytes_or_another_length_is_corrupt(server, client_of, deadline):
    client = client_of(server.host)
    server.fault(BLOB_PATH, faults.OtherBytes(200_000))
    with pytest.raises(CorruptError, match="what came has the digest"):
        download(client, deadline)
    with pytest.raises(CorruptError, match="longer than its 299999 bytes"):
        download(client, deadline, size=len(BLOB.data) - 1)
    with pytest.raises(CorruptError, match="shorter than it should be"):
        download(client, deadline, size=len(BLOB.data) + 1)


FAULTS = st.one_of(
    st.builds(faults.Cut, after=st.integers(0, 300_000), reset=st.booleans()),
    st.builds(faults.Status, st.sampled_from([200, 204, 206, 302, 307, 403, 404, 416, 429, 500, 503])),
    st.builds(faults.WrongRange, shift=st.integers(-3, 3)),
    st.builds(faults.OtherBytes, st.integers(0, 9)),
    st.just(faults.IgnoreRange()),
    st.just(faults.HangUp()),
    st.just(faults.Garbage()),
    st.just(faults.redirect("/elsewhere")),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(FAULTS, max_size=4))
def test_any_sequence_of_faults_ends_in_right_bytes_or_an_error(server, client_of, drawn):
    client = client_of(
        server.host, policy=RetryPolicy(attempts=4, first_pause_s=0, max_pause_s=0), scheme="http"
    )
    server._faults[BLOB_PATH].clear()
    server.fault(BLOB_PATH, *drawn)
    with contextlib.suppress(OverlayBDError):
        assert download(client, Deadline.after(20)) == BLOB.data


def test_a_deadline_ends_a_request_whatever_it_waits_for(server, client_of):
    server.always(PATH, faults.Stall())
    with pytest.raises(TimeoutExpiredError, match=f"{server.host}/r: manifest t: not done within 0.4 s"):
        client_of(server.host, scheme="http").get_manifest("r", "t", Deadline.after(0.4))
