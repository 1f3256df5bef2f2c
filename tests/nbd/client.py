"""The test's end of peer.py: libnbd connections in a process of their own."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, Self

PEER = Path(__file__).with_name("peer.py")


class PeerError(Exception):
    """The server said no, or went away (errno 107 and the like)."""

    def __init__(self, errno: int, text: str) -> None:
        super().__init__(text)
        self.errno = errno


class Client:
    """``client.write(offset, length, seed)``, ``client.flush(connection=1)``, ...: see peer.py."""

    def __init__(self, uri: str) -> None:
        self._process = subprocess.Popen(
            ["/usr/bin/python3", str(PEER), uri], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def ask(self, operation: str, *arguments: Any, connection: int = 0) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([connection, operation, *arguments]).encode() + b"\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        if isinstance(answer, dict) and "errno" in answer:
            raise PeerError(answer["errno"], answer["error"])
        return answer

    def __getattr__(self, operation: str) -> Any:
        return lambda *arguments, connection=0: self.ask(operation, *arguments, connection=connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)
        assert self._process.stdout is not None
        self._process.stdout.close()
