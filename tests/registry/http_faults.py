"""Answers of a server, and the ways in which one may be spoilt; see scripted_server.py."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from tests.registry.scripted_server import Handler

STALL_S = 60.0  # a stalled answer ends at the latest after this


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


class Fault:
    """Replaces or spoils one answer.  ``truth`` is what a good server would say."""

    def answer(self, handler: Handler, truth: Answer) -> None:
        raise NotImplementedError


@dataclass(frozen=True)
class Status(Fault):
    """That status instead, with headers and body."""

    code: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def answer(self, handler: Handler, truth: Answer) -> None:
        handler.send(Answer(self.code, self.headers, self.body))


def too_many(retry_after: str) -> Status:
    return Status(429, {"Retry-After": retry_after})


def unauthorized(challenge: str) -> Status:
    return Status(401, {"WWW-Authenticate": challenge})


def redirect(location: str, code: int = 307) -> Status:
    return Status(code, {"Location": location})


@dataclass(frozen=True)
class Delay(Fault):
    """The truth, or another fault, after a pause."""

    seconds: float
    then: Fault | None = None

    def answer(self, handler: Handler, truth: Answer) -> None:
        handler.scripted.stopping.wait(self.seconds)
        if self.then is None:
            handler.send(truth)
        else:
            self.then.answer(handler, truth)


@dataclass(frozen=True)
class IgnoreRange(Fault):
    """200 and the whole body to a ranged GET."""

    def answer(self, handler: Handler, truth: Answer) -> None:
        whole = handler.scripted.content(handler.path_only) or truth
        handler.send(Answer(200, {}, whole.body))


@dataclass(frozen=True)
class WrongRange(Fault):
    """206 whose Content-Range lies: moved by ``shift`` bytes, or ``text`` as it stands; "" for none."""

    shift: int = 0
    text: str | None = None

    def answer(self, handler: Handler, truth: Answer) -> None:
        headers = dict(truth.headers)
        said = headers.pop("Content-Range", "")
        if self.text is None:
            said = re.sub(r"\d+(?=[-/])", lambda number: str(int(number[0]) + self.shift), said)
        else:
            said = self.text
        handler.send(Answer(206, headers | ({"Content-Range": said} if said else {}), truth.body))


@dataclass(frozen=True)
class ShortRange(Fault):
    """An honest 206 of fewer bytes than were asked for."""

    length: int

    def answer(self, handler: Handler, truth: Answer) -> None:
        match = re.match(r"bytes (\d+)-\d+/(\d+)", truth.headers.get("Content-Range", ""))
        assert match, "a ShortRange needs a ranged request"
        first = int(match[1])
        said = f"bytes {first}-{first + self.length - 1}/{match[2]}"
        handler.send(Answer(206, {"Content-Range": said}, truth.body[: self.length]))


@dataclass(frozen=True)
class OtherBytes(Fault):
    """Everything right but one byte of the body, and each that is a multiple of step behind it."""

    at: int = 0
    step: int = 1 << 40

    def answer(self, handler: Handler, truth: Answer) -> None:
        body = bytearray(truth.body)
        for place in range(self.at, len(body), self.step):
            body[place] ^= 0xFF
        handler.send(Answer(truth.status, truth.headers, bytes(body)))


@dataclass(frozen=True)
class Cut(Fault):
    """The connection ends after that many bytes of the body; ``reset`` sends an RST instead of a FIN."""

    after: int = 0
    reset: bool = False

    def answer(self, handler: Handler, truth: Answer) -> None:
        handler.send_head(truth)
        handler.wfile.write(truth.body[: self.after])
        handler.hang_up(reset=self.reset)


@dataclass(frozen=True)
class HangUp(Fault):
    """No answer at all, the connection ends."""

    reset: bool = False

    def answer(self, handler: Handler, truth: Answer) -> None:
        handler.hang_up(reset=self.reset)


@dataclass(frozen=True)
class Stall(Fault):
    """The head and ``after`` bytes of the body, then nothing more; -1: not even the head."""

    after: int = -1

    def answer(self, handler: Handler, truth: Answer) -> None:
        if self.after >= 0:
            handler.send_head(truth)
            handler.wfile.write(truth.body[: self.after])
            handler.wfile.flush()
        handler.scripted.stopping.wait(STALL_S)
        handler.hang_up()


@dataclass(frozen=True)
class Slow(Fault):
    """The truth in small steps; ``head_too`` drips the head as well, a byte a step."""

    step: int = 1
    pause_s: float = 0.05
    head_too: bool = False

    def answer(self, handler: Handler, truth: Answer) -> None:
        if self.head_too:
            self._drip(handler, handler.head_of(truth), 1)
        else:
            handler.send_head(truth)
        self._drip(handler, truth.body, self.step)

    def _drip(self, handler: Handler, data: bytes, step: int) -> None:
        for begin in range(0, len(data), step):
            handler.wfile.write(data[begin : begin + step])
            handler.wfile.flush()
            if handler.scripted.stopping.wait(self.pause_s):
                return


@dataclass(frozen=True)
class Endless(Fault):
    """200 and zeros until the other end has had enough, or ``limit`` bytes; no Content-Length."""

    limit: int = 1 << 30
    BLOCK: ClassVar[bytes] = bytes(1 << 16)

    def answer(self, handler: Handler, truth: Answer) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        for _ in range(0, self.limit, len(self.BLOCK)):
            handler.wfile.write(self.BLOCK)
        handler.hang_up()


@dataclass(frozen=True)
class Garbage(Fault):
    """What is no HTTP."""

    data: bytes = b"SSH-2.0-OpenSSH_9.2\r\n"

    def answer(self, handler: Handler, truth: Answer) -> None:
        handler.wfile.write(self.data)
        handler.hang_up()
