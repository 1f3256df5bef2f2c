"""One daemon's way to its successor, with small programs in the successor's place."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time

import pytest

from tcmu_overlaybd.daemon import hand_over
from tcmu_overlaybd.daemon.hand_over import VARIABLE, Handed, HandOver
from tcmu_overlaybd.errors import BusyError

PREPARED = """
import os, sys, time
from tcmu_overlaybd.daemon.hand_over import VARIABLE, Handed
handed = Handed.of_environment()
assert VARIABLE not in os.environ
assert not os.get_inheritable(handed.listener.fileno())
handed.say_prepared()
connection, _ = handed.listener.accept()
connection.sendall(b"successor")
"""


@pytest.fixture
def listener(tmp_path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.listen()
        yield listener


@pytest.fixture
def make(listener):
    """A HandOver to a Python program, and what it did, in order."""

    def make(code: str) -> tuple[HandOver, list[str], threading.Event]:
        done, ended = [], threading.Event()
        made = HandOver(listener, lambda: done.append("flush"), [sys.executable, "-c", code])
        made.end = lambda: (done.append("end"), ended.set())
        return made, done, ended

    return make


def wait_for_failure(made: HandOver) -> str:
    deadline = time.monotonic() + 60
    while made.status().state != "failed":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return made.status().reason


def test_successor_is_prepared_and_has_the_socket_before_anything_ends(make, listener):
    made, done, ended = make(PREPARED)
    begun = made.begin()
    assert (begun.pid, begun.state) == (os.getpid(), "preparing")
    assert ended.wait(60)
    assert made.is_leaving
    assert made.status().successor > 0
    assert done == ["flush", "end"]
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(60)
        client.connect(listener.getsockname())
        assert client.recv(100) == b"successor"


def test_successor_that_ends_is_a_failure_and_nothing_else_happens(make):
    made, done, _ = make("raise SystemExit(1)")
    made.begin()
    assert "ended before it could take over" in wait_for_failure(made)
    assert done == []
    assert not made.is_leaving


def test_successor_that_says_nothing_is_killed(make, monkeypatch):
    monkeypatch.setattr(hand_over, "PREPARE_TIMEOUT_S", 0.3)
    made, done, _ = make("import time; time.sleep(600)")
    made.begin()
    while (successor := made.status().successor) == 0:
        time.sleep(0.01)
    assert "is not prepared after" in wait_for_failure(made)
    assert done == []
    with pytest.raises(ChildProcessError):
        os.waitpid(successor, os.WNOHANG)  # it is gone, and was waited for


def test_program_that_is_not_there_is_a_failure(listener):
    made = HandOver(listener, lambda: None, ["/does/not/exist"])
    made.begin()
    assert "/does/not/exist" in wait_for_failure(made)


def test_one_upgrade_at_a_time_and_another_after_a_failure(make):
    made, _, _ = make("import time; time.sleep(1); raise SystemExit(1)")
    made.begin()
    with pytest.raises(BusyError, match="under way already"):
        made.begin()
    wait_for_failure(made)
    assert made.begin().state == "preparing"
    wait_for_failure(made)


@pytest.mark.parametrize("value", [None, "", "3", "3:", "a:b", ":4"])
def test_daemon_started_as_usual_was_handed_nothing(value):
    assert Handed.of_environment({} if value is None else {VARIABLE: value}) is None
