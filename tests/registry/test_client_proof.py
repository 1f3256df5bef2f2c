"""Where a client follows, and whom it tells who it is: never a password elsewhere."""

from __future__ import annotations

import base64
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tcmu_overlaybd.errors import (
    AuthenticationError,
    UnavailableError,
)
from tcmu_overlaybd.registry.auth import Scope
from tcmu_overlaybd.registry.credentials import Credential
from tcmu_overlaybd.registry.redirects import MAX_REDIRECTS
from tcmu_overlaybd.registry.transport import Transport
from tests.registry import http_faults as faults
from tests.registry.http_faults import Answer
from tests.registry.images import random_blob
from tests.registry.scripted_server import ScriptedServer, Seen

ANNA = Credential("anna", "s3cret")
MANIFEST = b'{"schemaVersion": 2, "layers": [], "config": {}}'
PATH = "/v2/r/manifests/t"
BLOB = random_blob(300_000)
BLOB_PATH = f"/v2/r/blobs/{BLOB.digest}"


@pytest.fixture(autouse=True)
def contents(server):
    server.put(PATH, MANIFEST)
    server.put(BLOB_PATH, BLOB.data)


# -- redirects


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("place", ["/store/x", "{}/store/x", "../../store/x"])
def test_redirects_are_followed(server, client_of, deadline, code, place):
    server.put("/store/x", BLOB.data)
    server.put("/v2/store/x", BLOB.data)
    server.fault(BLOB_PATH, faults.redirect(place.format(server.url), code))
    assert client_of(server.host).get_blob("r", BLOB.digest, len(BLOB.data), deadline) == BLOB.data


def test_a_circle_of_redirects_ends(server, client_of, deadline):
    server.always(PATH, faults.redirect(PATH))
    with pytest.raises(UnavailableError, match=f"manifest t: redirected more than {MAX_REDIRECTS} times"):
        client_of(server.host).get_manifest("r", "t", deadline)
    assert server.count() == MAX_REDIRECTS + 1


def asks_for_password(server: ScriptedServer, path: str, body: bytes) -> None:
    """path has body for anna only."""

    def answer(seen: Seen) -> Answer:
        if seen.headers.get("authorization") == ANNA.basic():
            return Answer(200, {}, body)
        return Answer(401, {"WWW-Authenticate": 'Basic realm="r"'})

    server.respond(path, answer)


def test_no_password_goes_to_another_port(server, client_of, deadline):
    asks_for_password(server, PATH, MANIFEST)
    with ScriptedServer() as other:
        other.put("/store", BLOB.data)
        server.fault(BLOB_PATH, faults.redirect(f"{other.url}/store"))
        client = client_of(server.host, ANNA)
        client.get_manifest("r", "t", deadline)
        assert client.get_blob("r", BLOB.digest, len(BLOB.data), deadline) == BLOB.data
        assert server.headers_seen("Authorization", BLOB_PATH) == [ANNA.basic()]
        assert other.count() == 1
        assert not other.headers_seen("Authorization")


def test_a_challenge_of_another_place_is_not_answered(server, client_of, deadline):
    with ScriptedServer() as other:
        other.always("/store", faults.unauthorized('Basic realm="fishing"'))
        server.fault(PATH, faults.redirect(f"{other.url}/store"))
        with pytest.raises(AuthenticationError, match="wants to know who asks"):
            client_of(server.host, ANNA).get_manifest("r", "t", deadline)
        assert not other.headers_seen("Authorization")
        assert not server.headers_seen("Authorization")


# -- proof


def test_the_password_is_sent_when_asked_for_and_from_then_on(server, client_of, deadline):
    asks_for_password(server, PATH, MANIFEST)
    client = client_of(server.host, ANNA)
    for _ in range(3):
        client.get_manifest("r", "t", deadline)
    assert ["authorization" in seen.headers for seen in server.seen] == [False, True, True, True]


def test_a_wrong_password_is_sent_once(server, client_of, deadline):
    asks_for_password(server, PATH, MANIFEST)
    with pytest.raises(AuthenticationError, match="user name or password is wrong"):
        client_of(server.host, Credential("anna", "other")).get_manifest("r", "t", deadline)
    assert len(server.headers_seen("Authorization")) == 1


def test_a_circle_of_401_ends(server, client_of, deadline):
    server.always(PATH, faults.unauthorized(f'Bearer realm="{server.url}/token",service="s"'))
    count = iter(range(100))
    server.respond("/token", lambda _: Answer(200, {}, json.dumps({"token": f"t{next(count)}"}).encode()))
    with pytest.raises(AuthenticationError, match="manifest t: the registry does not accept the token"):
        client_of(server.host, ANNA).get_manifest("r", "t", deadline)
    assert server.count("GET", PATH) == 3


