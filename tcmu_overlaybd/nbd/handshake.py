"""The server's side of the NBD handshake, without any I/O.

``negotiate`` is a generator.  It yields either bytes to send to the client, or the
number of bytes it wants to have received next, and is sent exactly those; so it
never holds a byte of the transmission phase, and a hostile client is tested
without a socket.  Its return value is what was agreed, or None when the client
said goodbye; a client that breaks the protocol in a way that cannot be answered
raises ``ProtocolError``.

    greeting -> client flags -> option, reply, option, reply, ... -> GO | EXPORT_NAME | ABORT

What a client can make us keep is bounded: MAX_OPTION_LENGTH bytes of one option,
MAX_OPTIONS options.  How long it may take is for whoever drives the generator.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Generator
from dataclasses import dataclass

from tcmu_overlaybd.errors import FailedError
from tcmu_overlaybd.nbd.protocol import (
    BASE_ALLOCATION,
    BASE_ALLOCATION_ID,
    GREETING_MAGIC,
    MAX_STRING,
    OPTION_MAGIC,
    REPLY_MAGIC,
    ExportFlag,
    HandshakeFlag,
    Info,
    Option,
    Reply,
)

MAX_OPTION_LENGTH = 64 * 1024
MAX_OPTIONS = 64

ALWAYS_TOLD = (Info.EXPORT, Info.BLOCK_SIZE)
MIN_BLOCK = 512
PREFERRED_BLOCK = 4096
MAX_PAYLOAD = 32 << 20  # NBD_MAX_PAYLOAD of csrc/front/nbd_wire.h

Step = bytes | int
Answers = list[tuple[Reply, bytes]]

TRANSMISSION_PADDING = bytes(124)  # behind EXPORT_NAME's answer, for clients without NO_ZEROES


class ProtocolError(FailedError):
    """The client broke the protocol; the connection is closed without an answer."""


class OptionError(Exception):
    """An option that is refused: the client gets the reply type and the sentence."""

    def __init__(self, reply: Reply, sentence: str) -> None:
        super().__init__(sentence)
        self.reply = reply


@dataclass(frozen=True)
class Export:
    """What is served. ``name`` is what clients ask for; size in bytes."""

    size: int
    name: str = ""
    description: str = ""
    is_read_only: bool = True

    def flags(self, *, structured: bool) -> ExportFlag:
        """Transmission flags; DF makes sense with structured replies only."""
        flags = ExportFlag.HAS_FLAGS | ExportFlag.CAN_MULTI_CONN
        if self.is_read_only:
            flags |= ExportFlag.READ_ONLY
        else:
            flags |= ExportFlag.SEND_FLUSH | ExportFlag.SEND_FUA | ExportFlag.SEND_TRIM
            flags |= ExportFlag.SEND_WRITE_ZEROES | ExportFlag.SEND_FAST_ZERO
        return flags | ExportFlag.SEND_DF if structured else flags


@dataclass(frozen=True)
class Agreement:
    """How the transmission phase goes."""

    export: Export
    structured: bool
    block_status: bool


def negotiate(export: Export) -> Generator[Step, bytes, Agreement | None]:
    """One connection's handshake; see the module's text for how it is driven."""
    offered = int(HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES)
    yield GREETING_MAGIC + OPTION_MAGIC + struct.pack(">H", offered)
    (flags,) = struct.unpack(">I", (yield 4))
    if flags & ~offered:
        raise ProtocolError(f"nbd handshake: unknown client flags {flags:#x}")
    session = Session(export, HandshakeFlag(flags))
    for _ in range(MAX_OPTIONS):
        option, data = yield from receive_option()
        yield session.answer(option, data)
        if session.is_over:
            return session.agreement
    raise ProtocolError(f"nbd handshake: more than {MAX_OPTIONS} options")


def receive_option() -> Generator[Step, bytes, tuple[int, bytes]]:
    """The next option's number and data."""
    magic, option, length = struct.unpack(">8sII", (yield 16))
    if magic != OPTION_MAGIC:
        raise ProtocolError(f"nbd handshake: an option begins with {magic!r} instead of {OPTION_MAGIC!r}")
    if length > MAX_OPTION_LENGTH:
        raise ProtocolError(
            f"nbd handshake: option {option} has {length} bytes; the most is {MAX_OPTION_LENGTH}"
        )
    return option, (yield length) if length else b""


