"""One layer file, from its outermost wrapper inwards: tar, then ZFile, then LSMT.

``read_layer_file`` reads and checks headers and trailers only (spec/lsmt.md section
4.1 steps 1 to 3); ``open_layer_file`` goes on to the index, which C reads and checks.
"""

from __future__ import annotations

import os
import stat
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tcmu_overlaybd.errors import CorruptError, FormatError, MissingError, UsageError
from tcmu_overlaybd.formats import lsmt, tar, zfile
from tcmu_overlaybd.image import slow_files
from tcmu_overlaybd.native.image import Layer
from tcmu_overlaybd.native.source import Source, crc32c

# How long opening waits for bytes that are not here; local files never make it wait.
OPEN_TIMEOUT_MS = 60_000
HEADER_READ = lsmt.BLOCK_SIZE


@dataclass(frozen=True)
class Containers:
    """What a layer file wraps its LSMT bytes in.  Sizes and offsets in bytes."""

    size: int  # of the file
    wrapper: tar.Payload | None
    zfile_header: zfile.Block | None
    zfile_index: zfile.Block | None  # header or trailer: the one that locates the jump table

    @property
    def payload_offset(self) -> int:
        """Where ZFile or LSMT begins."""
        return self.wrapper.offset if self.wrapper else 0

    @property
    def payload_size(self) -> int:
        return self.wrapper.size if self.wrapper else self.size


@dataclass(frozen=True)
class LayerFile:
    """What the headers and trailers of a layer file say."""

    path: Path
    containers: Containers
    lsmt_size: int  # bytes, unwrapped and decompressed
    header: lsmt.Block
    trailer: lsmt.Block

    @property
    def kind(self) -> str:
        """``committed``, or ``sealed`` for a writable layer that was ended in place."""
        return "committed" if self.header.is_sealed else "sealed"


@dataclass
class OpenSource:
    """A layer file's bytes, unwrapped and decompressed, and what its headers say."""

    file: LayerFile
    source: Source
    slow: Source | None  # tests only: to be made late once the index is read
    stack: ExitStack  # closes source and all below

    def open_index(self) -> Layer:
        """The layer, its index read and checked; it keeps what it needs of the sources open."""
        trailer = self.file.trailer
        layer = Layer.open(
            self.source,
            index_offset=trailer.index_offset,
            nr_entries=trailer.index_size,
            virtual_size=trailer.virtual_size,
            timeout_ms=OPEN_TIMEOUT_MS,
        )
        if self.slow is not None:
            self.slow.set_late(True)
        return layer

    def close(self) -> None:
        self.stack.close()

    def __enter__(self) -> OpenSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_layer_source(path: Path) -> OpenSource:
    """Opens the layer file at path down to its LSMT bytes.

    Raises MissingError, UsageError for what is no regular file, FormatError or
    CorruptError for what is no sound sealed layer.
    """
    containers = _read_containers(path)
    with ExitStack() as stack:
        source = stack.enter_context(Source.open_file(str(path)))
        slow = slow_files.open_over(path, source)
        source = source if slow is None else stack.enter_context(slow)
        if containers.wrapper:
            source = stack.enter_context(
                Source.slice(source, containers.wrapper.offset, containers.wrapper.size)
            )
        if containers.zfile_index:
            source = stack.enter_context(_open_zfile(source, containers.zfile_index))
        header, trailer = _read_lsmt_blocks(source, path)
        file = LayerFile(path, containers, source.size, header, trailer)
        return OpenSource(file, source, slow, stack.pop_all())


def read_layer_file(path: Path) -> LayerFile:
    """What open_layer_source finds, without keeping anything open."""
    with open_layer_source(path) as opened:
        return opened.file


def open_layer_file(path: Path) -> tuple[LayerFile, Layer]:
    """The layer at path, its index read and checked; the caller closes it."""
    with open_layer_source(path) as opened:
        return opened.file, opened.open_index()


class _Reader:
    """The raw bytes of a regular file, for headers; a context manager."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> _Reader:
        try:
            # O_NONBLOCK: a fifo that somebody named by mistake must not hang us.
            self._descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise MissingError(f"{self.path}: no such layer file") from error
        facts = os.fstat(self._descriptor)
        if not stat.S_ISREG(facts.st_mode):
            os.close(self._descriptor)
            raise UsageError(f"{self.path}: not a regular file")
        self.size = facts.st_size
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def read(self, offset: int, length: int) -> bytes:
        return os.pread(self._descriptor, length, offset)


def _read_containers(path: Path) -> Containers:
    with _Reader(path) as reader:
        start = reader.read(0, HEADER_READ)
        size, offset, wrapper = reader.size, 0, None
        if not (lsmt.is_lsmt(start) or zfile.is_zfile(start)):
            wrapper = tar.detect(start, reader.size, str(path))
        if wrapper:
            size, offset = wrapper.size, wrapper.offset
            start = reader.read(offset, min(HEADER_READ, size))
        if zfile.is_zfile(start):
            return Containers(reader.size, wrapper, *_read_zfile_blocks(reader, start, offset, size))
        if not lsmt.is_lsmt(start):
            what = f"starts with {start[:8].hex()}" if start else "is empty"
            raise FormatError(f"{path}: {what}: neither LSMT, ZFile nor a tar of one")
        return Containers(reader.size, wrapper, None, None)


def _read_zfile_blocks(
    reader: _Reader, start: bytes, offset: int, size: int
) -> tuple[zfile.Block, zfile.Block]:
    """Header, and the block that locates the jump table."""
    name = str(reader.path)
    header = zfile.parse_header(start[: zfile.BLOCK_SIZE], name, crc32c)
    if header.is_overwritten:
        zfile.check_index(header, size, name)
        return header, header
    if size < 2 * zfile.BLOCK_SIZE:
        raise CorruptError(f"{name}: a ZFile of {size} bytes has no trailer: it is cut short")
    raw = reader.read(offset + size - zfile.BLOCK_SIZE, zfile.BLOCK_SIZE)
    trailer = zfile.parse_trailer(raw, name, crc32c)
    zfile.check_index(trailer, size, name)
    return header, trailer


def _open_zfile(below: Source, index: zfile.Block) -> Source:
    return Source.zfile(
        below,
        index_offset=index.index_offset,
        nr_blocks=index.nr_blocks,
        original_size=index.original_size,
        block_size=index.block_size,
        codec=index.codec,
        has_block_crc=index.has_block_crc,
        index_crc=index.index_crc if index.has_digest else None,
        timeout_ms=OPEN_TIMEOUT_MS,
    )


def _read_lsmt_blocks(source: Source, path: Path) -> tuple[lsmt.Block, lsmt.Block]:
    size = source.size
    if size < 2 * lsmt.BLOCK_SIZE:
        raise CorruptError(f"{path}: an LSMT layer of {size} bytes has no trailer: it is cut short")
    header = lsmt.parse_layer_header(source.read(lsmt.BLOCK_SIZE, 0, OPEN_TIMEOUT_MS), str(path))
    raw = source.read(lsmt.BLOCK_SIZE, size - lsmt.BLOCK_SIZE, OPEN_TIMEOUT_MS)
    if not lsmt.is_lsmt(raw):
        why = (
            "it is cut short"
            if header.is_sealed
            else "it is cut short, or a writable layer that was never sealed"
        )
        raise CorruptError(f"{path}: there is no LSMT trailer in its last {lsmt.BLOCK_SIZE} bytes: {why}")
    return header, lsmt.parse_layer_trailer(raw, size, str(path))
