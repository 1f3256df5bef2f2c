"""What an NBD server did, as strace saw it: requests, replies and syncs, in order.

Times are line numbers of the log.  A call that others interrupted is in two lines
(``<unfinished ...>``, ``<... resumed>``); it began at the first and ended at the second.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import Path

# -D: the server stays the child of the test, and gets its signals.
CALLS = "recvmsg,sendmsg,fdatasync,fsync"
OPTIONS = ("-D", "-f", "-qq", "-y", "-xx", "-s", "200000", "-e", f"trace={CALLS}")

WRITE, FLUSH = 1, 3
FUA = 1

_LINE = re.compile(r"^(\d+) +(.*)$")
_CALL = re.compile(r"^(\w+)\((\d+)<([^>]*)>(.*)$", re.DOTALL)
_RESUMED = re.compile(r"^<\.\.\. (\w+) resumed>(.*)$", re.DOTALL)
_RESULT = re.compile(r"= (-?\d+)(?: .*)?$")
_BASE = re.compile(r'iov_base="((?:\\x[0-9a-f]{2})*)"')


@dataclass
class Call:
    name: str
    target: str  # what the descriptor is: a path, or socket:[inode]
    text: str
    began: int
    ended: int = -1

    @property
    def result(self) -> int:
        found = _RESULT.search(self.text)
        return int(found[1]) if found else -1

    @property
    def payload(self) -> bytes:
        """The bytes that went over the socket."""
        return b"".join(unescape(part) for part in _BASE.findall(self.text))[: max(self.result, 0)]


@dataclass
class Request:
    """One request of a client; ``answered`` is when the call that sent the reply began."""

    connection: str
    cookie: int
    kind: int
    flags: int
    received: int
    answered: int = -1


@dataclass
class Sync:
    path: str
    began: int
    ended: int


def unescape(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


def read_calls(log: Path) -> list[Call]:
    """All calls, in the order in which they ended."""
    unfinished: dict[str, Call] = {}
    calls = []
    for number, line in enumerate(log.read_text().splitlines()):
        thread, text = _LINE.match(line).groups()  # type: ignore[union-attr]
        if resumed := _RESUMED.match(text):
            call = unfinished.pop(thread)
            call.text += resumed[2]
        elif begun := _CALL.match(text):
            call = Call(begun[1], unescape(begun[3]).decode(), begun[4], number)
            if text.endswith("<unfinished ...>"):
                unfinished[thread] = call
                continue
        else:
            continue  # a signal, an exit
        call.ended = number
        calls.append(call)
    return calls


def syncs_of(calls: list[Call]) -> list[Sync]:
    """Those that succeeded."""
    return [
        Sync(call.target, call.began, call.ended)
        for call in calls
        if call.name in ("fdatasync", "fsync") and call.result == 0
    ]


def requests_of(calls: list[Call]) -> list[Request]:
    """Every WRITE and FLUSH, with its reply; the log must hold no other kinds but DISC."""
    streams: dict[str, bytearray] = {}
    requests: dict[tuple[str, int], Request] = {}
    for call in calls:
        if call.name == "recvmsg":
            stream = streams.setdefault(call.target, bytearray())
            stream += call.payload
            for request in take_requests(stream, call):
                requests[call.target, request.cookie] = request
        elif call.name == "sendmsg":
            for cookie in reply_cookies(call.payload):
                requests[call.target, cookie].answered = call.began
    return list(requests.values())


def take_requests(stream: bytearray, call: Call) -> list[Request]:
    """Those that are complete in stream, which keeps the rest."""
    found = []
    while len(stream) >= 28:
        _, flags, kind, cookie, _, length = struct.unpack_from(">IHHQQI", stream)
        size = 28 + (length if kind == WRITE else 0)
        if len(stream) < size:
            break
        del stream[:size]
        if kind in (WRITE, FLUSH):
            found.append(Request(call.target, cookie, kind, flags, call.ended))
    return found


def reply_cookies(payload: bytes) -> list[int]:
    """Of simple replies without an error; anything else is not expected in such a log."""
    cookies = []
    for magic, error, cookie in struct.iter_unpack(">IIQ", payload):
        assert (magic, error) == (0x67446698, 0)
        cookies.append(cookie)
    return cookies
