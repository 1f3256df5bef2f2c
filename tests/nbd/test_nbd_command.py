"""``tcmu-overlaybd nbd`` as a command: its socket, its end, its exit codes."""

from __future__ import annotations

import signal
import socket
import stat
import threading
import time
from pathlib import Path

import pytest

from tests.nbd import raw_client
from tests.nbd.client import Client, PeerError
from tests.nbd.disks import DISK_SIZE, VECTORS
from tests.nbd.peer import data_of
from tests.nbd.serving import NbdProcess

EMPTY = VECTORS / "empty.config.v1.json"


def fails(*arguments: str | Path) -> tuple[int, str]:
    """Exit code and the one sentence."""
    code, stdout, stderr = NbdProcess(*arguments, ready=False).end()
    assert stdout == ""
    assert "Traceback" not in stderr
    return code, stderr


# -- the socket


def test_socket_is_private_and_gone_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "my socket"
    with NbdProcess(EMPTY, "--socket", path) as server:
        assert server.uri == f"nbd+unix:///?socket={tmp_path}/my%20socket"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with Client(server.uri) as client:
            assert client.facts()["get_size"] == 1 << 20
    assert not path.exists()


def test_without_socket_it_lies_in_a_private_folder_that_goes_away() -> None:
    with NbdProcess(EMPTY) as server:
        folder = server.socket.parent
        assert folder.parent == server.folder
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert server.left == []


def test_socket_of_a_killed_server_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    NbdProcess(EMPTY, "--socket", path).kill()
    assert path.is_socket()
    with NbdProcess(EMPTY, "--socket", path) as server, Client(server.uri) as client:
        client.facts()


