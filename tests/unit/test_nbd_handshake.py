"""The NBD handshake against well-behaved, clumsy and hostile clients, without a socket."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcmu_overlaybd.nbd.handshake import (
    MAX_OPTION_LENGTH,
    MAX_OPTIONS,
    Agreement,
    Export,
    ProtocolError,
    negotiate,
)
from tcmu_overlaybd.nbd.protocol import ExportFlag, Info, Option, Reply

EXPORT = Export(size=1 << 30, description="a test", is_read_only=False)
FIXED, NO_ZEROES = 1, 2
GREETING = b"NBDMAGIC" + b"IHAVEOPT" + struct.pack(">H", FIXED | NO_ZEROES)
GO_DEFAULT = struct.pack(">IH", 0, 0)


def option(number: int, data: bytes = b"") -> bytes:
    return b"IHAVEOPT" + struct.pack(">II", number, len(data)) + data


def string(text: bytes) -> bytes:
    return struct.pack(">I", len(text)) + text


def hello(flags: int = FIXED | NO_ZEROES) -> bytes:
    return struct.pack(">I", flags)


def meta(*queries: bytes, name: bytes = b"") -> bytes:
    return string(name) + struct.pack(">I", len(queries)) + b"".join(map(string, queries))


class StarvedError(Exception):
    """The server waits for bytes that the client does not send."""


def converse(sent: bytes, export: Export = EXPORT) -> tuple[bytes, Agreement | None, bytes]:
    """All that the server sent, what was agreed, and the client's bytes not looked at."""
    answers = b""
    flow = negotiate(export)
    step = next(flow)
    try:
        while True:
            if isinstance(step, bytes):
                answers += step
                step = next(flow)
                continue
            if len(sent) < step:
                raise StarvedError(answers)
            received, sent = sent[:step], sent[step:]
            step = flow.send(received)
    except StopIteration as end:
        return answers, end.value, sent


