"""Generic netlink, as much of it as one family of the kernel takes (linux/genetlink.h).

::

    header     u32 length, u16 type, u16 flags, u32 sequence, u32 port       all in the
    generic    u8 command, u8 version, u16 reserved                          host's byte
    attribute  u16 length (with these 4 bytes), u16 kind, value, padded to 4 order

A library does this, too, but pyroute2 costs 25 MB of a daemon that is locked in memory, and its
synchronous calls run an event loop that has no deadline; this has one socket, which never blocks.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from tcmu_overlaybd.errors import FailedError, FormatError, UnavailableError

HEADER = struct.Struct("=IHHII")
GENERIC = struct.Struct("=BBH")
ATTRIBUTE = struct.Struct("=HH")
ERROR = struct.Struct("=i")
KIND_MASK = 0x3FFF  # above it: "nested" and "in network byte order"

NETLINK_GENERIC = 16
SOL_NETLINK = 270
NETLINK_ADD_MEMBERSHIP = 1
SO_RCVBUFFORCE = 33
NLM_F_REQUEST = 1
NLMSG_ERROR = 2
NLMSG_MIN_TYPE = 16  # below it are messages of netlink itself

# The family that knows the others.
GENL_ID_CTRL = 16
CTRL_VERSION = 1
CTRL_CMD_GETFAMILY = 3
CTRL_ATTR_FAMILY_ID = 1
CTRL_ATTR_FAMILY_NAME = 2
CTRL_ATTR_MCAST_GROUPS = 7
CTRL_ATTR_MCAST_GRP_NAME = 1
CTRL_ATTR_MCAST_GRP_ID = 2

LOOKUP_S = 5.0  # the kernel answers in the same system call
MAX_DATAGRAM = 1 << 16


class LostError(FailedError):
    """Messages came for which the socket had no room."""


@dataclass(frozen=True, slots=True)
class Message:
    """``error``: of a message of kind NLMSG_ERROR, an errno value; 0 is an acknowledgement."""

    kind: int
    command: int = 0
    attributes: Mapping[int, bytes] = field(default_factory=dict)
    error: int = 0

    def text(self, attribute: int) -> str:
        """Raises FormatError when it is not there."""
        return self._value(attribute).split(b"\0", 1)[0].decode(errors="replace")

    def number(self, attribute: int) -> int:
        """Unsigned.  Raises FormatError when it is not there."""
        return int.from_bytes(self._value(attribute), sys.byteorder)

    def _value(self, attribute: int) -> bytes:
        try:
            return self.attributes[attribute]
        except KeyError:
            raise FormatError(f"netlink: command {self.command} without its attribute {attribute}") from None


def encode(kind: int, command: int, version: int, attributes: Mapping[int, bytes]) -> bytes:
    """One request."""
    body = GENERIC.pack(command, version, 0)
    for number, value in attributes.items():
        body += ATTRIBUTE.pack(ATTRIBUTE.size + len(value), number) + value + bytes(-len(value) % 4)
    return HEADER.pack(HEADER.size + len(body), kind, NLM_F_REQUEST, 0, 0) + body


def decode(datagram: bytes) -> Iterator[Message]:
    """Its messages.  Raises FormatError for one whose lengths do not fit."""
    while datagram:
        if len(datagram) < HEADER.size:
            raise FormatError(f"netlink: {len(datagram)} bytes are left, less than a header")
        length, kind, *_ = HEADER.unpack_from(datagram)
        if not HEADER.size <= length <= len(datagram):
            raise FormatError(f"netlink: a message of {length} bytes, and {len(datagram)} are there")
        yield _decode_message(kind, datagram[HEADER.size : length])
        datagram = datagram[length + -length % 4 :]


def _decode_message(kind: int, payload: bytes) -> Message:
    if kind == NLMSG_ERROR and len(payload) >= ERROR.size:
        return Message(kind, error=-ERROR.unpack_from(payload)[0])
    if kind < NLMSG_MIN_TYPE:
        return Message(kind)
    if len(payload) < GENERIC.size:
        raise FormatError(f"netlink: a message with {len(payload)} bytes behind its header")
    return Message(kind, payload[0], decode_attributes(payload[GENERIC.size :]))


def decode_attributes(data: bytes) -> dict[int, bytes]:
    """By kind; of two of one kind the last counts.  Raises FormatError."""
    found = {}
    while len(data) >= ATTRIBUTE.size:
        length, kind = ATTRIBUTE.unpack_from(data)
        if not ATTRIBUTE.size <= length <= len(data):
            raise FormatError(f"netlink: an attribute of {length} bytes, and {len(data)} are there")
        found[kind & KIND_MASK] = data[ATTRIBUTE.size : length]
        data = data[length + -length % 4 :]
    return found


class GenericNetlink:
    """A socket that is a member of one multicast group of one family.  It never blocks."""

    def __init__(self, family: str, group: str, receive_buffer: int) -> None:
        """Messages of the group are kept from here on, up to receive_buffer bytes with what the
        kernel adds.  Raises UnavailableError when there is no such family, or we are not root."""
        self._socket = open_socket()
        self.family, group_id = look_up(self._socket, family, group)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, receive_buffer)
            self._socket.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group_id)
        except OSError as error:
            raise UnavailableError(f"netlink: group {group} of {family}: {error.strerror}") from error

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, command: int, version: int, attributes: Mapping[int, bytes]) -> None:
        """Raises FailedError."""
        try:
            self._socket.send(encode(self.family, command, version, attributes))
        except OSError as error:
            raise FailedError(f"netlink: command {command}: send: {error.strerror}") from error

    def receive(self) -> list[Message]:
        """The messages of the next datagram; none when there is none.

        Raises LostError when some were lost before it, FormatError.
        """
        return receive(self._socket)


def open_socket() -> socket.socket:
    """Connected to the kernel, so that no process can send to it."""
    flags = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    opened = socket.socket(socket.AF_NETLINK, flags, NETLINK_GENERIC)
    opened.connect((0, 0))
    return opened


def receive(opened: socket.socket) -> list[Message]:
    try:
        return list(decode(opened.recv(MAX_DATAGRAM)))
    except BlockingIOError:
        return []
    except OSError as error:
        if error.errno == errno.ENOBUFS:
            raise LostError("netlink: more messages than the socket has room for") from error
        raise FailedError(f"netlink: receive: {error.strerror}") from error


def look_up_group(family: str, group: str) -> int:
    """The number of a multicast group.  Raises UnavailableError without it."""
    with open_socket() as opened:
        return look_up(opened, family, group)[1]


def look_up(opened: socket.socket, family: str, group: str) -> tuple[int, int]:
    """The numbers of both, which differ from boot to boot."""
    name = {CTRL_ATTR_FAMILY_NAME: family.encode() + b"\0"}
    opened.send(encode(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, CTRL_VERSION, name))
    reply = wait_for_reply(opened, family)
    for entry in decode_attributes(reply.attributes.get(CTRL_ATTR_MCAST_GROUPS, b"")).values():
        found = Message(GENL_ID_CTRL, attributes=decode_attributes(entry))
        if found.text(CTRL_ATTR_MCAST_GRP_NAME) == group:
            return reply.number(CTRL_ATTR_FAMILY_ID), found.number(CTRL_ATTR_MCAST_GRP_ID)
    raise UnavailableError(f"netlink: family {family} has no group {group}")


def wait_for_reply(opened: socket.socket, family: str) -> Message:
    deadline = time.monotonic() + LOOKUP_S
    poll = select.poll()
    poll.register(opened, select.POLLIN)
    while (left := deadline - time.monotonic()) > 0:
        poll.poll(left * 1000)
        for message in receive(opened):
            if message.error:
                raise UnavailableError(f"netlink: family {family}: {os.strerror(message.error)}")
            if message.kind == GENL_ID_CTRL:
                return message
    raise UnavailableError(f"netlink: family {family}: no answer within {LOOKUP_S:.0f} s")
