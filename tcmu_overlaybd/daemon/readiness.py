"""systemd's side of the daemon: readiness, watchdog, and a socket that it holds for us."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

FIRST_FD = 3  # sd_listen_fds(3)


def notify(message: str, environment: Mapping[str, str] = os.environ) -> None:
    """Sends ``READY=1`` and the like, when somebody asked for it; never fails."""
    address = environment.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):  # an abstract name
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        try:
            sender.sendto(message.encode(), address)
        except OSError:
            return  # whoever asked is gone; nothing depends on it


def watchdog_interval(environment: Mapping[str, str] = os.environ) -> float | None:
    """Seconds between signs of life: half of what the watchdog allows; None without one."""
    micros = environment.get("WATCHDOG_USEC", "")
    return int(micros) / 2e6 if micros.isdecimal() and int(micros) else None


def inherited_socket(environment: Mapping[str, str] = os.environ) -> socket.socket | None:
    """The listening socket that a socket unit made; None when we make our own."""
    if environment.get("LISTEN_PID") != str(os.getpid()) or environment.get("LISTEN_FDS") != "1":
        return None
    os.set_inheritable(FIRST_FD, False)
    return socket.socket(fileno=FIRST_FD)
