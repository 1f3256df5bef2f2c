"""What a process did to the files of a folder, in order: an event for each call that changed one.

The test build of the extension writes the tape (csrc/base/record_file.c); a trace of strace
gives the same events without a hook (tests/fault/system_calls.py).
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

KINDS = {1: "write", 2: "sync", 3: "truncate", 4: "punch", 5: "create", 6: "rename", 7: "remove"}
HEAD = struct.Struct("=IIIIQ")


@dataclass(frozen=True)
class Event:
    """kind is one of KINDS, or answer: the process told of a finished call."""

    kind: str
    path: str = ""
    offset: int = 0  # of a write or a punch; the new size of a truncate
    data: bytes = b""
    to: str = ""  # of a rename


def read_tape(tape: Path, answers: Iterable[int] = ()) -> list[Event]:
    """The events; answers are the lengths that the tape had when the process told of finished calls."""
    content = tape.read_bytes()
    events: list[Event] = []
    told = deque(answers)
    begin = 0
    while begin < len(content) or told:
        if told and told[0] <= begin:
            told.popleft()
            events.append(Event("answer"))
            continue
        kind, *lengths, offset = HEAD.unpack_from(content, begin)
        begin += HEAD.size
        path, to, data = _parts(content, begin, lengths)
        begin += sum(lengths)
        events.append(Event(KINDS[kind], path.decode(), offset, data, to.decode()))
    return events


def _parts(content: bytes, begin: int, lengths: list[int]) -> list[bytes]:
    parts = []
    for length in lengths:
        parts.append(content[begin : begin + length])
        begin += length
    return parts
