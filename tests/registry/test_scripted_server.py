"""The misbehaving server does what its script says: otherwise tests with it prove nothing."""

from __future__ import annotations

import http.client
import socket

import pytest

from tests.registry import http_faults as faults
from tests.registry.scripted_server import ScriptedServer

DATA = bytes(range(256)) * 40


@pytest.fixture
def server():
    with ScriptedServer() as running:
        running.put("/blob", DATA, Content_Type="application/octet-stream")
        yield running


def get(server: ScriptedServer, path: str = "/blob", timeout: float = 5, **headers: str):
    connection = http.client.HTTPConnection(server.host, timeout=timeout)
    connection.request("GET", path, headers=headers)
    response = connection.getresponse()
    try:
        return response.status, dict(response.getheaders()), response.read()
    finally:
        connection.close()


def test_tells_the_truth_when_no_fault_is_left(server):
    server.fault("/blob", faults.Status(503), faults.too_many("1"))
    assert get(server)[0] == 503
    assert get(server)[:2] == (429, {"Content-Length": "0", "Retry-After": "1"})
    assert get(server)[::2] == (200, DATA)
    assert get(server, "/other")[0] == 404
    assert server.count("GET", "/blob") == 3


def test_a_ranged_get_is_answered_as_a_registry_would(server):
    status, headers, body = get(server, Range="bytes=5-9")
    assert (status, headers["Content-Range"], body) == (206, f"bytes 5-9/{len(DATA)}", DATA[5:10])
    assert get(server, Range=f"bytes={len(DATA)}-")[0] == 416


@pytest.mark.parametrize(
    ("fault", "status", "said", "body"),
    [
        (faults.IgnoreRange(), 200, None, DATA),
        (faults.WrongRange(shift=4), 206, f"bytes 9-13/{len(DATA)}", DATA[5:10]),
        (faults.WrongRange(text=""), 206, None, DATA[5:10]),
        (faults.ShortRange(2), 206, f"bytes 5-6/{len(DATA)}", DATA[5:7]),
        (faults.OtherBytes(1), 206, f"bytes 5-9/{len(DATA)}", bytes([5, 6 ^ 255, 7, 8, 9])),
    ],
    ids=["ignored", "shifted", "unsaid", "short", "flipped"],
)
def test_spoils_a_range(server, fault, status, said, body):
    server.fault("/blob", fault)
    got = get(server, Range="bytes=5-9")
    assert (got[0], got[1].get("Content-Range"), got[2]) == (status, said, body)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (faults.Cut(after=100), http.client.IncompleteRead),
        (faults.Cut(after=100, reset=True), ConnectionResetError),
        (faults.HangUp(), http.client.RemoteDisconnected),
        (faults.HangUp(reset=True), ConnectionResetError),
        (faults.Garbage(), http.client.BadStatusLine),
        (faults.Stall(), TimeoutError),
        (faults.Stall(after=10), TimeoutError),
    ],
    ids=repr,
)
def test_breaks_an_answer(server, fault, error):
    server.fault("/blob", fault)
    with pytest.raises(error):
        get(server, timeout=0.3)
    assert get(server)[0] == 200


def test_drips(server):
    server.put("/small", b"12345")
    server.fault("/small", faults.Slow(step=2, pause_s=0.01, head_too=True))
    assert get(server, "/small")[::2] == (200, b"12345")


def test_counts_connections_and_keeps_headers(server):
    connection = http.client.HTTPConnection(server.host, timeout=5)
    for _ in range(2):
        connection.request("GET", "/blob?x=1", headers={"Authorization": "Basic eA=="})
        connection.getresponse().read()
    connection.close()
    assert server.nr_connections == 1
    assert server.headers_seen("Authorization") == ["Basic eA=="] * 2


def test_close_ends_what_stalls(server):
    server.always("/blob", faults.Stall())
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as peer:
        peer.sendall(b"GET /blob HTTP/1.1\r\nHost: x\r\n\r\n")
        while not server.seen:
            pass
        server.close()
        assert peer.recv(1) == b""
        server.close = lambda: None  # the fixture has nothing left to close
