"""LSMT blocks: round trips, the rules of spec/lsmt.md section 4.1, hostile bytes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcmu_overlaybd.errors import CorruptError, FormatError, LimitError, OverlayBDError, UsageError
from tcmu_overlaybd.formats import lsmt, uuid_text

UUIDS = st.uuids().map(lambda value: str(value).upper())
BLOCKS = st.builds(
    lsmt.Block,
    flags=st.integers(0, 0xFFFFFFFF),
    virtual_size=st.integers(0, 2**64 - 1),
    uuid=UUIDS,
    parent_uuid=UUIDS,
    user_tag=st.binary(max_size=256).map(lambda tag: tag.rstrip(b"\0")),
    index_offset=st.integers(0, 2**64 - 1),
    index_size=st.integers(0, 2**64 - 1),
    version=st.integers(0, 255),
    sub_version=st.integers(0, 255),
)
FILE_SIZE = 20480
TRAILER = lsmt.Block(lsmt.COMMITTED_TRAILER, virtual_size=1 << 20, index_offset=8192, index_size=256)


@given(BLOCKS)
def test_a_block_survives_the_round_trip(block):
    raw = lsmt.build(block)
    assert len(raw) == 4096
    assert lsmt.parse(raw, "x") == block


@given(st.binary(max_size=5000))
def test_hostile_bytes_give_errors_of_ours_only(raw):
    for parse in (
        lambda: lsmt.parse_layer_header(raw, "x"),
        lambda: lsmt.parse_index_header(raw, "x"),
        lambda: lsmt.parse_layer_trailer(raw, 4096, "x"),
    ):
        with pytest.raises(OverlayBDError):
            parse()


@given(BLOCKS, st.integers(0, 2**63))
def test_hostile_fields_give_a_sound_trailer_or_an_error(block, file_size):
    try:
        trailer = lsmt.parse_layer_trailer(lsmt.build(block), file_size, "x")
    except OverlayBDError:
        return
    assert trailer.index_offset + trailer.index_bytes <= file_size - 4096
    assert trailer.index_size <= 1_000_000
    assert trailer.virtual_size % 512 == 0


def test_a_trailer_that_just_fits_is_taken():
    raw = lsmt.build(TRAILER)
    assert lsmt.parse_layer_trailer(raw, 8192 + 4096 + 4096, "x") == TRAILER
    with pytest.raises(CorruptError, match=r"256 index entries at byte 8192 do not fit .* at 12287"):
        lsmt.parse_layer_trailer(raw, 8192 + 4096 + 4095, "x")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"flags": 7}, "flags are 0x7"),
        ({"flags": 4}, "flags are 0x4"),
        ({"flags": 2}, "flags are 0x2"),
        ({"index_size": 1_000_001, "index_offset": 0}, "1000001 index entries, at most 1000000 are read"),
        ({"index_offset": 2**64 - 1}, "do not fit"),
        ({"virtual_size": 1 << 60}, "virtual_size is"),
        ({"virtual_size": 513}, "virtual_size is 513"),
    ],
)
def test_each_rule_of_a_trailer_has_its_sentence(change, sentence):
    with pytest.raises(CorruptError, match=sentence):
        lsmt.parse_layer_trailer(lsmt.build(replace(TRAILER, **change)), 1 << 40, "x")


def test_other_versions_are_read():
    """No reader of the reference rejects one."""
    raw = lsmt.build(replace(TRAILER, version=9, sub_version=9))
    assert lsmt.parse_layer_trailer(raw, FILE_SIZE, "x").version == 9


def test_foreign_bytes_are_a_format_error_that_shows_them():
    with pytest.raises(FormatError, match="x: LSMT header starts with 7f454c46"):
        lsmt.parse_layer_header(b"\x7fELF".ljust(4096, b"\0"), "x")


def test_a_message_of_257_bytes_is_refused():
    with pytest.raises(LimitError, match="257 bytes"):
        lsmt.build(replace(TRAILER, user_tag=b"x" * 257))


@pytest.mark.parametrize(
    "field",
    [
        bytes(37),
        b"x" * 37,
        b"00000001-1111-2222-3333-00000000000g\0",
        b"00000001-1111-2222-3333-000000000001x",
    ],
)
def test_what_is_no_uuid_reads_as_the_null_uuid(field):
    assert uuid_text.from_field(field) == uuid_text.NULL


def test_lower_case_uuids_are_read_and_written_upper_case():
    text = "abcdef01-1111-2222-3333-000000000001"
    assert uuid_text.from_field(text.encode() + b"\0") == text.upper()
    assert uuid_text.from_user(text) == text.upper()


@pytest.mark.parametrize(
    "text", ["", "x", "{abcdef01-1111-2222-3333-000000000001}", "abcdef01111122223333000000000001"]
)
def test_a_uuid_from_the_user_that_is_none_is_a_usage_error(text):
    with pytest.raises(UsageError, match="is not a UUID"):
        uuid_text.from_user(text)
