"""Both ends of the control socket, over a real socket, with a stand-in for the devices."""

import socket
import stat
import threading
import time

import pytest

from tcmu_overlaybd import errors
from tcmu_overlaybd.daemon import control
from tcmu_overlaybd.daemon.client import Client
from tcmu_overlaybd.daemon.messages import (
    AttachRequest,
    CacheStatus,
    DetachRequest,
    DeviceList,
    DeviceStatus,
    Failure,
    Version,
)

KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, errors.OverlayBDError)
]


class Devices:
    """An Api that remembers: a device named "dead" waits until told, "kind-X" raises X."""

    def __init__(self):
        self.known = {}
        self.release = threading.Event()

    def version(self):
        return Version(1, "0", 7)

    def devices(self):
        return DeviceList(tuple(self.known.values()))

    def status(self, name):
        if name not in self.known:
            raise errors.MissingError(f"{name}: no such device")
        return self.known[name]

    def cache(self):
        return CacheStatus("/cache", True, 100, used_bytes=64, evicted=3)

    def attach(self, request):
        if request.name == "dead":
            self.release.wait(60)
        if request.name.startswith("kind-"):
            raise getattr(errors, request.name.removeprefix("kind-"))("the sentence")
        if request.name == "fault":
            raise ZeroDivisionError("oh")
        self.known[request.name] = DeviceStatus(request.name, "ready", source=request.source)
        return self.known[request.name]

    def detach(self, name, request):
        status = self.status(name)
        if not request.force:
            raise errors.BusyError(f"{name}: in use")
        del self.known[name]
        return status


@pytest.fixture
def devices():
    return Devices()


@pytest.fixture
def client(tmp_path, devices):
    path = tmp_path / "control.socket"
    server = control.ControlServer(control.listen(path), devices)
    server.start()
    yield Client(path)
    devices.release.set()
    server.stop()


def test_attach_status_list_detach_go_over_the_socket(client):
    made = client.attach(AttachRequest(name="a", source=("/ä", "/b c")))
    assert made == client.status("a")
    assert client.devices() == (made,)
    assert made.source == ("/ä", "/b c")
    assert client.detach("a", DetachRequest(force=True)) == made
    assert client.devices() == ()
    assert client.version().pid == 7
    assert client.cache() == CacheStatus("/cache", True, 100, used_bytes=64, evicted=3)


@pytest.mark.parametrize("kind", KINDS)
def test_every_exception_arrives_as_what_it_was(client, kind):
    with pytest.raises(kind, match="the sentence") as caught:
        client.attach(AttachRequest(name=f"kind-{kind.__name__}"))
    assert type(caught.value) is kind


def test_fault_of_the_daemon_is_a_failure_and_not_a_dead_connection(client):
    with pytest.raises(errors.FailedError, match="a fault in the daemon: ZeroDivisionError: oh"):
        client.attach(AttachRequest(name="fault"))


def test_failure_of_an_unknown_kind_is_a_plain_failure():
    assert type(Failure("NoSuchError", "x").exception()) is errors.FailedError
    assert type(Failure("annotations", "x").exception()) is errors.FailedError


def test_attach_that_waits_delays_no_other(client):
    dead = threading.Thread(target=client.attach, args=(AttachRequest(name="dead"),))
    dead.start()
    for i in range(20):
        client.attach(AttachRequest(name=f"d{i}"))
    assert dead.is_alive()
    assert len(client.devices()) == 20


def test_unknown_request_is_not_found(client):
    with pytest.raises(errors.MissingError, match="no such request"):
        client.status("a/b")


def test_request_that_does_not_fit_names_the_key(client):
    with pytest.raises(errors.UsageError, match="timeout"):
        client.attach(AttachRequest(name="a", timeout=-1))


def raw(client, text):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30)
        connection.connect(str(client.path))
        connection.sendall(text)
        return connection.recv(65536)


def test_body_without_bound_is_refused(client):
    answer = raw(client, b"POST /v1/devices HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")


def test_garbage_gets_an_answer_and_the_server_goes_on(client):
    assert b"400" in raw(client, b"\x00\x01 rubbish\r\n\r\n")
    assert client.devices() == ()


def test_client_that_sends_nothing_is_cut_off(client, monkeypatch):
    monkeypatch.setattr(control.ControlHandler, "timeout", 0.2)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30)
        connection.connect(str(client.path))
        assert connection.recv(1) == b""


def test_more_connections_than_there_is_room_for_are_closed(tmp_path, devices, monkeypatch):
    monkeypatch.setattr(control.ControlServer, "max_connections", 1)
    path = tmp_path / "s"
    server = control.ControlServer(control.listen(path), devices)
    server.start()
    try:
        dead = threading.Thread(target=Client(path).attach, args=(AttachRequest(name="dead"),))
        dead.start()
        time.sleep(0.2)
        with pytest.raises(errors.UnavailableError):
            Client(path).version()
        devices.release.set()
        dead.join(30)
    finally:
        server.stop()


def test_socket_is_for_owner_and_group(client):
    assert stat.S_IMODE(client.path.stat().st_mode) == 0o660


def test_socket_of_a_dead_daemon_is_replaced(tmp_path):
    path = tmp_path / "s"
    control.listen(path).close()
    assert path.exists()
    control.listen(path).close()


def test_socket_with_a_path_too_long_is_a_usage_error(tmp_path):
    with pytest.raises(errors.UsageError, match="107 bytes"):
        control.listen(tmp_path / ("x" * 120))


def test_without_a_daemon_the_client_says_how_to_start_one(tmp_path):
    with pytest.raises(errors.UnavailableError, match="start it with: tcmu-overlaybd serve"):
        Client(tmp_path / "nothing").devices()
    control.listen(tmp_path / "dead").close()
    with pytest.raises(errors.UnavailableError, match="start it with: tcmu-overlaybd serve"):
        Client(tmp_path / "dead").devices()


def test_daemon_that_does_not_answer_is_a_time_out(tmp_path):
    with control.listen(tmp_path / "s"), pytest.raises(errors.TimeoutExpiredError, match="does not answer"):
        Client(tmp_path / "s").version(timeout=0.2)


def test_something_else_behind_the_socket_is_said(tmp_path):
    with control.listen(tmp_path / "s") as listener:

        def answer():
            with listener.accept()[0] as connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno")

        other = threading.Thread(target=answer)
        other.start()
        with pytest.raises(errors.UnavailableError, match="no daemon of ours"):
            Client(tmp_path / "s").version()
        other.join()
