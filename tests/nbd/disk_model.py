"""What a disk must hold after a crash: a model that runs beside the real one."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass, field
from typing import Any

from tests.nbd.client import Client, PeerError
from tests.nbd.disks import DISK_SIZE
from tests.nbd.peer import data_of

Operation = list[Any]  # as peer.py takes it


@dataclass
class DiskModel:
    """``content`` is what was acknowledged, ``flushed`` what was at the last flush.

    ``pending`` is set while an operation has no answer yet: how the disk looks when
    it was done all the same.
    """

    content: bytes = bytes(DISK_SIZE)
    flushed: bytes = bytes(DISK_SIZE)
    pending: bytes | None = None
    nr_done: int = field(default=0, compare=False)

    def run(self, client: Client, operations: list[Operation]) -> None:
        """Ends early, with ``pending`` set, when the server dies."""
        for operation in operations:
            self.pending = after(self.content, operation)
            client.ask(*operation)
            self.content, self.pending = self.pending, None
            self.nr_done += 1
            if operation[0] == "flush" or "fua" in operation:
                self.flushed = self.content

    def run_until_death(self, client: Client, operations: list[Operation]) -> bool:
        """Whether the server died of it."""
        try:
            self.run(client, operations)
        except PeerError as error:
            if error.errno in ANSWERS:
                raise
            return True
        return False

    def allowed(self) -> dict[str, str]:
        """SHA-256 of every state that is right now: the last operation is done or not, never half."""
        states = {"acknowledged": self.content}
        if self.pending is not None:
            states["and the unanswered one"] = self.pending
        return {hashlib.sha256(state).hexdigest(): name for name, state in states.items()}


# errno values that only an answer of the server brings; a dead server is ENOTCONN and the like.
ANSWERS = (1, 5, 12, 22, 28, 95)


def after(content: bytes, operation: Operation) -> bytes:
    name, *arguments = operation
    if name == "flush":
        return content
    offset, length = arguments[0], arguments[1]
    data = data_of(arguments[2], length) if name == "write" else bytes(length)
    return content[:offset] + data + content[offset + length :]


def some_operations(seed: int, number: int) -> list[Operation]:
    """Overlapping writes, discards and flushes, reproducible; every tenth is a flush."""
    choose = random.Random(seed)
    operations: list[Operation] = []
    for i in range(1, number + 1):
        offset = choose.randrange(0, 1 << 20, 512)
        length = choose.choice([512, 1024, 4096, 65536])
        kind = choose.choice(["write", "write", "write", "trim", "zero"])
        fua = ["fua"] if choose.random() < 0.1 else []
        seeds = [choose.randrange(1, 1 << 30)] if kind == "write" else []
        operations.append(["flush"] if i % 10 == 0 else [kind, offset, length, *seeds, *fua])
    return operations