def test_socket_of_a_living_server_is_busy(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with NbdProcess(EMPTY, "--socket", path) as server:
        code, sentence = fails(EMPTY, "--socket", path)
        assert (code, sentence) == (1, f"tcmu-overlaybd: {path}: another server listens there\n")
        with Client(server.uri) as client:
            client.facts()


def test_a_file_at_the_socket_s_path_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("mine")
    code, sentence = fails(EMPTY, "--socket", path)
    assert code == 1
    assert "not a socket" in sentence
    assert path.read_text() == "mine"


@pytest.mark.parametrize(
    ("path", "code", "part"), [("/no/such/folder/socket", 3, "No such file"), ("/tmp/" + "x" * 110, 2, "107")]
)
def test_an_impossible_socket_is_one_sentence(path: str, code: int, part: str) -> None:
    found, sentence = fails(EMPTY, "--socket", path)
    assert found == code
    assert part in sentence


def test_a_start_that_fails_leaves_no_upper(tmp_path: Path) -> None:
    code, _ = fails(EMPTY, "--writable", "--upper", tmp_path / "upper", "--socket", "/no/such/folder/socket")
    assert code == 3
    assert not (tmp_path / "upper").exists()


# -- --run


@pytest.mark.parametrize(
    ("command", "code"), [("true", 0), ("exit 7", 7), ("kill -9 $$", 137), ("/no/such/program", 127)]
)
def test_run_gives_its_command_s_exit_code(command: str, code: int) -> None:
    assert NbdProcess(EMPTY, "--run", command, ready=False).end()[0] == code


def test_run_leaves_stdout_to_its_command() -> None:
    server = NbdProcess(EMPTY, "--run", 'echo "$uri"; nbdcopy "$uri" - | wc -c', ready=False)
    code, stdout, stderr = server.end()
    assert code == 0, stderr
    uri, size = stdout.splitlines()
    assert uri.startswith("nbd+unix:///?socket=/")
    assert size == str(1 << 20)


def test_run_is_ended_by_a_signal_to_us() -> None:
    server = NbdProcess(EMPTY, "--run", "echo ready; exec sleep 100", ready=False)
    assert not server.read_uri()
    started = time.monotonic()
    code, _, _ = server.stop()
    assert code == 128 + signal.SIGTERM
    assert time.monotonic() - started < 30


# -- the end


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_under_load_ends_it_with_all_that_was_acknowledged_flushed(
    upper_of: list[str], number: int
) -> None:
    """The journal is off, so only what was flushed is there afterwards."""
    environment = {"TCMU_OVERLAYBD_TEST_NO_JOURNAL": "1", "TCMU_OVERLAYBD_TEST_FLUSH_INTERVAL_MS": "0"}
    server = NbdProcess(*upper_of, environment=environment)
    acknowledged = []

    def write() -> None:
        with Client(server.uri) as client:
            try:
                for i in range(DISK_SIZE // 4096):
                    client.write(i * 4096, 4096, i + 1)
                    acknowledged.append(i)
            except PeerError:
                return

    writer = threading.Thread(target=write)
    writer.start()
    while len(acknowledged) < 50:
        time.sleep(0.01)
    server.signal(number)
    code, _, stderr = server.end()
    writer.join(30)
    assert code == 0, stderr
    assert server.left == []
    with NbdProcess(*upper_of) as server, Client(server.uri) as client:
        for i in acknowledged:
            assert client.read_hex(i * 4096, 4096) == data_of(i + 1, 4096).hex()


def test_clients_that_linger_do_not_keep_it_from_ending() -> None:
    server = NbdProcess(EMPTY)
    silent = raw_client.connect(server.socket)
    idle = raw_client.shake_hands(server.socket)
    lazy = raw_client.shake_hands(server.socket)
    for cookie in range(16):
        raw_client.ask(lazy, raw_client.READ, cookie, 0, 1 << 20)
    started = time.monotonic()
    code, _, stderr = server.stop()
    assert code == 0, stderr
    assert time.monotonic() - started < 30
    with pytest.raises((EOFError, ConnectionResetError)):
        raw_client.receive(idle, 1)
    for client in (silent, idle, lazy):
        client.close()


def test_a_second_signal_does_not_cut_the_end_short(upper_of: list[str]) -> None:
    server = NbdProcess(*upper_of, environment={"TCMU_OVERLAYBD_TEST_NO_JOURNAL": "1"})
    with Client(server.uri) as client:
        client.write(0, 4096, 1)
        for _ in range(5):
            server.signal(signal.SIGINT)
        code, _, stderr = server.end()
    assert code == 0, stderr
    with NbdProcess(*upper_of) as server, Client(server.uri) as client:
        assert client.read_hex(0, 4096) == data_of(1, 4096).hex()


# -- hostile clients


def test_a_client_too_many_is_refused_and_the_others_go_on() -> None:
    with NbdProcess(EMPTY) as server:
        clients = [raw_client.shake_hands(server.socket) for _ in range(64)]
        with pytest.raises((EOFError, OSError)):
            raw_client.shake_hands(server.socket)
        for client in clients:
            raw_client.ask(client, raw_client.READ, 5, 0, 512)
            assert raw_client.receive(client, 16 + 512)[8:16] == (5).to_bytes(8, "big")
            client.close()


def test_garbage_hurts_its_own_connection_only() -> None:
    with NbdProcess(EMPTY) as server:
        honest = raw_client.shake_hands(server.socket)
        for garbage in (
            b"GET / HTTP/1.1\r\n\r\n",
            b"\0\0\0\3IHAVEOPT\0\0\0\7\xff\xff\xff\xff",
            b"\0\0\0\3" * 99,
        ):
            liar = raw_client.connect(server.socket)
            raw_client.receive(liar, 18)
            liar.sendall(garbage)
            with pytest.raises((EOFError, ConnectionResetError)):
                raw_client.receive(liar, 1)
        raw_client.ask(honest, raw_client.READ, 5, 0, 512)
        assert len(raw_client.receive(honest, 16 + 512)) == 16 + 512


def test_connections_come_and_go_without_leaving_anything(tmp_path: Path) -> None:
    with NbdProcess(EMPTY) as server:
        fds = Path(f"/proc/{server.pid}/fd")
        raw_client.shake_hands(server.socket).close()
        before = len(list(fds.iterdir()))
        for _ in range(200):
            raw_client.shake_hands(server.socket).close()
        deadline = time.monotonic() + 10
        while len(list(fds.iterdir())) > before and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(list(fds.iterdir())) <= before


# -- what cannot be served


def test_sources_that_cannot_be_served_end_in_a_sentence_and_their_code(tmp_path: Path) -> None:
    broken = tmp_path / "broken.lsmt"
    broken.write_bytes((VECTORS / "commit" / "raw.lsmt").read_bytes()[:-1])
    assert fails(tmp_path / "nothing.json")[0] == 3
    assert fails(broken)[0] == 5
    assert fails(EMPTY, "--upper", tmp_path / "upper")[0] == 2
    assert fails(EMPTY, "--writable")[0] == 2
    assert fails()[0] == 2


def test_an_upper_that_another_process_holds_is_busy_and_names_it(upper_of: list[str]) -> None:
    with NbdProcess(*upper_of) as server:
        code, sentence = fails(*upper_of)
        assert code == 1
        assert f"tcmu-overlaybd nbd, pid {server.pid}" in sentence


def test_a_socket_left_half_open_is_not_taken_for_a_living_server(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as bound:
        bound.bind(str(path))  # and never listens
        with NbdProcess(EMPTY, "--socket", path):
            pass