class Session:
    """The state that options change, and the answer to each of them.

    * ``is_over``: no further option is read.
    * ``agreement``: set when the transmission phase follows.
    """

    def __init__(self, export: Export, client: HandshakeFlag) -> None:
        self.export = export
        self.client = client
        self.is_over = False
        self.agreement: Agreement | None = None
        self.structured = False
        self.block_status = False
        self.handlers: dict[int, Callable[[bytes], Answers]] = {
            Option.ABORT: self.abort,
            Option.LIST: self.list_exports,
            Option.STARTTLS: self.start_tls,
            Option.INFO: self.info,
            Option.GO: self.go,
            Option.STRUCTURED_REPLY: self.structured_reply,
            Option.LIST_META_CONTEXT: self.list_meta_context,
            Option.SET_META_CONTEXT: self.set_meta_context,
        }

    def answer(self, option: int, data: bytes) -> bytes:
        """What is sent for an option, perhaps nothing.

        Raises ProtocolError where the protocol has no way to say no.
        """
        if option == Option.EXPORT_NAME:
            return self.export_name(data)
        if HandshakeFlag.FIXED_NEWSTYLE not in self.client:
            raise ProtocolError(f"nbd handshake: option {option} of a client that is not fixed newstyle")
        try:
            answers = self.handlers.get(option, unknown_option)(data)
        except OptionError as error:
            answers = [(error.reply, str(error).encode())]
        return b"".join(encode_reply(option, kind, payload) for kind, payload in answers)

    def export_name(self, data: bytes) -> bytes:
        """The old way into transmission: an unknown name can only be hung up on."""
        if data != self.export.name.encode():
            raise ProtocolError(f"nbd handshake: no export {data[:MAX_STRING]!r}")
        self.agree()
        answer = struct.pack(">QH", self.export.size, self.export.flags(structured=self.structured))
        return answer if HandshakeFlag.NO_ZEROES in self.client else answer + TRANSMISSION_PADDING

    def abort(self, _data: bytes) -> Answers:
        self.is_over = True
        return [(Reply.ACK, b"")]

    def list_exports(self, data: bytes) -> Answers:
        require_empty(data)
        name = self.export.name.encode()
        entry = struct.pack(">I", len(name)) + name + self.export.description.encode()
        return [(Reply.SERVER, entry), (Reply.ACK, b"")]

    def start_tls(self, _data: bytes) -> Answers:
        raise OptionError(Reply.ERR_POLICY, "this server speaks over a unix socket and has no TLS")

    def info(self, data: bytes) -> Answers:
        """INFO: what GO would give, without going."""
        options = OptionData(data)
        self.require_export(options.string())
        wanted = {options.u16() for _ in range(options.u16())}
        options.end()
        flags = self.export.flags(structured=self.structured)
        facts = {
            Info.EXPORT: struct.pack(">QH", self.export.size, flags),
            Info.NAME: self.export.name.encode(),
            Info.DESCRIPTION: self.export.description.encode(),
            Info.BLOCK_SIZE: struct.pack(">III", MIN_BLOCK, PREFERRED_BLOCK, MAX_PAYLOAD),
        }
        told = [kind for kind in facts if kind in wanted or kind in ALWAYS_TOLD]
        return [(Reply.INFO, struct.pack(">H", kind) + facts[kind]) for kind in told] + [(Reply.ACK, b"")]

    def go(self, data: bytes) -> Answers:
        answers = self.info(data)
        self.agree()
        return answers

    def structured_reply(self, data: bytes) -> Answers:
        require_empty(data)
        self.structured = True
        return [(Reply.ACK, b"")]

    def list_meta_context(self, data: bytes) -> Answers:
        """LIST: no query, or "base:", asks for everything there is."""
        queries = self.meta_queries(data)
        is_wanted = not queries or {BASE_ALLOCATION, "base:"} & set(queries)
        return [meta_context(0), (Reply.ACK, b"")] if is_wanted else [(Reply.ACK, b"")]

    def set_meta_context(self, data: bytes) -> Answers:
        """SET replaces what an earlier one chose, also when it fails."""
        self.block_status = False
        self.block_status = BASE_ALLOCATION in self.meta_queries(data)
        chosen = [meta_context(BASE_ALLOCATION_ID)] if self.block_status else []
        return [*chosen, (Reply.ACK, b"")]

    def meta_queries(self, data: bytes) -> list[str]:
        if not self.structured:
            raise OptionError(Reply.ERR_INVALID, "metadata contexts need structured replies first")
        options = OptionData(data)
        self.require_export(options.string())
        queries = [options.string() for _ in range(options.u32())]
        options.end()
        return queries

    def require_export(self, name: str) -> None:
        if name != self.export.name:
            raise OptionError(Reply.ERR_UNKNOWN, f"no export {name!r} here, only {self.export.name!r}")

    def agree(self) -> None:
        self.agreement = Agreement(self.export, self.structured, self.block_status)
        self.is_over = True


class OptionData:
    """Reads an option's data from the front; whatever does not fit is ERR_INVALID."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, length: int) -> bytes:
        left = len(self.data) - self.at
        if length > left:
            raise OptionError(Reply.ERR_INVALID, f"{length} bytes wanted at {self.at}, but {left} are left")
        self.at += length
        return self.data[self.at - length : self.at]

    def u16(self) -> int:
        return int.from_bytes(self.take(2), "big")

    def u32(self) -> int:
        return int.from_bytes(self.take(4), "big")

    def string(self) -> str:
        """A 32-bit length and that many bytes of UTF-8, at most MAX_STRING."""
        length = self.u32()
        if length > MAX_STRING:
            raise OptionError(Reply.ERR_INVALID, f"a string of {length} bytes; the most is {MAX_STRING}")
        try:
            return self.take(length).decode()
        except UnicodeDecodeError as error:
            raise OptionError(Reply.ERR_INVALID, "a string is not UTF-8") from error

    def end(self) -> None:
        if self.at != len(self.data):
            raise OptionError(Reply.ERR_INVALID, f"{len(self.data) - self.at} bytes too many")


def require_empty(data: bytes) -> None:
    OptionData(data).end()


def unknown_option(_data: bytes) -> Answers:
    raise OptionError(Reply.ERR_UNSUP, "this server does not know the option")


def meta_context(number: int) -> tuple[Reply, bytes]:
    """The number is 0 in LIST, where none is given out yet."""
    return Reply.META_CONTEXT, struct.pack(">I", number) + BASE_ALLOCATION.encode()


def encode_reply(option: int, kind: Reply, payload: bytes) -> bytes:
    return struct.pack(">QIII", REPLY_MAGIC, option, kind, len(payload)) + payload
