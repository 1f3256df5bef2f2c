"""ZFile headers and trailers: round trips, digests, rules, garbage of old files, hostile bytes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracle.reader import crc

from tcmu_overlaybd.errors import CorruptError, FormatError, OverlayBDError
from tcmu_overlaybd.formats import zfile

U64 = st.integers(0, 2**64 - 1)
BLOCKS = st.builds(
    zfile.Block,
    flags=U64,
    block_size=st.integers(0, 2**32 - 1) | st.sampled_from(zfile.WRITABLE_BLOCK_SIZES),
    codec=st.integers(0, 255) | st.sampled_from([1, 2]),
    index_offset=U64,
    nr_blocks=U64,
    original_size=U64,
    index_crc=st.integers(0, 2**32 - 1),
    has_block_crc=st.booleans(),
    use_dict=st.just(0) | st.integers(0, 255),
    dict_size=st.just(0) | st.integers(0, 2**32 - 1),
)
HEADER = zfile.Block(
    zfile.OVERWRITTEN_HEADER,
    block_size=4096,
    codec=zfile.Codec.LZ4,
    index_offset=600,
    nr_blocks=3,
    original_size=9000,
    index_crc=7,
)
FILE_SIZE = 600 + 12 + 512


def test_crc_is_the_raw_register_of_the_specification():
    assert crc(b"123456789", 0) == 0x58E3FA20
    assert crc(b"123456789", 100007) == 0x3C9BD4E0


@given(BLOCKS)
def test_a_block_that_is_accepted_survives_the_round_trip(block):
    raw = zfile.build(block, crc)
    assert len(raw) == 512
    parse = zfile.parse_header if block.is_header else zfile.parse_trailer
    try:
        parsed = parse(raw, "x", crc)
    except OverlayBDError:
        return
    assert parsed == block
    assert parsed.block_size & (parsed.block_size - 1) == 0
    assert parsed.codec in (1, 2)


@given(BLOCKS, st.integers(0, 2**63))
def test_hostile_places_of_the_jump_table_are_inside_the_file_or_an_error(block, file_size):
    block = replace(block, block_size=4096)
    try:
        zfile.check_index(block, file_size, "x")
    except OverlayBDError:
        return
    assert block.index_offset >= 512
    assert block.index_offset + 4 * block.nr_blocks <= file_size - 512
    assert (
        block.nr_blocks - 1
    ) * 4096 < block.original_size <= block.nr_blocks * 4096 or block.nr_blocks == 0


@given(st.binary(max_size=600))
def test_hostile_bytes_give_errors_of_ours_only(raw):
    for parse in (zfile.parse_header, zfile.parse_trailer):
        with pytest.raises(OverlayBDError):
            parse(raw, "x", crc)


def test_garbage_of_old_files_is_tolerated():
    """Reserved bytes and flags above bit 5 are leftovers of memory there, and so is the digest."""
    raw = bytearray(zfile.build(replace(HEADER, flags=0x00007FFEA4640B43), crc))
    raw[28:32] = b"\xde\xad\xbe\xef"
    raw[68:72] = raw[80:84] = b"\xff" * 4
    raw[89:96] = b"\xaa" * 7
    raw[96:] = b"\x55" * 416
    parsed = zfile.parse_header(bytes(raw), "x", crc)
    assert not parsed.has_digest
    assert parsed.index_offset == 600


def test_a_wrong_digest_is_named_with_both_values():
    raw = bytearray(zfile.build(HEADER, crc))
    raw[500] ^= 1
    with pytest.raises(CorruptError, match=r"x: ZFile header: its digest is [0-9a-f]{8}, its bytes give"):
        zfile.parse_header(bytes(raw), "x", crc)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"block_size": 0}, "block_size is 0"),
        ({"block_size": 4097}, "block_size is 4097"),
        ({"block_size": 131072}, "block_size is 131072"),
        ({"codec": 0}, "algorithm is 0"),
        ({"codec": 3}, "algorithm is 3"),
        ({"flags": 0x19}, "flags are 0x19"),
    ],
)
def test_each_rule_of_a_header_has_its_sentence(change, sentence):
    with pytest.raises(CorruptError, match=sentence):
        zfile.parse_header(zfile.build(replace(HEADER, **change), crc), "x", crc)


@pytest.mark.parametrize("change", [{"use_dict": 1}, {"dict_size": 8}])
def test_a_dictionary_is_refused(change):
    with pytest.raises(FormatError, match="dictionary"):
        zfile.parse_header(zfile.build(replace(HEADER, **change), crc), "x", crc)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"index_offset": 511}, "jump table at byte 511"),
        ({"index_offset": 601}, "does not fit before the trailer at 612"),
        ({"index_offset": 2**64 - 4}, "jump table at byte"),
        ({"nr_blocks": 4}, "4 blocks at byte 600 does not fit"),
        ({"nr_blocks": 2}, "2 blocks of 4096 bytes for 9000 bytes, that needs 3"),
        ({"original_size": 12289}, "3 blocks of 4096 bytes for 12289 bytes, that needs 4"),
        ({"nr_blocks": 2_000_000_000}, "2000000000 blocks, at most 1000000000"),
    ],
)
def test_each_rule_of_the_jump_table_has_its_sentence(change, sentence):
    zfile.check_index(HEADER, FILE_SIZE, "x")
    with pytest.raises(CorruptError, match=sentence):
        zfile.check_index(replace(HEADER, **change), FILE_SIZE, "x")
