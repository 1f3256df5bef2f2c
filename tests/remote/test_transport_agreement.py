"""One ``Transport`` value feeds requests and libcurl, and both obey every field of it alike.

Each test runs once for each of the two, against the same server, and says what the field
promises; what only one of them did would fail for the other.
"""

from __future__ import annotations

import dataclasses
import socket
import ssl
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tcmu_overlaybd.errors import UnavailableError
from tcmu_overlaybd.registry.deadline import Deadline
from tcmu_overlaybd.registry.transport import USER_AGENT, Transport
from tcmu_overlaybd.registry.wire import HttpRequest, Wire
from tests.registry import http_faults as faults
from tests.registry.certificates import Authority
from tests.registry.images import random_blob
from tests.registry.nginx import tls_proxy
from tests.registry.scripted_server import ScriptedServer
from tests.remote.cached_blob import CHUNK_SIZE, Blobs
from tests.remote.test_cached_reads import pushed

SECONDS = 20.0  # what is not expected to come is given up sooner
DATA = b"from the host"
BY_PROXY = b"by the proxy "
assert len(DATA) == len(BY_PROXY), "the fetcher knows the size of what it fetches"

Get = Callable[..., bytes]


def by_requests(transport: Transport, url: str, seconds: float = SECONDS, size: int = len(DATA)) -> bytes:
    """As manifests are had."""
    wire = Wire(transport)
    try:
        with wire.send(HttpRequest("GET", url), Deadline.after(seconds), "it") as reply:
            return reply.read(size)
    finally:
        wire.close()


def by_libcurl(transport: Transport, url: str, seconds: float = SECONDS, size: int = len(DATA)) -> bytes:
    """As blobs are had."""
    with tempfile.TemporaryDirectory() as folder, Blobs(Path(folder), transport=transport) as blobs:
        return blobs.open(url, bytes(size)).read(size, 0, round(seconds * 1000))


BOTH = {"requests": by_requests, "libcurl": by_libcurl}


