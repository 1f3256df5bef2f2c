"""LSMT headers and trailers (spec/lsmt.md sections 2 to 4).

A layer file is ``[header][data][index][trailer]``; a writable layer is a data file
and an index file, each with a header.  Header and trailer share one block of 4096
bytes, little-endian:

    offset  size  field           content
         0     8  magic0          "LSMT" 0 1 2 0
         8    16  magic1
        24     4  size            390, the bytes that mean something; never checked
        28     4  flags           bit 0 header (else trailer), 1 data file (else index
                                  file), 2 sealed, 4 sparse writable layer
        32     8  index_offset    bytes from the start of the file
        40     8  index_size      number of 16-byte entries, padding included
        48     8  virtual_size    bytes
        56    37  uuid            text, see uuid_text
        93    37  parent_uuid
       130     2  reserved
       132     1  version         1; other values are only remarked upon
       133     1  sub_version     1
       134   256  user_tag        bytes, zero-filled
       390  3706  padding         zero

The header of a committed layer has no index location: its trailer has.  A sealed
writable layer keeps the header of its writable days (flags 0x3 or 0x13).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, replace

from tcmu_overlaybd.errors import CorruptError, FormatError, LimitError
from tcmu_overlaybd.formats import uuid_text

SECTOR_SIZE = 512
BLOCK_SIZE = 4096
ENTRY_SIZE = 16
HEADER_SIZE_FIELD = 390
MAX_USER_TAG = 256
MAX_LAYER_ENTRIES = 1_000_000
MAX_VIRTUAL_SIZE = ((1 << 50) - 1) * SECTOR_SIZE

MAGIC = b"LSMT\x00\x01\x02\x00" + bytes.fromhex("657e63d29444084ca2d2c8ec4fcfae8a")

FLAG_HEADER = 1 << 0
FLAG_DATA = 1 << 1
FLAG_SEALED = 1 << 2
FLAG_SPARSE = 1 << 4

COMMITTED_HEADER = FLAG_HEADER | FLAG_DATA | FLAG_SEALED
COMMITTED_TRAILER = FLAG_DATA | FLAG_SEALED
APPEND_DATA_HEADER = FLAG_HEADER | FLAG_DATA
SPARSE_DATA_HEADER = FLAG_HEADER | FLAG_DATA | FLAG_SPARSE
INDEX_HEADER = FLAG_HEADER
SPARSE_TRAILER = COMMITTED_TRAILER | FLAG_SPARSE

# What the reference writes, and so what a sound file has.
HEADER_FLAGS = (COMMITTED_HEADER, APPEND_DATA_HEADER, SPARSE_DATA_HEADER)
TRAILER_FLAGS = (COMMITTED_TRAILER, SPARSE_TRAILER)

_LAYOUT = struct.Struct("<24sIIQQQ37s37s2sBB256s")


@dataclass(frozen=True)
class Block:
    """One header or trailer."""

    flags: int
    virtual_size: int
    uuid: str = uuid_text.NULL
    parent_uuid: str = uuid_text.NULL
    user_tag: bytes = b""
    index_offset: int = 0
    index_size: int = 0
    version: int = 1
    sub_version: int = 1
    size: int = HEADER_SIZE_FIELD
    has_garbage: bool = False  # the padding is not zero
    raw_ids: bytes = field(default=b"", compare=False, repr=False)  # both UUID fields as they were

    @property
    def is_header(self) -> bool:
        return bool(self.flags & FLAG_HEADER)

    @property
    def is_data(self) -> bool:
        return bool(self.flags & FLAG_DATA)

    @property
    def is_sealed(self) -> bool:
        return bool(self.flags & FLAG_SEALED)

    @property
    def is_sparse(self) -> bool:
        return bool(self.flags & FLAG_SPARSE)

    @property
    def index_bytes(self) -> int:
        return self.index_size * ENTRY_SIZE


def is_lsmt(start: bytes) -> bool:
    """Whether a file that starts so is an LSMT file at all."""
    return start.startswith(MAGIC)


def parse(block: bytes, name: str) -> Block:
    """A block of 4096 bytes; name is what messages call it ("x.lsmt: header").

    Raises FormatError when the magic is not there, CorruptError when it is cut short.
    """
    if len(block) < BLOCK_SIZE:
        raise CorruptError(f"{name} is {len(block)} bytes long, {BLOCK_SIZE} are needed")
    magic, size, flags, index_offset, index_size, virtual_size, uuid, parent, _, version, sub, tag = (
        _LAYOUT.unpack_from(block)
    )
    if magic != MAGIC:
        raise FormatError(f"{name} starts with {block[:8].hex()}, not with the magic of LSMT")
    return Block(
        flags=flags,
        virtual_size=virtual_size,
        uuid=uuid_text.from_field(uuid),
        parent_uuid=uuid_text.from_field(parent),
        user_tag=tag.rstrip(b"\0"),
        index_offset=index_offset,
        index_size=index_size,
        version=version,
        sub_version=sub,
        size=size,
        raw_ids=uuid + parent,
        has_garbage=block.count(0, _LAYOUT.size, BLOCK_SIZE) != BLOCK_SIZE - _LAYOUT.size,
    )


def parse_layer_header(block: bytes, name: str) -> Block:
    """The header of a layer file or of a writable layer's data file."""
    header = parse(block, f"{name}: LSMT header")
    if not header.is_header or not header.is_data:
        raise CorruptError(
            f"{name}: LSMT header: flags are {header.flags:#x}, not those of a data file's header"
        )
    _check_virtual_size(header, f"{name}: LSMT header")
    return header


