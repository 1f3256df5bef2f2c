"""How the network is reached: whom is trusted, which proxy, and that no wait outlives its deadline."""

from __future__ import annotations

import http.server
import ssl
import threading
import time

import pytest
import requests
import urllib3

from tcmu_overlaybd.errors import (
    FailedError,
    MissingError,
    OverlayBDError,
    TimeoutExpiredError,
    TransientError,
    UnavailableError,
    UsageError,
)
from tcmu_overlaybd.registry.deadline import Deadline
from tcmu_overlaybd.registry.transport import USER_AGENT, Transport
from tcmu_overlaybd.registry.wire import HttpRequest, Wire, failure_of
from tests.registry import http_faults as faults
from tests.registry.certificates import Authority
from tests.registry.http_faults import Answer
from tests.registry.scripted_server import ScriptedServer


def get(transport: Transport, url: str, seconds: float = 10, method: str = "GET") -> bytes:
    wire = Wire(transport)
    try:
        with wire.send(HttpRequest(method, url), Deadline.after(seconds), "h: op") as reply:
            return reply.read(1 << 20)
    finally:
        wire.close()


DIRECT = Transport(proxy="", stall_timeout_s=5)


# -- deadlines

BREAKING = {
    "a cut head": faults.HangUp(),
    "a reset": faults.HangUp(reset=True),
    "a cut body": faults.Cut(after=3),
    "a reset body": faults.Cut(after=3, reset=True),
}


@pytest.mark.parametrize("fault", BREAKING.values(), ids=BREAKING)
def test_a_broken_connection_is_transient(server, fault):
    server.put("/x", b"123456789")
    server.fault("/x", fault)
    with pytest.raises(TransientError, match="h: op: the connection was cut"):
        get(DIRECT, server.url + "/x")


STALLING = {
    "no head": faults.Stall(),
    "no body": faults.Stall(after=2),
    "a dripping body": faults.Slow(step=1, pause_s=0.05),
    "a dripping head": faults.Slow(step=1, pause_s=0.05, head_too=True),
}


@pytest.mark.parametrize("fault", STALLING.values(), ids=STALLING)
def test_no_answer_outlives_the_deadline(server, fault):
    server.put("/x", bytes(1000))
    server.fault("/x", fault)
    began = time.monotonic()
    with pytest.raises(TimeoutExpiredError, match=r"h: op: not done within 0.5 s"):
        get(DIRECT, server.url + "/x", seconds=0.5)
    assert time.monotonic() - began < 10  # the drip takes 50 s, the stall 60


def test_a_stall_ends_before_the_deadline(server):
    server.put("/x", bytes(1000))
    server.fault("/x", faults.Stall(after=2))
    with pytest.raises(TransientError, match="h: op: no answer in time"):
        get(Transport(proxy="", stall_timeout_s=0.2), server.url + "/x", seconds=30)


def test_a_passed_deadline_sends_nothing(server):
    with pytest.raises(TimeoutExpiredError):
        get(DIRECT, server.url + "/x", seconds=0)
    assert not server.seen


def test_an_endless_body_is_cut_off(server):
    server.fault("/x", faults.Endless())
    with pytest.raises(UnavailableError, match="longer than 1048576 bytes"):
        get(DIRECT, server.url + "/x")


def test_what_is_no_http_is_told(server):
    server.fault("/x", faults.Garbage())
    with pytest.raises(TransientError, match="does not speak HTTP"):
        get(DIRECT, server.url + "/x")


def test_a_refused_connection_is_transient():
    with pytest.raises(TransientError, match="the connection is refused"):
        get(DIRECT, "http://127.0.0.1:1/")


def test_a_name_that_is_nobodys_is_told():
    with pytest.raises(TransientError, match="name cannot be looked up"):
        get(DIRECT, "http://nowhere.invalid/")


def test_connections_are_used_again(server):
    server.put("/x", b"1")
    wire = Wire(DIRECT)
    for method in ("GET", "HEAD", "GET"):
        with wire.send(HttpRequest(method, server.url + "/x"), Deadline.after(10), "w") as reply:
            reply.discard()
    wire.close()
    assert (len(server.seen), server.nr_connections) == (3, 1)


