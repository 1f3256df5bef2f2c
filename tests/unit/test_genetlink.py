"""Generic netlink messages: the bytes, and what is made of wrong ones."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcmu_overlaybd.errors import FormatError, UnavailableError
from tcmu_overlaybd.lio.genetlink import Message, decode, encode, look_up_group
from tcmu_overlaybd.lio.tcmu_listeners import Listener, members_of_group, other_listeners

ATTRIBUTES = st.dictionaries(st.integers(1, 0x3FFF), st.binary(max_size=40), max_size=6)


@given(st.integers(16, 0xFFFF), st.integers(0, 255), ATTRIBUTES)
def test_what_is_encoded_is_decoded(kind: int, command: int, attributes: dict[int, bytes]) -> None:
    message = encode(kind, command, 2, attributes)
    assert list(decode(message + message)) == [Message(kind, command, attributes)] * 2


def test_bytes_of_a_request_are_those_of_linux_genetlink_h() -> None:
    expected = (
        struct.pack("=IHHII", 28, 33, 1, 0, 0) + struct.pack("=BBH", 4, 2, 0) + struct.pack("=HHi", 8, 7, -2)
    )
    assert encode(33, 4, 2, {7: struct.pack("=i", -2)}) == expected


def test_an_error_of_the_kernel_has_its_errno_value() -> None:
    refused = struct.pack("=IHHIIi", 36, 2, 0, 0, 0, -19) + bytes(16)
    assert list(decode(refused)) == [Message(2, error=19)]


@given(st.binary(max_size=200))
def test_any_bytes_decode_or_are_a_format_error(data: bytes) -> None:
    try:
        for message in decode(data):
            assert sum(map(len, message.attributes.values())) <= len(data)
    except FormatError:
        pass


@pytest.mark.parametrize("length", [0, 15, 29])
def test_a_message_longer_or_shorter_than_its_bytes_is_refused(length: int) -> None:
    wrong = struct.pack("=I", length) + encode(33, 4, 2, {7: bytes(4)})[4:]
    with pytest.raises(FormatError, match="bytes"):
        list(decode(wrong))


def test_a_missing_attribute_is_a_format_error() -> None:
    with pytest.raises(FormatError, match="without its attribute 2"):
        Message(33, 1, {}).number(2)


def test_groups_that_every_kernel_has_are_found_and_others_named() -> None:
    assert look_up_group("nlctrl", "notify") > 0
    with pytest.raises(UnavailableError, match="nlctrl has no group nothing"):
        look_up_group("nlctrl", "nothing")
    with pytest.raises(UnavailableError, match="NO-SUCH"):
        look_up_group("NO-SUCH", "config")


TABLE = """\
sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode
0000000000000000 0   77         00000010 0        0        0     2        0        1
0000000000000000 16  0          00000000 0        0        0     2        0        2
0000000000000000 16  4194381    00000010 0        0        0     2        0        3
0000000000000000 16  88         00000030 0        0        0     2        0        4
0000000000000000 16  99         00000020 0        0        0     2        0        5
"""


def test_members_of_a_group_are_the_processes_with_a_generic_netlink_socket_in_it() -> None:
    assert members_of_group(TABLE, 5) == {77, 88}
    assert members_of_group(TABLE, 6) == {88, 99}
    assert members_of_group(TABLE, 0) == members_of_group(TABLE, 33) == set()


def test_tcmu_runner_is_found_by_its_name_where_groups_tell_nothing(tmp_path: Path) -> None:
    for pid, name in ((12, "tcmu-runner"), (13, "bash")):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "comm").write_text(f"{name}\n")
    assert other_listeners(proc=tmp_path) == [Listener(12, "tcmu-runner")]
    assert other_listeners([12], proc=tmp_path) == []
