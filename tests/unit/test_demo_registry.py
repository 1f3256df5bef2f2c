"""The demo's registry: it wants the password, counts what it sends, and is gone afterwards."""

from __future__ import annotations

import base64
import socket
import urllib.error
import urllib.request

import pytest

from demo.processes import CommandError
from demo.registry import USER, Traffic, count, running_registry, settings, wait_until_listening

LOG = """\
127.0.0.1 - - [24/Nov/2026:13:00:00 +0000] "GET /v2/ HTTP/1.1" 401 87 "" "x"
127.0.0.1 - - [24/Nov/2026:13:00:00 +0000] "HEAD /v2/a/b/blobs/sha256:00 HTTP/1.1" 200 0 "" "x"
127.0.0.1 - - [24/Nov/2026:13:00:01 +0000] "GET /v2/a/b/blobs/sha256:00 HTTP/1.1" 206 65536 "" "x"
127.0.0.1 - - [24/Nov/2026:13:00:01 +0000] "GET /v2/a/b/blobs/sha256:01 HTTP/1.1" 200 10 "" "x"
127.0.0.1 - - [24/Nov/2026:13:00:02 +0000] "GET /mark-7 HTTP/1.1" 404 19 "" "x"
time="2026-11-24T13:00:02Z" level=error msg="GET /v2/ is told of elsewhere"
"""


def get(host: str, path: str, password: str = "") -> int:
    token = base64.b64encode(f"{USER}:{password}".encode()).decode()
    request = urllib.request.Request(f"http://{host}{path}", headers={"Authorization": f"Basic {token}"})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_the_log_is_summed_by_kind_and_marks_do_not_count():
    assert count(LOG) == Traffic(requests=4, blob_requests=2, blob_bytes=65546)


def test_traffic_is_counted_from_a_moment_on():
    assert Traffic(9, 5, 700) - Traffic(4, 2, 100) == Traffic(5, 3, 600)


def test_a_registry_wants_the_password_counts_and_ends(tmp_path):
    with running_registry(tmp_path / "registry") as registry:
        before = registry.traffic()
        assert get(registry.host, "/v2/", "wrong") == 401
        assert get(registry.host, "/v2/", registry._password) == 200
        assert get(registry.host, "/v2/demo/files/tags/list", registry._password) == 404
        assert registry.traffic() - before == Traffic(3, 0, 0)
    with pytest.raises(urllib.error.URLError):
        get(registry.host, "/v2/")


def test_the_password_is_kept_by_nobody_in_the_clear(tmp_path):
    with running_registry(tmp_path / "registry") as registry:
        get(registry.host, "/v2/", registry._password)
        files = [path for path in (tmp_path / "registry").rglob("*") if path.is_file()]
        assert not [path for path in files if registry._password.encode() in path.read_bytes()]


def test_a_registry_that_does_not_start_is_said_with_what_it_wrote(tmp_path):
    import json
    from subprocess import STDOUT, Popen

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        (tmp_path / "config.yml").write_text(json.dumps(settings(tmp_path, port)))
        (tmp_path / "htpasswd").touch()
        log = tmp_path / "log"
        command = ["docker-registry", "serve", str(tmp_path / "config.yml")]
        with log.open("wb") as output, Popen(command, stdout=output, stderr=STDOUT, text=True) as process:
            process.wait(20)
            with pytest.raises(CommandError, match=r"(?s)does not start.*address already in use"):
                wait_until_listening(port, process, log)
