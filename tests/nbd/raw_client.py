"""An NBD client in a few lines, for what no library would do."""

from __future__ import annotations

import socket
import struct
from pathlib import Path

READ = 0


def connect(path: Path) -> socket.socket:
    """A connection on which nothing has been said yet."""
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(30)
    client.connect(str(path))
    return client


def shake_hands(path: Path) -> socket.socket:
    """A connection in the transmission phase, with simple replies."""
    client = connect(path)
    receive(client, 18)
    client.sendall(struct.pack(">I", 3) + b"IHAVEOPT" + struct.pack(">II", 1, 0))
    receive(client, 10)
    return client


def ask(client: socket.socket, kind: int, cookie: int, offset: int, length: int) -> None:
    client.sendall(struct.pack(">IHHQQI", 0x25609513, 0, kind, cookie, offset, length))


def receive(client: socket.socket, length: int) -> bytes:
    """Raises EOFError when the server hangs up first."""
    found = b""
    while len(found) < length:
        part = client.recv(length - len(found))
        if not part:
            raise EOFError(f"the server hung up after {len(found)} of {length} bytes")
        found += part
    return found
