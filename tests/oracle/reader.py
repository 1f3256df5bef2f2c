"""A second reader of overlaybd images, written from the specification alone.

It shares no line with tcmu_overlaybd, on purpose: what one of them misreads, the
other does not misread in the same way.  ``struct``, ``lz4`` and ``zstandard`` only,
whole files in memory, no speed.  Anything that breaks a rule raises ``OracleError``.

    image = read_image(Path("config.v1.json"))      # or layers, lowest first
    image.size, image.digest(), image.read(offset, length)
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import lz4.block
import zstandard

SECTOR = 512
CHUNK = 1 << 20
INVALID = (1 << 50) - 1
LSMT_MAGIC = b"LSMT\0\1\2\0\x65\x7e\x63\xd2\x94\x44\x08\x4c\xa2\xd2\xc8\xec\x4f\xcf\xae\x8a"
ZFILE_MAGIC = b"ZFile\0\1\0tuji.yyf@Alibaba"


class OracleError(Exception):
    """A file is not what the specification says."""


def require(condition: bool, sentence: str) -> None:
    if not condition:
        raise OracleError(sentence)


# ---- checksums ---------------------------------------------------------------


def _table() -> list[int]:
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


CRC_TABLE = _table()


def crc(data: bytes, seed: int) -> int:
    """CRC-32C without the inversions (spec/zfile.md section 4)."""
    for byte in data:
        seed = CRC_TABLE[(seed ^ byte) & 0xFF] ^ seed >> 8
    return seed


# ---- containers --------------------------------------------------------------


def unwrap_tar(data: bytes) -> bytes:
    """The payload of a tar wrapper; anything else as it is."""
    if data[257:262] != b"ustar" or data[263:265] != b"00":
        return data
    blank = data[:148] + b" " * 8 + data[156:512]
    require(int(data[148:154].strip(b" \0"), 8) == sum(blank), "tar: checksum")
    size = int(data[124:136].strip(b" \0"), 8)
    if data[156:157] != b"x":
        return _cut(data, 512, size)
    records = dict(line.split(b" ", 1)[1].split(b"=", 1) for line in data[512 : 512 + size].splitlines())
    return _cut(data, 1536, int(records[b"size"]))


def _cut(data: bytes, offset: int, size: int) -> bytes:
    require(offset + size <= len(data), "tar: payload is cut short")
    return data[offset : offset + size]


def _zfile_fields(block: bytes) -> tuple[int, int, int, int, int, int, int, int]:
    require(block[:24] == ZFILE_MAGIC, "zfile: magic")
    digest, flags, index_offset, nr_blocks, size, index_crc = struct.unpack_from("<IQQQQI", block, 28)
    if flags & 16:
        require(crc(block[:28] + bytes(4) + block[32:], 0) == digest, "zfile: digest")
    (block_size,) = struct.unpack_from("<I", block, 72)
    return flags, index_offset, nr_blocks, size, index_crc, block_size, block[76], block[88]


def unzip_zfile(data: bytes) -> bytes:
    """The content of a ZFile, every checksum checked; anything else as it is."""
    if data[:24] != ZFILE_MAGIC:
        return data
    fields = _zfile_fields(data[:512])
    require(fields[0] & 1 == 1, "zfile: header flag")
    if not fields[0] & 8:
        fields = _zfile_fields(data[-512:])
        require(fields[0] & 7 == 6, "zfile: trailer flags")
    flags, index_offset, nr_blocks, size, index_crc, block_size, algorithm, verify = fields
    table = data[index_offset : index_offset + 4 * nr_blocks]
    require(len(table) == 4 * nr_blocks, "zfile: jump table is cut short")
    if flags & 16:
        require(crc(table, 0) == index_crc, "zfile: jump table crc")
    content = bytearray()
    position = 512
    for length in struct.unpack(f"<{nr_blocks}I", table):
        stored = data[position : position + length]
        require(len(stored) == length, "zfile: block is cut short")
        position += length
        if verify:
            require(crc(stored[:-4], 100007) == int.from_bytes(stored[-4:], "little"), "zfile: block crc")
            stored = stored[:-4]
        content += _decompress(stored, algorithm, min(block_size, size - len(content)))
    require(position == index_offset, "zfile: blocks do not end at the jump table")
    require(len(content) == size, "zfile: size")
    return bytes(content)


def _decompress(stored: bytes, algorithm: int, size: int) -> bytes:
    if algorithm == 1:
        plain = lz4.block.decompress(stored, uncompressed_size=size)
    else:
        require(algorithm == 2, "zfile: algorithm")
        plain = zstandard.ZstdDecompressor().decompress(stored, max_output_size=size)
    require(len(plain) == size, "zfile: block size")
    return plain


# ---- layers ------------------------------------------------------------------


@dataclass(frozen=True)
class Segment:
    """All in sectors."""

    offset: int
    length: int
    moffset: int
    is_zero: bool
    tag: int


@dataclass
class Layer:
    """What a layer says: segments to be painted in order, from data."""

    size: int
    uuid: str
    parent: str
    segments: list[Segment]
    data: bytes
    tag: bytes = b""


def segments_of(raw: bytes) -> Iterator[Segment]:
    """Every entry that is no padding; a torn last one is ignored."""
    for w0, w1 in struct.iter_unpack("<QQ", raw[: len(raw) // 16 * 16]):
        if w0 & INVALID != INVALID:
            yield Segment(w0 & INVALID, w0 >> 50, w1 & (1 << 55) - 1, bool(w1 >> 55 & 1), w1 >> 56)


def lsmt_block(block: bytes) -> tuple[int, int, int, int, str, str, bytes]:
    """flags, index offset, index size, virtual size, uuid, parent uuid, user tag."""
    require(len(block) == 4096 and block[:24] == LSMT_MAGIC, "lsmt: magic")
    flags, index_offset, index_size, size = struct.unpack_from("<IQQQ", block, 28)
    uuid, parent = (block[at : at + 36].decode("ascii") for at in (56, 93))
    return flags, index_offset, index_size, size, uuid, parent, block[134:390].rstrip(b"\0")


def read_sealed(data: bytes) -> Layer:
    """A committed or sealed layer, unwrapped."""
    require(lsmt_block(data[:4096])[0] & 3 == 3, "lsmt: header flags")
    flags, index_offset, index_size, size, uuid, parent, tag = lsmt_block(data[-4096:])
    require(flags & 7 == 6, "lsmt: trailer flags")
    end = index_offset + 16 * index_size
    require(end <= len(data) - 4096, "lsmt: index is cut short")
    segments = list(segments_of(data[index_offset:end]))
    for one, other in pairwise(segments):
        require(one.offset + one.length <= other.offset, "lsmt: index order")
    _check_places(segments, index_offset // SECTOR)
    return Layer(size, uuid, parent, segments, data, tag)


def read_append(data: bytes, index: bytes) -> Layer:
    """A writable pair: a log of data and a log of entries."""
    require(lsmt_block(data[:4096])[0] & 7 == 3, "lsmt: data header flags")
    flags, index_offset, _, size, uuid, parent, _ = lsmt_block(index[:4096])
    require(flags & 7 == 1 and index_offset == 4096, "lsmt: index header")
    segments = list(segments_of(index[4096:]))
    _check_places(segments, len(data) // SECTOR)
    return Layer(size, uuid, parent, segments, data)


def read_sparse(path: Path) -> Layer:
    """A sparse writable layer: extents of the file are its segments."""
    data = path.read_bytes()
    _, _, _, size, uuid, parent, _ = lsmt_block(data[:4096])
    segments = [
        Segment((a - 4096) // SECTOR, (b - a) // SECTOR, a // SECTOR, False, 0) for a, b in _extents(path)
    ]
    return Layer(size, uuid, parent, segments, data)


def _extents(path: Path) -> Iterator[tuple[int, int]]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        end = os.fstat(descriptor).st_size
        at = 4096
        while at < end:
            try:
                begin = os.lseek(descriptor, at, os.SEEK_DATA)
            except OSError:
                return
            at = os.lseek(descriptor, begin, os.SEEK_HOLE)
            yield begin, at
    finally:
        os.close(descriptor)


def _check_places(segments: Iterable[Segment], end: int) -> None:
    for s in segments:
        require(8 <= s.moffset <= end, "lsmt: place")
        require(s.is_zero or s.moffset + s.length <= end, "lsmt: place")


# ---- images ------------------------------------------------------------------


@dataclass
class Image:
    """The stack painted, lowest layer first; chunks that are absent are zeros."""

    size: int
    chunks: dict[int, bytearray] = field(default_factory=dict)

    def paint(self, layer: Layer) -> None:
        for segment in layer.segments:
            at, left = segment.offset * SECTOR, segment.length * SECTOR
            place = segment.moffset * SECTOR
            while left:
                number, within = divmod(at, CHUNK)
                n = min(left, CHUNK - within)
                if not segment.is_zero:
                    chunk = self.chunks.setdefault(number, bytearray(CHUNK))
                    chunk[within : within + n] = layer.data[place : place + n]
                elif number in self.chunks:
                    self.chunks[number][within : within + n] = bytes(n)
                at, left, place = at + n, left - n, place + n

    def chunk(self, number: int) -> bytes:
        return bytes(self.chunks.get(number, bytes(CHUNK)))[: self.size - number * CHUNK]

    def read(self, offset: int, length: int) -> bytes:
        first, last = offset // CHUNK, (offset + length - 1) // CHUNK
        whole = b"".join(self.chunk(n) for n in range(first, last + 1))
        return whole[offset - first * CHUNK :][:length]

    def digest(self) -> str:
        total = hashlib.sha256()
        for number in range(-(-self.size // CHUNK)):
            total.update(self.chunk(number))
        return total.hexdigest()


def read_layer(path: Path) -> Layer:
    return read_sealed(unzip_zfile(unwrap_tar(path.read_bytes())))


def read_upper(data: Path, index: Path) -> Layer:
    flags = lsmt_block(data.read_bytes()[:4096])[0]
    return read_sparse(data) if flags & 16 else read_append(data.read_bytes(), index.read_bytes())


def stack(layers: list[Layer]) -> Image:
    """layers[0] is the lowest; the topmost that has a size gives the disk's."""
    image = Image(next(layer.size for layer in reversed(layers) if layer.size))
    for layer in layers:
        image.paint(layer)
    return image


def read_image(config: Path, folder: Path | None = None) -> Image:
    """The image of a config.v1.json; relative paths are taken from folder, by default its own."""
    value = json.loads(config.read_text())
    base = folder or config.parent
    layers = [read_layer(base / lower["file"]) for lower in value.get("lowers") or []]
    upper = value.get("upper") or {}
    if upper.get("data"):
        layers.append(read_upper(base / upper["data"], base / upper["index"]))
    return stack(layers)