def parse_layer_trailer(block: bytes, file_size: int, name: str) -> Block:
    """The last 4096 bytes of a layer of file_size bytes (spec/lsmt.md section 4.1)."""
    where = f"{name}: LSMT trailer"
    trailer = parse(block, where)
    if trailer.is_header or not trailer.is_data or not trailer.is_sealed:
        raise CorruptError(f"{where}: flags are {trailer.flags:#x}, not those of a sealed layer's trailer")
    if trailer.index_size > MAX_LAYER_ENTRIES:
        raise CorruptError(
            f"{where}: {trailer.index_size} index entries, at most {MAX_LAYER_ENTRIES} are read"
        )
    room = file_size - BLOCK_SIZE - trailer.index_offset
    if trailer.index_bytes > room:
        raise CorruptError(
            f"{where}: {trailer.index_size} index entries at byte {trailer.index_offset} do not fit"
            f" before the trailer at {file_size - BLOCK_SIZE}"
        )
    _check_virtual_size(trailer, where)
    return trailer


def parse_index_header(block: bytes, name: str) -> Block:
    """The header of a writable layer's index file."""
    where = f"{name}: LSMT index header"
    header = parse(block, where)
    if not header.is_header or header.is_data or header.is_sealed:
        raise CorruptError(f"{where}: flags are {header.flags:#x}, not those of an index file")
    if header.index_offset != BLOCK_SIZE:
        raise CorruptError(f"{where}: index_offset is {header.index_offset}, not {BLOCK_SIZE}")
    _check_virtual_size(header, where)
    return header


def build(block: Block) -> bytes:
    """The 4096 bytes of block.  Raises LimitError when its user tag does not fit."""
    if len(block.user_tag) > MAX_USER_TAG:
        raise LimitError(f"the message is {len(block.user_tag)} bytes long, a layer holds {MAX_USER_TAG}")
    return _LAYOUT.pack(
        MAGIC,
        block.size,
        block.flags,
        block.index_offset,
        block.index_size,
        block.virtual_size,
        uuid_text.to_field(block.uuid),
        uuid_text.to_field(block.parent_uuid),
        b"\0\0",
        block.version,
        block.sub_version,
        block.user_tag,
    ).ljust(BLOCK_SIZE, b"\0")


def trailer_of(header: Block, index_offset: int, index_size: int) -> Block:
    """The trailer of a committed layer: its header, and where its index lies."""
    return replace(header, flags=COMMITTED_TRAILER, index_offset=index_offset, index_size=index_size)


def with_virtual_size(block: Block, size: int) -> Block:
    """The same header for a disk of size bytes."""
    return replace(block, virtual_size=size)


def _check_virtual_size(block: Block, where: str) -> None:
    if block.virtual_size > MAX_VIRTUAL_SIZE or block.virtual_size % SECTOR_SIZE:
        raise CorruptError(
            f"{where}: virtual_size is {block.virtual_size},"
            f" not a multiple of {SECTOR_SIZE} up to {MAX_VIRTUAL_SIZE}"
        )