def test_who_waits_for_a_connection_waits_until_the_deadline(server):
    server.put("/x", bytes(1000))
    wire = Wire(Transport(proxy="", connections_per_host=1))
    first = wire.send(HttpRequest("GET", server.url + "/x"), Deadline.after(10), "w")
    with pytest.raises(TimeoutExpiredError, match=r"w: not done within 0.2 s"):
        wire.send(HttpRequest("GET", server.url + "/x"), Deadline.after(0.2), "w")
    first.discard()
    wire.send(HttpRequest("GET", server.url + "/x"), Deadline.after(10), "w").discard()
    wire.close()


# -- what is sent


def test_a_request_is_ours_and_nothing_is_added(server, monkeypatch, tmp_path):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login anna password s3cret\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    server.fault("/x", faults.Status(200, {"Set-Cookie": "a=b"}))
    server.put("/x", b"")
    wire = Wire(DIRECT)
    for _ in range(2):
        wire.send(HttpRequest("GET", server.url + "/x"), Deadline.after(10), "w").discard()
    wire.close()
    for seen in server.seen:
        assert seen.headers["user-agent"] == USER_AGENT
        assert seen.headers["accept-encoding"] == "identity"
        assert not {"authorization", "cookie"} & seen.headers.keys()


@pytest.mark.parametrize("body", [b"", b"x" * 100_000])
def test_a_body_has_a_length(server, body):
    server.respond("/x", lambda seen: Answer(201))
    wire = Wire(DIRECT)
    wire.send(HttpRequest("PUT", server.url + "/x", body=body), Deadline.after(10), "w").discard()
    wire.close()
    assert server.seen[0].headers["content-length"] == str(len(body))
    assert server.seen[0].body == body


# -- TLS


@pytest.fixture
def tls_server(authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    pair = authority.issue("server")
    context.load_cert_chain(pair.certificate, pair.key)
    with ScriptedServer(tls=context) as running:
        running.put("/x", b"1")
        yield running


def test_a_given_ca_is_trusted(tls_server, authority):
    assert get(Transport(ca_file=authority.ca_file, proxy=""), tls_server.url + "/x") == b"1"


def test_the_systems_store_is_trusted_and_asked_of_openssl(tls_server, authority, monkeypatch):
    with pytest.raises(UnavailableError, match="its TLS certificate is not trusted"):
        get(DIRECT, tls_server.url + "/x")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca_file))
    assert get(DIRECT, tls_server.url + "/x") == b"1"
    assert DIRECT.curl_values().ca_file == str(authority.ca_file)


def test_a_given_ca_is_the_only_one_trusted(tls_server, authority, tmp_path, monkeypatch):
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.setenv(name, str(authority.ca_file))
    other = Authority(tmp_path, "another")
    with pytest.raises(UnavailableError, match="not trusted"):
        get(Transport(ca_file=other.ca_file, proxy=""), tls_server.url + "/x")


def test_the_bundle_of_requests_is_not_trusted(tls_server, authority, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.ca_file))
    with pytest.raises(UnavailableError, match="not trusted"):
        get(DIRECT, tls_server.url + "/x")


def test_a_certificate_for_another_name_or_of_yesterday_is_not_trusted(authority):
    for pair in (authority.issue("elsewhere", address="127.0.0.9"), authority.issue("old", days=-1)):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.certificate, pair.key)
        with ScriptedServer(tls=context) as server, pytest.raises(UnavailableError, match="not trusted"):
            get(Transport(ca_file=authority.ca_file, proxy=""), server.url + "/x")


def test_a_client_certificate_is_shown(authority):
    server_pair, client_pair = authority.issue("server"), authority.issue("client")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server_pair.certificate, server_pair.key)
    context.load_verify_locations(authority.ca_file)
    context.verify_mode = ssl.CERT_REQUIRED
    with ScriptedServer(tls=context) as server:
        server.put("/x", b"1")
        shown = Transport(authority.ca_file, client_pair.certificate, client_pair.key, proxy="")
        assert get(shown, server.url + "/x") == b"1"
        with pytest.raises(UnavailableError):
            get(Transport(authority.ca_file, proxy=""), server.url + "/x")


def test_files_that_are_not_there_or_no_certificates_are_named(tmp_path):
    with pytest.raises(MissingError, match=r"nowhere\.pem: no such file"):
        Transport(ca_file=tmp_path / "nowhere.pem").session()
    (tmp_path / "bad.pem").write_text("nothing")
    with pytest.raises(UnavailableError, match=r"bad\.pem: not to be used for TLS"):
        Transport(ca_file=tmp_path / "bad.pem").session()
    with pytest.raises(UsageError, match="together, or neither"):
        Transport(client_cert=tmp_path / "x.pem")


