"""ZFile headers and trailers (spec/zfile.md sections 1 to 4).

A ZFile is ``[header][blocks][jump table][trailer]``: the source cut into blocks of
equal size, each compressed by itself and perhaps followed by its CRC, then the
stored length of each as u32.  Header and trailer share 512 bytes, little-endian:

    offset  size  field             content
         0     8  magic0            "ZFile" 0 1 0
         8    16  magic1            "tuji.yyf@Alibaba"
        24     4  size              96
        28     4  digest            crc of the 512 bytes with this field zero
        32     8  flags             bit 0 header (else trailer), 1 data file, 2 sealed,
                                    3 header overwritten: it says all, the trailer is
                                    not needed, 4 digest and index_crc are valid
        40     8  index_offset      of the jump table, bytes
        48     8  index_size        number of blocks
        56     8  original_size     bytes before compression
        64     4  index_crc         crc of the jump table
        68     4  reserved
        72     4  block_size        bytes, a power of two up to 65536
        76     1  algorithm         1 lz4, 2 zstd
        77     1  level
        78     1  use_dict          0
        79     1  pad
        80     4  reserved
        84     4  dict_size         0
        88     1  verify            1: each block is followed by its crc
        89     7  pad
        96   416  padding

Old files hold leftovers of memory in reserved bytes, in flags above bit 5 and,
when bit 4 is clear, in digest and index_crc: only known bits are looked at.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from tcmu_overlaybd.errors import CorruptError, FormatError

BLOCK_SIZE = 512  # of header and trailer
HEADER_SIZE_FIELD = 96
MAX_BLOCKS = 1_000_000_000
MAX_BLOCK_SIZE = 65536
WRITABLE_BLOCK_SIZES = (4096, 8192, 16384, 32768, 65536)
DEFAULT_BLOCK_SIZE = 4096
BLOCK_CRC_SIZE = 4

MAGIC = b"ZFile\x00\x01\x00" + b"tuji.yyf@Alibaba"

FLAG_HEADER = 1 << 0
FLAG_DATA = 1 << 1
FLAG_SEALED = 1 << 2
FLAG_OVERWRITTEN = 1 << 3
FLAG_DIGEST = 1 << 4

INITIAL_HEADER = FLAG_HEADER | FLAG_DATA | FLAG_DIGEST
OVERWRITTEN_HEADER = INITIAL_HEADER | FLAG_OVERWRITTEN
TRAILER = FLAG_DATA | FLAG_SEALED | FLAG_DIGEST

_LAYOUT = struct.Struct("<24sIIQQQQIIIBBBBIIB7s")
_DIGEST = slice(28, 32)


class _Fields(NamedTuple):
    """What _LAYOUT unpacks, in its order."""

    magic: bytes
    size: int
    digest: int
    flags: int
    index_offset: int
    nr_blocks: int
    original_size: int
    index_crc: int
    reserved: int
    block_size: int
    codec: int
    level: int
    use_dict: int
    pad: int
    reserved_2: int
    dict_size: int
    verify: int
    pad_2: bytes


# The raw CRC-32C of spec/zfile.md section 4, given by the caller (native.crc32c): this
# package stays free of the extension.
Crc = Callable[[bytes, int], int]


class Codec(IntEnum):
    LZ4 = 1
    ZSTD = 2


@dataclass(frozen=True)
class Block:
    """One header or trailer."""

    flags: int
    block_size: int
    codec: int  # a Codec, once checked
    index_offset: int = 0
    nr_blocks: int = 0
    original_size: int = 0
    index_crc: int = 0
    has_block_crc: bool = True
    use_dict: int = 0
    dict_size: int = 0

    @property
    def is_header(self) -> bool:
        return bool(self.flags & FLAG_HEADER)

    @property
    def is_overwritten(self) -> bool:
        return bool(self.flags & FLAG_OVERWRITTEN)

    @property
    def has_digest(self) -> bool:
        return bool(self.flags & FLAG_DIGEST)


def is_zfile(start: bytes) -> bool:
    """Whether a file that starts so is a ZFile at all."""
    return start.startswith(MAGIC)


def parse_header(block: bytes, name: str, crc: Crc) -> Block:
    """The first 512 bytes; when ``is_overwritten``, check_index has to follow."""
    where = f"{name}: ZFile header"
    header = _parse(block, where, crc)
    if not header.is_header or not header.flags & FLAG_DATA:
        raise CorruptError(f"{where}: flags are {header.flags:#x}, not those of a data file's header")
    return header


def parse_trailer(block: bytes, name: str, crc: Crc) -> Block:
    """The last 512 bytes.  Its digest is checked too, where it has one: the reference does not."""
    where = f"{name}: ZFile trailer"
    trailer = _parse(block, where, crc)
    if trailer.is_header or not trailer.flags & FLAG_DATA or not trailer.flags & FLAG_SEALED:
        raise CorruptError(f"{where}: flags are {trailer.flags:#x}, not those of a sealed file's trailer")
    return trailer


def check_index(block: Block, file_size: int, name: str) -> None:
    """The rules a header or trailer that locates the jump table must keep."""
    where = f"{name}: ZFile {'header' if block.is_header else 'trailer'}"
    if block.nr_blocks > MAX_BLOCKS:
        raise CorruptError(f"{where}: {block.nr_blocks} blocks, at most {MAX_BLOCKS} are read")
    if block.index_offset < BLOCK_SIZE or block.index_offset > file_size - BLOCK_SIZE:
        raise CorruptError(f"{where}: jump table at byte {block.index_offset} of a file of {file_size}")
    if 4 * block.nr_blocks > file_size - BLOCK_SIZE - block.index_offset:
        raise CorruptError(
            f"{where}: a jump table of {block.nr_blocks} blocks at byte {block.index_offset}"
            f" does not fit before the trailer at {file_size - BLOCK_SIZE}"
        )
    needed = -(-block.original_size // block.block_size)
    if block.nr_blocks != needed:
        raise CorruptError(
            f"{where}: {block.nr_blocks} blocks of {block.block_size} bytes for {block.original_size} bytes,"
            f" that needs {needed}"
        )


def build(block: Block, crc: Crc) -> bytes:
    """The 512 bytes of block, with their digest when its flag is set."""
    fields = _Fields(
        magic=MAGIC,
        size=HEADER_SIZE_FIELD,
        digest=0,
        flags=block.flags,
        index_offset=block.index_offset,
        nr_blocks=block.nr_blocks,
        original_size=block.original_size,
        index_crc=block.index_crc,
        reserved=0,
        block_size=block.block_size,
        codec=block.codec,
        level=0,
        use_dict=block.use_dict,
        pad=0,
        reserved_2=0,
        dict_size=block.dict_size,
        verify=int(block.has_block_crc),
        pad_2=b"",
    )
    raw = bytearray(_LAYOUT.pack(*fields).ljust(BLOCK_SIZE, b"\0"))
    if block.has_digest:
        raw[_DIGEST] = crc(bytes(raw), 0).to_bytes(4, "little")
    return bytes(raw)


def _parse(raw: bytes, where: str, crc: Crc) -> Block:
    if len(raw) < BLOCK_SIZE:
        raise CorruptError(f"{where} is {len(raw)} bytes long, {BLOCK_SIZE} are needed")
    fields = _Fields._make(_LAYOUT.unpack_from(raw))
    if fields.magic != MAGIC:
        raise FormatError(f"{where} starts with {raw[:8].hex()}, not with the magic of ZFile")
    block = Block(
        flags=fields.flags,
        block_size=fields.block_size,
        codec=fields.codec,
        index_offset=fields.index_offset,
        nr_blocks=fields.nr_blocks,
        original_size=fields.original_size,
        index_crc=fields.index_crc,
        has_block_crc=fields.verify == 1,
        use_dict=fields.use_dict,
        dict_size=fields.dict_size,
    )
    if block.has_digest:
        _check_digest(raw, fields.digest, where, crc)
    _check_options(block, fields.verify, where)
    return block


def _check_digest(raw: bytes, digest: int, where: str, crc: Crc) -> None:
    blank = bytearray(raw[:BLOCK_SIZE])
    blank[_DIGEST] = bytes(4)
    found = crc(bytes(blank), 0)
    if found != digest:
        raise CorruptError(f"{where}: its digest is {digest:08x}, its bytes give {found:08x}")


def _check_options(block: Block, verify: int, where: str) -> None:
    if block.block_size & (block.block_size - 1) or not 512 <= block.block_size <= MAX_BLOCK_SIZE:
        raise CorruptError(
            f"{where}: block_size is {block.block_size}, not a power of two from 512 to {MAX_BLOCK_SIZE}"
        )
    if block.codec not in (Codec.LZ4, Codec.ZSTD):
        raise CorruptError(f"{where}: algorithm is {block.codec}, neither 1 (lz4) nor 2 (zstd)")
    if verify > 1:
        raise CorruptError(f"{where}: verify is {verify}, neither 0 nor 1")
    if block.use_dict or block.dict_size:
        raise FormatError(f"{where}: it wants a dictionary of {block.dict_size} bytes, which no writer makes")
