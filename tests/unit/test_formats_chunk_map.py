"""Chunk maps: what parse takes from one, and what it refuses."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcmu_overlaybd.errors import FormatError
from tcmu_overlaybd.formats import chunk_map
from tcmu_overlaybd.native.source import crc32c

CHUNK = 64 << 10
DIGEST = bytes(range(32))


def map_file(
    present: dict[int, int], *, blob_size: int = 3 * CHUNK + 5, chunk_size: int = CHUNK, version: int = 1
) -> bytes:
    """A map written by the rules of csrc/cache/chunk_map.h, independently of what reads it."""
    header = b"OBDCHNK\x01" + struct.pack("<IIQ", version, chunk_size, blob_size) + DIGEST
    header += struct.pack("<I", crc32c(header, 0))
    nr_chunks = -(-blob_size // chunk_size) if chunk_size else 0
    records = [struct.pack("<II32x", n in present, present.get(n, 0)) for n in range(nr_chunks)]
    return header.ljust(4096, b"\0") + b"".join(records)


def parse(data: bytes) -> chunk_map.ChunkMap:
    return chunk_map.parse(data, "x.map", crc32c)


def test_parse_gives_the_chunks_that_are_present():
    parsed = parse(map_file({1: 0x11, 3: 0x33}))
    assert (parsed.digest, parsed.blob_size, parsed.chunk_size) == (DIGEST, 3 * CHUNK + 5, CHUNK)
    assert parsed.chunks == ((1, CHUNK, CHUNK, 0x11), (3, 3 * CHUNK, 5, 0x33))
    assert (parsed.nr_chunks, parsed.present_bytes) == (4, CHUNK + 5)


@pytest.mark.parametrize("offset", range(60))
def test_parse_refuses_a_header_with_one_damaged_byte(offset):
    data = bytearray(map_file({}))
    data[offset] ^= 0x10
    with pytest.raises(FormatError, match="does not begin as a chunk map"):
        parse(bytes(data))


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "begins with 4096 bytes, but here are 0"),
        (map_file({}, version=2), "of version 2"),
        (map_file({}, blob_size=0), "makes no sense"),
        (map_file({}, chunk_size=CHUNK + 1), "makes no sense"),
        (map_file({}, chunk_size=0), "makes no sense"),
        (map_file({})[:-1], "4255 bytes long, but its header says 4256"),
        (map_file({}) + b"\0", "4257 bytes long"),
    ],
)
def test_parse_refuses_what_breaks_a_rule(data, sentence):
    with pytest.raises(FormatError, match=sentence):
        parse(data)


@given(st.binary(max_size=5000))
def test_parse_of_any_bytes_is_a_map_or_a_format_error(data):
    with pytest.raises(FormatError):
        parse(data)


@given(
    st.sampled_from(chunk_map.CHUNK_SIZES),
    st.integers(1, 40 << 20),
    st.dictionaries(st.integers(0, 600), st.integers(0, 2**32 - 1)),
)
def test_parse_gives_back_what_was_written(chunk_size, blob_size, present):
    parsed = parse(map_file(present, blob_size=blob_size, chunk_size=chunk_size))
    expected = {n: crc for n, crc in present.items() if n < -(-blob_size // chunk_size)}
    assert {chunk.number: chunk.crc for chunk in parsed.chunks} == expected
    assert all(0 < chunk.length <= chunk_size for chunk in parsed.chunks)
