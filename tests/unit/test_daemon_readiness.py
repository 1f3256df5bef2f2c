"""What systemd is told, and what it gives."""

import os
import socket
import subprocess
import sys

from tcmu_overlaybd.daemon.readiness import inherited_socket, notify, watchdog_interval


def test_notify_sends_to_the_socket_that_systemd_names(tmp_path):
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(path)
        receiver.settimeout(10)
        notify("READY=1", {"NOTIFY_SOCKET": path})
        assert receiver.recv(100) == b"READY=1"


def test_notify_without_systemd_or_with_a_dead_one_is_silent(tmp_path):
    notify("READY=1", {})
    notify("READY=1", {"NOTIFY_SOCKET": str(tmp_path / "gone")})


def test_watchdog_is_fed_twice_in_its_time():
    assert watchdog_interval({"WATCHDOG_USEC": "3000000"}) == 1.5
    assert watchdog_interval({}) is None
    assert watchdog_interval({"WATCHDOG_USEC": "0"}) is None
    assert watchdog_interval({"WATCHDOG_USEC": "soon"}) is None


def test_socket_meant_for_another_process_is_not_taken():
    assert inherited_socket({}) is None
    assert inherited_socket({"LISTEN_PID": "1", "LISTEN_FDS": "1"}) is None


def test_socket_of_a_socket_unit_is_taken_and_not_passed_on(tmp_path):
    code = """
import os
from tcmu_overlaybd.daemon.readiness import inherited_socket
taken = inherited_socket({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"})
print(taken.getsockname(), os.get_inheritable(taken.fileno()))
"""
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        os.dup2(listener.fileno(), 100)
        command = f'exec {sys.executable} -c "$0" 3<&{100}'
        result = subprocess.run(
            ["bash", "-c", command, code], pass_fds=[100], capture_output=True, text=True, check=True
        )
        os.close(100)
    assert result.stdout.split() == [path, "False"]
