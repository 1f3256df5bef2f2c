"""Chunk maps of the cache of blobs (csrc/cache/chunk_map.h).

A blob is cut into chunks of one size, the last may be short; its map says which of
them are in the data file beside it.  A header of one 4096-byte block, little-endian:

    offset  size  field        content
         0     8  magic        "OBDCHNK" 1
         8     4  version      1
        12     4  chunk_size   bytes, a power of two, 64 KiB to 1 MiB
        16     8  blob_size    bytes
        24    32  digest       SHA-256 of the blob
        56     4  header_crc   of bytes 0 to 55, seed 0

then for each chunk 40 bytes: u32 flags (bit 0: present, bit 1: the SHA-256 is given),
u32 CRC of the chunk's bytes, whose seed is the low 32 bits of the chunk's number, and the
SHA-256 of its bytes, zeros where it is not given.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from tcmu_overlaybd.errors import FormatError

MAGIC = b"OBDCHNK\x01"
VERSION = 1
HEADER_SIZE = 4096
RECORD_SIZE = 40
CHUNK_SIZES = tuple(1 << shift for shift in range(16, 21))

FLAG_PRESENT = 1 << 0

_HEADER = struct.Struct("<8sIIQ32sI")
_RECORD = struct.Struct("<II32x")
_CHECKED = 56  # bytes of the header that its CRC is of

# The raw CRC-32C of spec/zfile.md section 4, given by the caller (native.crc32c).
Crc = Callable[[bytes, int], int]


class Chunk(NamedTuple):
    """A chunk that is present; offset and length in bytes."""

    number: int
    offset: int
    length: int
    crc: int

    @property
    def seed(self) -> int:
        return self.number & 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class ChunkMap:
    digest: bytes
    blob_size: int
    chunk_size: int
    chunks: tuple[Chunk, ...]  # those that are present

    @property
    def nr_chunks(self) -> int:
        return -(-self.blob_size // self.chunk_size)

    @property
    def present_bytes(self) -> int:
        return sum(chunk.length for chunk in self.chunks)


def parse(data: bytes, name: str, crc: Crc) -> ChunkMap:
    """The map in data, which is the whole file called name.

    Raises FormatError for what is no map, another version, or not whole.
    """
    if len(data) < HEADER_SIZE:
        raise FormatError(f"{name}: a chunk map begins with {HEADER_SIZE} bytes, but here are {len(data)}")
    magic, version, chunk_size, blob_size, digest, header_crc = _HEADER.unpack_from(data)
    if magic != MAGIC or header_crc != crc(data[:_CHECKED], 0):
        raise FormatError(f"{name}: it does not begin as a chunk map")
    if version != VERSION:
        raise FormatError(f"{name}: a chunk map of version {version}; this is version {VERSION}")
    if chunk_size not in CHUNK_SIZES or blob_size == 0:
        raise FormatError(f"{name}: a blob of {blob_size} bytes in chunks of {chunk_size} makes no sense")
    expected = HEADER_SIZE + -(-blob_size // chunk_size) * RECORD_SIZE
    if len(data) != expected:
        raise FormatError(f"{name}: {len(data)} bytes long, but its header says {expected}")
    return ChunkMap(digest, blob_size, chunk_size, tuple(_present(data, chunk_size, blob_size)))


def _present(data: bytes, chunk_size: int, blob_size: int) -> list[Chunk]:
    records = enumerate(_RECORD.iter_unpack(data[HEADER_SIZE:]))
    return [
        Chunk(number, number * chunk_size, min(chunk_size, blob_size - number * chunk_size), crc)
        for number, (flags, crc) in records
        if flags & FLAG_PRESENT
    ]