@pytest.fixture(params=BOTH.values(), ids=BOTH.keys())
def get(request) -> Get:
    return request.param


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    """Without the proxies and certificates of whoever runs the tests."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)


@pytest.fixture
def server(server: ScriptedServer) -> ScriptedServer:
    server.put("/x", DATA)
    return server


@pytest.fixture(scope="module")
def proxy() -> Iterator[ScriptedServer]:
    """Answers itself whatever it is asked to pass on."""
    with ScriptedServer() as running:
        running.put("/x", BY_PROXY)
        yield running


def test_every_field_has_a_test_here():
    """A new one shall not be forgotten."""
    assert {field.name for field in dataclasses.fields(Transport)} == {
        "ca_file",
        "client_cert",
        "client_key",
        "proxy",
        "connect_timeout_s",
        "stall_timeout_s",
        "connections_per_host",
        "user_agent",
    }


# -- trust


@contextmanager
def tls_server(authority: Authority, *, wants_certificate: bool = False) -> Iterator[ScriptedServer]:
    pair = authority.issue("server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    if wants_certificate:
        context.load_verify_locations(authority.ca_file)
        context.verify_mode = ssl.CERT_REQUIRED
    with ScriptedServer(tls=context) as running:
        running.put("/x", DATA)
        yield running


def test_ca_file_is_trusted_and_nobody_else(get, authority, tmp_path, monkeypatch):
    stranger = Authority(tmp_path, "a stranger")
    with tls_server(authority) as server:
        url = f"{server.url}/x"
        assert get(Transport(ca_file=authority.ca_file, proxy=""), url) == DATA
        with pytest.raises(UnavailableError, match="certificate"):
            get(Transport(proxy=""), url)
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca_file))
        with pytest.raises(UnavailableError, match="certificate"):
            get(Transport(ca_file=stranger.ca_file, proxy=""), url)


def test_without_ca_file_the_systems_store_is_trusted_wherever_it_lies(get, authority, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca_file))
    with tls_server(authority) as server:
        assert get(Transport(proxy=""), f"{server.url}/x") == DATA


def test_a_certificate_for_another_name_is_not_trusted(get, authority):
    with tls_server(authority) as server:
        elsewhere = f"https://127.0.0.2:{server.port}/x"
        with socket.socket() as listener:
            listener.bind(("127.0.0.2", server.port))
            listener.listen()
            with relayed(listener, server.port), pytest.raises(UnavailableError, match="certificate"):
                get(Transport(ca_file=authority.ca_file, proxy=""), elsewhere)


@contextmanager
def relayed(listener: socket.socket, port: int) -> Iterator[None]:
    """What connects to listener talks to 127.0.0.1:port."""

    def pump(source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(1 << 16):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def accept() -> None:
        try:
            while True:
                near = listener.accept()[0]
                far = socket.create_connection(("127.0.0.1", port))
                threading.Thread(target=pump, args=(near, far), daemon=True).start()
                threading.Thread(target=pump, args=(far, near), daemon=True).start()
        except OSError:
            pass  # the listener is closed

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)


def test_client_cert_and_client_key_are_shown(get, authority):
    pair = authority.issue("client")
    with tls_server(authority, wants_certificate=True) as server:
        shown = Transport(authority.ca_file, pair.certificate, pair.key, proxy="")
        assert get(shown, f"{server.url}/x") == DATA
        with pytest.raises(UnavailableError):
            get(Transport(authority.ca_file, proxy=""), f"{server.url}/x", seconds=1)


def test_a_registry_behind_nginx_takes_both(get, authority, open_registry, client_of, repository, tmp_path):
    """TLS of a private CA that wants a certificate of it: one value is all that either needs."""
    blob, pair = random_blob(2 * CHUNK_SIZE + 1, 30), authority.issue("client")
    pushed(client_of, open_registry, repository, blob)
    with tls_proxy(tmp_path, open_registry.host, authority.issue("nginx"), authority.ca_file) as nginx:
        transport = Transport(authority.ca_file, pair.certificate, pair.key, proxy="")
        url = f"https://{nginx.host}/v2/{repository}/blobs/{blob.digest}"
        assert get(transport, url, size=len(blob.data)) == blob.data


# -- the way


def test_proxy_is_asked_for_what_is_at_other_hosts(get, proxy):
    assert get(Transport(proxy=proxy.url), "http://registry.invalid/x") == BY_PROXY


def test_proxy_may_be_given_without_its_scheme(get, proxy):
    assert get(Transport(proxy=proxy.host), "http://registry.invalid/x") == BY_PROXY


def test_the_password_of_a_proxy_is_sent_to_it_alone(get, server):
    server.put("/x", BY_PROXY)
    get(Transport(proxy=server.url.replace("//", "//anna:secret@")), "http://registry.invalid/x")
    assert server.headers_seen("Proxy-Authorization") == ["Basic YW5uYTpzZWNyZXQ="]
    assert server.headers_seen("Authorization") == []


def test_without_proxy_the_environments_is_asked_and_an_empty_one_is_none(get, server, proxy, monkeypatch):
    monkeypatch.setenv("http_proxy", proxy.url)
    assert get(Transport(), f"{server.url}/x") == BY_PROXY
    assert get(Transport(proxy=""), f"{server.url}/x") == DATA


def test_a_given_proxy_is_asked_whatever_the_environment_says(get, server, proxy, monkeypatch):
    monkeypatch.setenv("http_proxy", server.url)
    assert get(Transport(proxy=proxy.url), f"{server.url}/x") == BY_PROXY


@pytest.mark.parametrize("variable", ["all_proxy", "ALL_PROXY"])
def test_all_proxy_is_for_every_scheme(get, server, proxy, monkeypatch, variable):
    monkeypatch.setenv(variable, proxy.url)
    assert get(Transport(), f"{server.url}/x") == BY_PROXY


def test_http_proxy_in_capitals_is_a_trap_and_not_obeyed(get, server, proxy, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    assert get(Transport(), f"{server.url}/x") == DATA


@pytest.mark.parametrize("variable", ["https_proxy", "HTTPS_PROXY"])
def test_https_goes_through_a_tunnel_of_the_proxy(get, authority, server, monkeypatch, variable):
    """That opens none here: it is enough to be asked for one."""
    with tls_server(authority) as secure:
        monkeypatch.setenv(variable, server.url)
        with pytest.raises(UnavailableError):
            get(Transport(ca_file=authority.ca_file), f"{secure.url}/x", seconds=1)
        assert {(seen.method, seen.target) for seen in server.seen} == {("CONNECT", secure.host)}
        assert secure.count() == 0


NAMES = "localhost .localhost a.localhost b.a.localhost a.localhost. LocalHost calhost alocalhost"
NETWORKS = "127.0.0.1 127.0.0.0/8 127.0.0.1/32 127.0.0.77/24 126.0.0.0/7 10.0.0.0/8 127.0.0 0.0.1 127.0.0.2"
EXCEPTIONS = st.sampled_from(["", "*", "*.localhost", "localhost:80", *NAMES.split(), *NETWORKS.split()])


@settings(max_examples=settings().max_examples // 2)
@given(
    host=st.sampled_from(["localhost", "a.localhost", "b.a.localhost", "A.LOCALHOST", "127.0.0.1"]),
    no_proxy=st.lists(EXCEPTIONS, max_size=3).flatmap(
        lambda patterns: st.sampled_from([",", ", "]).map(lambda comma: comma.join(patterns))
    ),
)
@example("localhost", "*")
@example("127.0.0.1", "127.0.0.0/8")
@example("a.localhost", "localhost")
def test_both_agree_about_no_proxy(proxy, host, no_proxy):
    """All these hosts are this machine (libcurl needs no name server for localhost and below)."""
    with ScriptedServer() as server, pytest.MonkeyPatch.context() as environment:
        server.put("/x", DATA)
        environment.setenv("http_proxy", proxy.url)
        environment.setenv("no_proxy", no_proxy)
        url = f"http://{host}:{server.port}/x"
        is_direct = Transport().proxies_for(url) == {}
        assert is_direct == (by_libcurl(Transport(), url) == DATA)


def test_no_proxy_in_capitals_counts_when_the_other_is_not_set(get, server, proxy, monkeypatch):
    monkeypatch.setenv("http_proxy", proxy.url)
    monkeypatch.setenv("NO_PROXY", "127.0.0.0/8")
    assert get(Transport(), f"{server.url}/x") == DATA
    monkeypatch.setenv("no_proxy", "elsewhere")
    assert get(Transport(), f"{server.url}/x") == BY_PROXY


# -- time


@pytest.fixture
def deaf_port() -> Iterator[int]:
    """A port where connecting takes for ever: its queue of connections is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(address)
        yield address[1]
        for each in waiting:
            each.close()


