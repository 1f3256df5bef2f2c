"""From a challenge to a header, without a network: the flow is a generator."""

from __future__ import annotations

import base64
import json
from urllib.parse import parse_qs, parse_qsl, urlsplit

import pytest

from tcmu_overlaybd.errors import AuthenticationError, TransientError, UnavailableError
from tcmu_overlaybd.registry.auth import Authorization, Scope, TokenReply, authorize, read_token
from tcmu_overlaybd.registry.challenge import parse_challenges
from tcmu_overlaybd.registry.credentials import Credential

ANNA = Credential("anna", "sécret:with colon")
BEARER = 'Bearer realm="https://auth.example/token",service="a registry & more",scope="ignored"'
SCOPES = (Scope("a/b", "pull,push"), Scope("c"))


def start(header: str, credential: Credential | None = ANNA, scopes=SCOPES, plain: bool = False):
    """The flow, its first request; or what it returned at once."""
    flow = authorize(parse_challenges(header), scopes, credential, lambda host: plain, "h/r: op")
    try:
        return flow, next(flow)
    except StopIteration as end:
        return flow, end.value


def finish(flow, status: int, reply: object) -> Authorization:
    with pytest.raises(StopIteration) as end:
        flow.send(TokenReply(status, reply if isinstance(reply, bytes) else json.dumps(reply).encode()))
    return end.value.value


def test_basic_needs_no_request():
    _, authorization = start('Basic realm="x"')
    assert base64.b64decode(authorization.header.removeprefix("Basic ")).decode() == "anna:sécret:with colon"
    assert authorization.expires_at == float("inf")


@pytest.mark.parametrize("credential", [None, Credential("anna", identity_token="t")])
def test_basic_without_a_password_says_how_to_give_one(credential):
    with pytest.raises(AuthenticationError, match="h/r: op: a password is needed: tcmu-overlaybd login"):
        start("Basic", credential)


def test_bearer_asks_the_realm_with_the_password_and_everything_encoded():
    flow, request = start(f'Basic realm="x", {BEARER}')
    parts = urlsplit(request.url)
    assert (request.method, parts.scheme, parts.netloc, parts.path) == (
        "GET",
        "https",
        "auth.example",
        "/token",
    )
    assert parse_qsl(parts.query, strict_parsing=True) == [
        ("service", "a registry & more"),
        ("scope", "repository:a/b:pull,push"),
        ("scope", "repository:c:pull"),
    ]
    assert request.headers == {"Authorization": ANNA.basic()}
    assert finish(flow, 200, {"token": "T", "expires_in": 300}).header == "Bearer T"


def test_bearer_as_nobody_sends_no_password():
    _, request = start(BEARER, None)
    assert request.headers == {}


def test_a_realm_with_a_query_keeps_it():
    _, request = start('Bearer realm="https://auth.example/token?x=1"', None, scopes=())
    assert request.url == "https://auth.example/token?x=1"
    _, request = start('Bearer realm="https://auth.example/token?x=1",service="s"', None, scopes=())
    assert request.url == "https://auth.example/token?x=1&service=s"


def test_an_identity_token_goes_by_post_and_never_in_the_url():
    flow, request = start(BEARER, Credential("", identity_token="ID TOKEN"))
    assert (request.method, request.url) == ("POST", "https://auth.example/token")
    assert parse_qs(request.body.decode()) == {
        "grant_type": ["refresh_token"],
        "client_id": ["tcmu-overlaybd"],
        "refresh_token": ["ID TOKEN"],
        "service": ["a registry & more"],
        "scope": ["repository:a/b:pull,push repository:c:pull"],
    }
    assert "Authorization" not in request.headers
    assert finish(flow, 200, {"access_token": "T"}).header == "Bearer T"


@pytest.mark.parametrize("realm", ["http://auth.example/token", "HTTP://auth.example/token"])
def test_a_plain_realm_is_not_asked_but_where_that_is_permitted(realm):
    with pytest.raises(UnavailableError, match="not asked over plain HTTP"):
        start(f'Bearer realm="{realm}"')
    assert start(f'Bearer realm="{realm}"', plain=True)[1].method == "GET"


@pytest.mark.parametrize(
    "realm",
    ["", "/token", "auth.example/token", "https://", "https://u:p@h/t", "https://h/t#f", "https://[x/"],
)
def test_a_realm_that_cannot_be_asked_is_refused(realm):
    with pytest.raises(UnavailableError, match="no token service that can be asked"):
        start(f'Bearer realm="{realm}"')


@pytest.mark.parametrize("header", ["Negotiate", "Digest realm=x", ""])
def test_a_scheme_that_is_not_spoken_is_named(header):
    with pytest.raises(UnavailableError, match=(header.split(" ")[0].lower() or "none that can be read")):
        start(header)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, AuthenticationError),
        (403, AuthenticationError),
        (400, AuthenticationError),
        (404, UnavailableError),
        (301, UnavailableError),
        (500, TransientError),
        (429, TransientError),
    ],
)
def test_a_refusal_of_the_token_service(status, error):
    flow, _ = start(BEARER)
    with pytest.raises(error) as refused:
        flow.send(TokenReply(status, b"{}"))
    assert str(status) in str(refused.value)
    assert "cret" not in str(refused.value)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no json",
        b"[]",
        b"{}",
        b'{"token": 5}',
        b'{"token": ""}',
        b'{"token": "a b"}',
        b'{"token": "a\\nX: y"}',
        b'{"token":"\xc3\xa9"}',
    ],
)
def test_an_answer_without_a_usable_token_is_refused(body):
    with pytest.raises(UnavailableError, match="token"):
        read_token(body, 0, "h: op")


@pytest.mark.parametrize(
    ("given", "lives"), [(None, 60), (0, 60), (-5, 60), (10, 10), (300, 300), (90_000, 90_000)]
)
def test_a_token_is_renewed_before_it_expires(given, lives):
    authorization = read_token(json.dumps({"token": "T", "expires_in": given}).encode(), 1000, "h: op")
    assert authorization.expires_at == 1000 + lives
    assert 1000 + lives * 0.5 < authorization.renew_at < authorization.expires_at
    assert authorization.expires_at - authorization.renew_at <= 30


def test_nothing_secret_is_in_a_repr():
    _, request = start(BEARER)
    shown = repr([ANNA, request, read_token(b'{"token": "TTT"}', 0, ""), TokenReply(200, b"TTT")])
    assert not [secret for secret in ("cret", ANNA.basic(), "TTT") if secret in shown]
