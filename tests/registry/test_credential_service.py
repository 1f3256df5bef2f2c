"""Passwords from a service: what it is asked, and what is made of its answers."""

from __future__ import annotations

import http.server
import json
import socketserver
import threading
from urllib.parse import parse_qs, urlsplit

import pytest

from tcmu_overlaybd.errors import FormatError, UnavailableError
from tcmu_overlaybd.registry.credential_service import socket_service, web_service
from tcmu_overlaybd.registry.credentials import Credential
from tcmu_overlaybd.registry.transport import Transport
from tests.registry.http_faults import Answer, Delay, Status

TIMEOUT_S = 5.0
ANNA = Credential("anna", "secret")


def reply(auths: object, *, success: bool = True) -> bytes:
    return json.dumps({"traceId": "1", "success": success, "data": {"auths": auths}}).encode()


@pytest.fixture
def service(server):
    return web_service(f"{server.url}/auth", Transport(proxy=""), TIMEOUT_S)


def test_it_is_asked_with_the_repository_and_answers_as_docker_s_file_does(server, service):
    auths = {"h.example": {"username": "x", "password": "y"}, "h.example/a": {"auth": "YW5uYTpzZWNyZXQ="}}
    server.respond("/auth", lambda _seen: Answer(200, {}, reply(auths)))
    assert service.find("h.example", "a/b") == ANNA
    (seen,) = server.seen
    assert parse_qs(urlsplit(seen.target).query) == {"remote_url": ["https://h.example/v2/a/b/blobs/"]}
    assert seen.target.endswith("?remote_url=https://h.example/v2/a/b/blobs/"), "as the reference sends it"


def test_who_is_not_in_the_answer_is_nobody(server, service):
    for auths in ({}, None, {"other": {"username": "x", "password": "y"}}):
        server.respond("/auth", lambda _seen, auths=auths: Answer(200, {}, reply(auths)))
        assert service.find("h.example", "a") is None


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (Answer(500), "it answers 500"),
        (Answer(200, {}, b"no"), "its answer is not what it should be"),
        (Answer(200, {}, b'{"success": "yes"}'), "its answer is not what it should be"),
        (Answer(200, {}, reply({}, success=False)), "it says that it did not succeed"),
    ],
)
def test_what_makes_no_sense_is_said(server, service, answer, sentence):
    server.respond("/auth", lambda _seen: answer)
    with pytest.raises(UnavailableError, match=sentence):
        service.find("h.example", "a")


def test_a_broken_entry_is_named_without_what_is_in_it(server, service):
    answer = Answer(200, {}, reply({"h.example": {"auth": "c2VjcmV0"}}))
    server.respond("/auth", lambda _seen: answer)
    with pytest.raises(FormatError, match=r"auths\['h.example'\].auth") as refused:
        service.find("h.example", "a")
    assert "c2VjcmV0" not in str(refused.value)


def test_one_that_does_not_answer_is_not_waited_for_longer_than_was_said(server):
    server.put("/auth", b"")
    server.fault("/auth", Delay(30, Status(200)))
    with pytest.raises(UnavailableError, match=r"not done within 0\.3 s"):
        web_service(f"{server.url}/auth", Transport(proxy=""), 0.3).find("h", "a")


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = reply({"127.0.0.1:5000": {"username": "anna", "password": "secret"}})
        is_right = self.path == "/auth?remote_url=http://127.0.0.1:5000/v2/a/blobs/"
        self.send_response(200 if is_right else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return "a socket"

    def log_message(self, *_: object) -> None:
        pass


def test_over_a_socket_of_this_machine(tmp_path):
    path = tmp_path / "socket"
    service = socket_service(path, TIMEOUT_S)
    with pytest.raises(UnavailableError, match=f"{path}: the service of passwords does not answer: No such"):
        service.find("127.0.0.1:5000", "a")
    with socketserver.UnixStreamServer(str(path), _Handler) as listening:
        thread = threading.Thread(target=listening.handle_request)
        thread.start()
        assert service.find("127.0.0.1:5000", "a") == ANNA
        thread.join()