def test_connect_timeout_is_how_long_connecting_may_take(get, deaf_port):
    """Not the 10 s of its default: the reason is known long before the deadline."""
    transport = Transport(proxy="", connect_timeout_s=0.25)
    with pytest.raises(UnavailableError, match=r"no answer in time$|(?i:timed out|timeout was reached)"):
        get(transport, f"http://127.0.0.1:{deaf_port}/x", seconds=3)


@pytest.mark.parametrize("after", [-1, 0, 5], ids=["before the head", "before the body", "within the body"])
def test_stall_timeout_is_how_long_nothing_may_come(get, server, after):
    server.put("/x", bytes(1000))
    server.always("/x", faults.Stall(after=after))
    with pytest.raises(UnavailableError, match=r"no answer in time$|the server sent nothing for 250 ms$"):
        get(Transport(proxy="", stall_timeout_s=0.25), f"{server.url}/x", seconds=3, size=1000)


def test_what_comes_slowly_is_no_stall(get, server):
    server.fault("/x", faults.Slow(step=1, pause_s=0.1))
    assert get(Transport(proxy="", stall_timeout_s=0.6), f"{server.url}/x") == DATA
    assert server.count() == 1


# -- who we are, and how many


def test_user_agent_is_what_a_server_sees(get, server):
    get(Transport(proxy=""), f"{server.url}/x")
    get(Transport(proxy="", user_agent="somebody/2"), f"{server.url}/x")
    assert server.headers_seen("User-Agent") == [USER_AGENT, "somebody/2"]


def test_nothing_is_taken_from_netrc(get, server, tmp_path, monkeypatch):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login anna password secret\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    get(Transport(proxy=""), f"{server.url}/x")
    assert server.headers_seen("Authorization") == []


BLOB = random_blob(24 * CHUNK_SIZE, 31)
NR_READERS = 12
LIMIT = 3


def read_by_requests(transport: Transport, url: str) -> None:
    wire = Wire(transport)

    def read(_: int) -> bytes:
        with wire.send(HttpRequest("GET", url), Deadline.after(60), "it") as reply:
            return reply.read(len(BLOB.data))

    with ThreadPoolExecutor(NR_READERS) as pool:
        assert all(got == BLOB.data for got in pool.map(read, range(NR_READERS)))
    wire.close()


def read_by_libcurl(transport: Transport, url: str) -> None:
    """Every second chunk, so that none is merged with its neighbour."""
    with tempfile.TemporaryDirectory() as folder, Blobs(Path(folder), transport=transport) as blobs:
        source = blobs.open(url, BLOB.data)

        def read(number: int) -> bool:
            offset = 2 * number * CHUNK_SIZE
            return source.read(100, offset, 60_000) == BLOB.data[offset : offset + 100]

        with ThreadPoolExecutor(NR_READERS) as pool:
            assert all(pool.map(read, range(NR_READERS)))


@pytest.mark.parametrize("read", [read_by_requests, read_by_libcurl], ids=BOTH.keys())
def test_no_more_connections_per_host_than_that_are_open_at_once(server, read):
    server.put("/blob", BLOB.data)
    server.always("/blob", faults.Delay(0.1))
    with watched_connections(server) as most:
        read(Transport(proxy="", connections_per_host=LIMIT), f"{server.url}/blob")
    assert server.count() >= NR_READERS
    assert most() == LIMIT


@contextmanager
def watched_connections(server: ScriptedServer) -> Iterator[Callable[[], int]]:
    """The largest number of connections that the server had at once, looked at often."""
    found, ended = [0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.002):
            found.append(server.nr_open)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield lambda: max(found)
    finally:
        ended.set()
        watcher.join()