def replies(answers: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(option, type, payload) of everything after the greeting."""
    assert answers.startswith(GREETING)
    at = len(GREETING)
    while at < len(answers):
        magic, number, kind, length = struct.unpack_from(">QIII", answers, at)
        assert magic == 0x3E889045565A9
        at += 20 + length
        yield number, kind, answers[at - length : at]


def replies_to(*options: bytes) -> list[tuple[int, int, bytes]]:
    """The replies to options; the client then leaves by ABORT."""
    answers, agreement, rest = converse(hello() + b"".join(options) + option(Option.ABORT))
    assert agreement is None
    assert rest == b""
    *found, goodbye = replies(answers)
    assert goodbye == (Option.ABORT, Reply.ACK, b"")
    return found


def kinds(found: list[tuple[int, int, bytes]]) -> list[int]:
    return [kind for _, kind, _ in found]


def test_go_tells_size_flags_and_block_sizes_and_agrees() -> None:
    answers, agreement, _ = converse(hello() + option(Option.GO, GO_DEFAULT))
    found = list(replies(answers))
    assert [payload[:2] for _, kind, payload in found if kind == Reply.INFO] == [b"\0\0", b"\0\3"]
    size, flags = struct.unpack(">QH", found[0][2][2:])
    assert size == EXPORT.size
    assert ExportFlag.CAN_MULTI_CONN in ExportFlag(flags)
    assert ExportFlag.SEND_TRIM in ExportFlag(flags)
    assert ExportFlag.SEND_DF not in ExportFlag(flags)
    assert struct.unpack(">III", found[1][2][2:]) == (512, 4096, 32 << 20)
    assert found[-1][1] == Reply.ACK
    assert agreement == Agreement(EXPORT, structured=False, block_status=False)


def test_go_leaves_the_bytes_of_the_transmission_phase_alone() -> None:
    _, agreement, rest = converse(hello() + option(Option.GO, GO_DEFAULT) + b"first request")
    assert agreement is not None
    assert rest == b"first request"


def test_read_only_export_offers_no_writing() -> None:
    export = Export(size=512, is_read_only=True)
    answers, _, _ = converse(hello() + option(Option.GO, GO_DEFAULT), export)
    _, flags = struct.unpack(">QH", next(replies(answers))[2][2:])
    assert ExportFlag(flags) == ExportFlag.HAS_FLAGS | ExportFlag.READ_ONLY | ExportFlag.CAN_MULTI_CONN


def test_info_tells_what_is_asked_for_and_does_not_go() -> None:
    wanted = struct.pack(">IHHHH", 0, 3, Info.NAME, Info.DESCRIPTION, 77)
    found = replies_to(option(Option.INFO, wanted))
    assert [payload[:2] for _, _, payload in found[:-1]] == [b"\0\0", b"\0\1", b"\0\2", b"\0\3"]
    assert found[2][2][2:] == b"a test"


@pytest.mark.parametrize("number", [Option.INFO, Option.GO])
def test_unknown_export_is_refused_and_the_client_may_go_on(number: int) -> None:
    assert kinds(replies_to(option(number, string(b"other") + b"\0\0"))) == [Reply.ERR_UNKNOWN]


def test_list_names_the_one_export() -> None:
    found = replies_to(option(Option.LIST))
    assert found == [(Option.LIST, Reply.SERVER, string(b"") + b"a test"), (Option.LIST, Reply.ACK, b"")]


def test_export_name_answers_with_zeroes_unless_told_not_to() -> None:
    short, agreement, _ = converse(hello() + option(Option.EXPORT_NAME))
    assert len(short) == len(GREETING) + 10
    assert agreement is not None
    long, _, _ = converse(hello(0) + option(Option.EXPORT_NAME))
    assert long == short + bytes(124)


def test_export_name_of_an_unknown_export_ends_the_connection() -> None:
    with pytest.raises(ProtocolError, match="no export b'other'"):
        converse(hello() + option(Option.EXPORT_NAME, b"other"))


def test_structured_replies_and_block_status_are_agreed() -> None:
    start = option(Option.STRUCTURED_REPLY) + option(Option.SET_META_CONTEXT, meta(b"base:allocation"))
    answers, agreement, _ = converse(hello() + start + option(Option.GO, GO_DEFAULT))
    assert (Option.SET_META_CONTEXT, Reply.META_CONTEXT, b"\0\0\0\1base:allocation") in list(replies(answers))
    assert agreement == Agreement(EXPORT, structured=True, block_status=True)


def test_meta_context_without_structured_replies_is_invalid() -> None:
    assert kinds(replies_to(option(Option.SET_META_CONTEXT, meta(b"base:allocation")))) == [Reply.ERR_INVALID]


@pytest.mark.parametrize(
    ("queries", "is_listed"),
    [([], True), ([b"base:"], True), ([b"base:allocation"], True), ([b"qemu:"], False), ([b"base"], False)],
)
def test_list_meta_context_knows_the_wildcard(queries: list[bytes], is_listed: bool) -> None:
    found = replies_to(option(Option.STRUCTURED_REPLY), option(Option.LIST_META_CONTEXT, meta(*queries)))
    assert kinds(found[1:]) == ([Reply.META_CONTEXT, Reply.ACK] if is_listed else [Reply.ACK])


@pytest.mark.parametrize("queries", [[], [b"base:"], [b"qemu:dirty-bitmap:x"]])
def test_set_meta_context_takes_no_wildcard_and_clears_an_earlier_choice(queries: list[bytes]) -> None:
    chosen = option(Option.SET_META_CONTEXT, meta(b"base:allocation"))
    again = option(Option.SET_META_CONTEXT, meta(*queries))
    _, agreement, _ = converse(
        hello() + option(Option.STRUCTURED_REPLY) + chosen + again + option(Option.GO, GO_DEFAULT)
    )
    assert agreement is not None
    assert not agreement.block_status


def test_a_failed_set_meta_context_clears_an_earlier_choice() -> None:
    chosen = option(Option.SET_META_CONTEXT, meta(b"base:allocation"))
    failed = option(Option.SET_META_CONTEXT, meta(b"base:allocation", name=b"other"))
    _, agreement, _ = converse(
        hello() + option(Option.STRUCTURED_REPLY) + chosen + failed + option(Option.GO, GO_DEFAULT)
    )
    assert agreement is not None
    assert not agreement.block_status


def test_tls_and_unknown_options_are_refused_politely() -> None:
    found = replies_to(option(Option.STARTTLS), option(4711, b"data of any kind"), option(Option.LIST))
    assert kinds(found)[:2] == [Reply.ERR_POLICY, Reply.ERR_UNSUP]
    assert b"TLS" in found[0][2]


@pytest.mark.parametrize(
    "broken",
    [
        option(Option.LIST, b"x"),
        option(Option.STRUCTURED_REPLY, b"x"),
        option(Option.GO, b"\0\0"),
        option(Option.GO, struct.pack(">I", 2**32 - 1) + b"\0\0"),
        option(Option.GO, string(b"\xff\xfe") + b"\0\0"),
        option(Option.GO, GO_DEFAULT + b"x"),
        option(Option.GO, struct.pack(">IH", 0, 65535)),
        option(Option.GO, string(bytes(5000)) + b"\0\0"),
    ],
)
def test_malformed_option_is_invalid_and_the_client_may_go_on(broken: bytes) -> None:
    assert kinds(replies_to(broken)) == [Reply.ERR_INVALID]


def test_meta_query_count_beyond_the_data_is_invalid() -> None:
    hostile = option(Option.LIST_META_CONTEXT, string(b"") + struct.pack(">I", 2**32 - 1))
    assert kinds(replies_to(option(Option.STRUCTURED_REPLY), hostile))[1:] == [Reply.ERR_INVALID]


@pytest.mark.parametrize(
    ("sent", "part"),
    [
        (hello(4), "unknown client flags 0x4"),
        (hello() + b"GET / HTTP/1.1\r\n", "an option begins with b'GET / HT'"),
        (hello() + b"IHAVEOPT" + struct.pack(">II", Option.GO, MAX_OPTION_LENGTH + 1), "has 65537 bytes"),
        (hello(0) + option(Option.LIST), "not fixed newstyle"),
        (hello() + option(Option.LIST) * (MAX_OPTIONS + 1), "more than 64 options"),
    ],
)
def test_what_cannot_be_answered_ends_the_connection(sent: bytes, part: str) -> None:
    with pytest.raises(ProtocolError, match=part):
        converse(sent)


@given(st.binary(max_size=300))
def test_any_bytes_end_in_an_agreement_an_error_or_waiting(sent: bytes) -> None:
    with pytest.raises((ProtocolError, StarvedError)):
        converse(sent)


option_bytes = st.builds(
    option,
    st.one_of(st.sampled_from(sorted(Option)), st.integers(0, 2**32 - 1)),
    st.one_of(
        st.binary(max_size=64),
        st.builds(lambda name, rest: string(name) + rest, st.binary(max_size=8), st.binary(max_size=32)),
        st.builds(lambda queries: meta(*queries), st.lists(st.binary(max_size=20), max_size=4)),
    ),
)


@given(st.lists(option_bytes, max_size=12), st.integers(0, 3))
def test_any_options_get_well_formed_replies_in_order(options: list[bytes], flags: int) -> None:
    sent = hello(flags) + b"".join(options) + option(Option.ABORT)
    try:
        answers, agreement, _ = converse(sent)
    except ProtocolError:
        return
    if agreement is not None and not answers.endswith(bytes(124)) and len(answers) == len(GREETING) + 10:
        return  # EXPORT_NAME: no reply header
    asked = [struct.unpack_from(">I", o, 8)[0] for o in options] + [int(Option.ABORT)]
    if agreement is not None and Option.EXPORT_NAME in asked:
        return
    answered = [number for number, _, _ in replies(answers)]
    in_order = [number for i, number in enumerate(answered) if i == 0 or answered[i - 1] != number]
    remaining = iter(asked)
    assert all(number in remaining for number in in_order)