class Tokens:
    """A registry and its token service in one server; a token is good for nr_uses."""

    def __init__(self, server: ScriptedServer, nr_uses: int = 10**9) -> None:
        self._lock = threading.Lock()
        self._nr_uses = nr_uses
        self._uses: dict[str, int] = {}
        self._url = server.url
        server.respond("/token", self.give)
        server.respond(PATH, self.manifest)

    def give(self, seen: Seen) -> Answer:
        name, _, password = base64.b64decode(seen.headers["authorization"][6:]).decode().partition(":")
        if (name, password) != ("anna", "s3cret"):
            return Answer(401)
        with self._lock:
            token = f"t{len(self._uses)}"
            self._uses[token] = 0
        return Answer(200, {}, json.dumps({"token": token, "expires_in": 300}).encode())

    def manifest(self, seen: Seen) -> Answer:
        token = seen.headers.get("authorization", "").removeprefix("Bearer ")
        with self._lock:
            if self._uses.get(token, self._nr_uses) < self._nr_uses:
                self._uses[token] += 1
                return Answer(200, {}, MANIFEST)
        return Answer(401, {"WWW-Authenticate": f'Bearer realm="{self._url}/token",service="s",scope="x"'})


def test_a_token_that_the_registry_forgets_is_replaced(server, client_of, deadline):
    Tokens(server, nr_uses=2)
    client = client_of(server.host, ANNA)
    for _ in range(6):
        assert client.get_manifest("r", "t", deadline).body == MANIFEST
    assert server.count("GET", "/token") == 3


def test_many_threads_ask_for_one_token(server, client_of, deadline):
    Tokens(server)
    client = client_of(server.host, ANNA)
    with ThreadPoolExecutor(16) as pool:
        asked = [pool.submit(client.get_manifest, "r", "t", deadline) for _ in range(64)]
        assert {one.result().body for one in asked} == {MANIFEST}
    assert server.count("GET", "/token") == 1


@pytest.mark.parametrize("fault", [faults.Status(503), faults.HangUp(), faults.too_many("0")], ids=repr)
def test_a_token_service_in_trouble_is_asked_again(server, client_of, deadline, fault):
    Tokens(server)
    server.fault("/token", fault)
    assert client_of(server.host, ANNA).get_manifest("r", "t", deadline).body == MANIFEST


@pytest.mark.parametrize(
    ("fault", "error", "complaint"),
    [
        (faults.Endless(), UnavailableError, "longer than 65536 bytes"),
        (faults.Status(200, body=b"{}"), UnavailableError, "has no token"),
        (faults.Status(401), AuthenticationError, "refuses the password of anna"),
        (faults.redirect("/token2"), UnavailableError, "answers 307"),
    ],
    ids=["endless", "empty", "refused", "moved"],
)
def test_a_token_service_that_gives_no_token(server, client_of, deadline, fault, error, complaint):
    Tokens(server)
    server.always("/token", fault)
    with pytest.raises(error, match=complaint):
        client_of(server.host, ANNA).get_manifest("r", "t", deadline)


# -- http and https


def test_a_host_elsewhere_is_never_spoken_to_in_plain_http(client_of):
    client = client_of("registry.invalid")
    assert client.blob_url("r", BLOB.digest).startswith("https://registry.invalid/v2/r/blobs/")
    assert not client.conversation.may_be_plain("registry.invalid")
    insecure = client_of("registry.invalid", insecure_hosts=frozenset({"registry.invalid"}))
    assert insecure.blob_url("r", BLOB.digest).startswith("http://")


def test_no_password_is_said_in_plain_http_where_a_configuration_only_wrote_http(
    proxy_registry, client_of, deadline
):
    proxy, transport = proxy_registry
    client = client_of("registry.invalid", ANNA, transport=transport, scheme="http")
    with pytest.raises(AuthenticationError, match="only to hosts named insecure"):
        client.get_manifest("r", "t", deadline)
    assert not proxy.headers_seen("Authorization")
    named = client_of(
        "registry.invalid", ANNA, transport=transport, insecure_hosts=frozenset({"registry.invalid"})
    )
    assert named.get_manifest("r", "t", deadline).body == MANIFEST


@pytest.fixture
def proxy_registry(server):
    """The server as a proxy through which registry.invalid is reached."""
    asks_for_password(server, PATH, MANIFEST)
    return server, Transport(proxy=server.url)


# -- for the data plane


def test_authorization_is_for_the_registry_only(server, client_of, deadline):
    asks_for_password(server, PATH, MANIFEST)
    client = client_of(server.host, ANNA)
    url, scopes = client.blob_url("r", BLOB.digest), (Scope("r"),)
    assert url == f"{server.url}{BLOB_PATH}"
    assert client.authorization_for(url, scopes, deadline) is None  # not asked yet
    client.get_manifest("r", "t", deadline)
    assert client.authorization_for(url, scopes, deadline).header == ANNA.basic()
    for other in ("http://127.0.0.1:1/x", url.replace("http:", "https:"), "http://example.org/"):
        assert client.authorization_for(other, scopes, deadline) is None
        assert client.challenged(other, "Basic", scopes, None, deadline) is None


def test_a_challenge_seen_by_the_data_plane_is_answered(server, client_of, deadline):
    client = client_of(server.host, ANNA)
    url, scopes = client.blob_url("r", BLOB.digest), (Scope("r"),)
    assert client.challenged(url, 'Basic realm="x"', scopes, None, deadline).header == ANNA.basic()
    with pytest.raises(AuthenticationError):
        client.challenged(url, 'Basic realm="x"', scopes, ANNA.basic(), deadline)