# -- proxies


class Proxy(ScriptedServer):
    """Answers what is asked of others itself."""

    def __init__(self) -> None:
        super().__init__()
        self.put("/x", b"by proxy")


@pytest.fixture
def proxy():
    with Proxy() as running:
        yield running


@pytest.fixture(autouse=True)
def no_proxy_of_the_machine(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def test_a_given_proxy_is_used(proxy):
    assert get(Transport(proxy=proxy.url), "http://registry.invalid/x") == b"by proxy"
    assert proxy.seen[0].target == "http://registry.invalid/x"


@pytest.mark.parametrize("variable", ["http_proxy", "all_proxy", "ALL_PROXY"])
def test_the_environment_names_a_proxy(proxy, monkeypatch, variable):
    monkeypatch.setenv(variable, proxy.url)
    assert get(Transport(), "http://registry.invalid/x") == b"by proxy"
    with pytest.raises(TransientError):
        get(Transport(proxy=""), "http://registry.invalid/x")


def test_http_proxy_in_capitals_is_not_obeyed_as_by_libcurl(proxy, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    assert Transport().proxies_for("http://registry.invalid/x") == {}
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)
    assert Transport().proxies_for("https://registry.invalid/x") == {"https": proxy.url}


@pytest.mark.parametrize("exceptions", ["registry.invalid", ".invalid", "*", "a,invalid"])
def test_no_proxy_is_obeyed(proxy, monkeypatch, exceptions):
    monkeypatch.setenv("http_proxy", proxy.url)
    monkeypatch.setenv("no_proxy", exceptions)
    assert Transport().proxies_for("http://registry.invalid/x") == {}


def test_a_tunnel_obeys_the_deadline_too(server):
    server.always("registry.invalid:443", faults.Stall())
    with pytest.raises((TimeoutExpiredError, TransientError)):
        get(Transport(proxy=server.url), "https://registry.invalid/x", seconds=0.5)


def test_the_password_of_a_proxy_is_not_shown():
    transport = Transport(proxy="http://anna:s3cret@127.0.0.1:1")
    assert "s3cret" not in repr(transport) + repr(transport.curl_values())
    with pytest.raises(OverlayBDError) as failed:
        get(transport, "http://registry.invalid/x")
    assert "s3cret" not in str(failed.value)


# -- the same for libcurl


def test_libcurl_gets_the_same_values(authority, tmp_path):
    pair = authority.issue("client")
    values = Transport(
        authority.ca_file, pair.certificate, pair.key, "http://p:1", 1.5, 2.25, 3, "agent"
    ).curl_values()
    assert values.ca_file == str(authority.ca_file)
    assert (values.client_cert, values.client_key) == (str(pair.certificate), str(pair.key))
    assert (values.connect_timeout_ms, values.stall_timeout_ms) == (1500, 2250)
    assert (values.connections_per_host, values.user_agent, values.proxy) == (3, "agent", "http://p:1")


# -- every exception of the lower libraries is one of ours


def exceptions_of(module, base) -> list[type[Exception]]:
    return [kind for kind in vars(module).values() if isinstance(kind, type) and issubclass(kind, base)]


LOWER = [
    *exceptions_of(requests.exceptions, requests.exceptions.RequestException),
    *exceptions_of(urllib3.exceptions, urllib3.exceptions.HTTPError),
    *exceptions_of(http.client, http.client.HTTPException),
]


@pytest.mark.parametrize("kind", LOWER, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_every_failure_of_the_lower_libraries_is_one_of_ours(kind):
    error = kind.__new__(kind)
    error.args = ("http://user:s3cret@host/?sig=s3cret",)
    found = failure_of(error, "h: op")
    assert isinstance(found, (UnavailableError, FailedError))
    assert str(found).startswith("h: op: ")
    assert "s3cret" not in str(found)


def test_many_threads_share_a_wire(server):
    server.put("/x", b"1" * 1000)
    wire = Wire(DIRECT)
    wrong = []

    def work() -> None:
        for _ in range(10):
            with wire.send(HttpRequest("GET", server.url + "/x"), Deadline.after(20), "w") as reply:
                if reply.read(1000) != b"1" * 1000:
                    wrong.append(reply.status)

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wire.close()
    assert not wrong
    assert server.count() == 160
