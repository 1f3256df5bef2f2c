"""One layer, from its outermost wrapper inwards: tar, then ZFile, then LSMT.

``read_layer_file`` reads and checks headers and trailers only (spec/lsmt.md section
4.1 steps 1 to 3); ``open_layer`` goes on to the index, which C reads and checks.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TypeVar

from tcmu_overlaybd.errors import CorruptError, FormatError
from tcmu_overlaybd.formats import lsmt, tar, zfile
from tcmu_overlaybd.image import slow_files
from tcmu_overlaybd.image.layer_place import LayerPlace, PlacedSource
from tcmu_overlaybd.native.image import Layer
from tcmu_overlaybd.native.source import Source, crc32c
from tcmu_overlaybd.registry.deadline import Deadline
from tcmu_overlaybd.remote.blob import RemoteBlob

logger = logging.getLogger(__name__)

T = TypeVar("T")

# How long opening waits for bytes that are not here, unless the caller says it; local
# files never make it wait.
OPEN_TIMEOUT_S = 60.0
OPEN_TIMEOUT_MS = int(OPEN_TIMEOUT_S * 1000)  # of one read, for who looks at all of a layer
HEADER_READ = lsmt.BLOCK_SIZE

# One for the beginning and one for the end that came wrong, and one that is right.
LOOKS = 3


@dataclass(frozen=True)
class Containers:
    """What a layer file wraps its LSMT bytes in.  Sizes and offsets in bytes."""

    size: int  # of all
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
    """What the headers and trailers of a layer say; ``name`` is its path or its blob's."""

    name: str
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
    """A layer's bytes, unwrapped and decompressed, and what its headers say."""

    file: LayerFile
    placed: PlacedSource  # the bytes as they are stored
    source: Source
    slow: Source | None  # tests only: to be made late once the index is read
    deadline: Deadline  # of opening
    stack: ExitStack  # closes source and all below

    def open_index(self) -> Layer:
        """The layer, its index read and checked; it keeps what it needs of the sources open."""
        trailer = self.file.trailer
        layer = Layer.open(
            self.source,
            index_offset=trailer.index_offset,
            nr_entries=trailer.index_size,
            virtual_size=trailer.virtual_size,
            timeout_ms=_left_ms(self.deadline),
        )
        if self.slow is not None:
            self.slow.set_late(True)
        return layer

    @property
    def raw(self) -> Source:
        return self.placed.source

    def close(self) -> None:
        self.stack.close()

    def __enter__(self) -> OpenSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_layer_source(place: LayerPlace, deadline: Deadline | None = None) -> OpenSource:
    """Opens the layer at place down to its LSMT bytes.

    Raises what place.open does, FormatError or CorruptError for what is no sound sealed layer,
    UnavailableError and TimeoutExpiredError when it does not come.
    """
    until = deadline or Deadline.after(OPEN_TIMEOUT_S)
    return _with_another_look(place, lambda: _open_source(place, until))


def _with_another_look(place: LayerPlace, look: Callable[[], T]) -> T:
    """What look gives; when it finds damage, it looks again, at bytes that are fetched anew.

    Blocks are read again where their checksums fail (csrc/source/zfile.c).  Headers, jump
    table and index are read here only: what came wrong of them, or was damaged since it
    came, would be kept, and no later opening would succeed.
    """
    for _ in range(LOOKS - 1):
        try:
            return look()
        except CorruptError as error:
            if not place.forget():
                raise
            logger.warning("%s: it is fetched again", error)
    return look()


def _open_source(place: LayerPlace, deadline: Deadline) -> OpenSource:
    with ExitStack() as stack:
        placed = place.open()
        stack.callback(placed.close)
        raw = source = placed.source
        containers = _read_containers(_Reader(raw, place.name, deadline))
        slow = None if place.path is None else slow_files.open_over(place.path, raw)
        source = raw if slow is None else stack.enter_context(slow)
        if containers.wrapper:
            source = stack.enter_context(
                Source.slice(source, containers.wrapper.offset, containers.wrapper.size)
            )
        if containers.zfile_index:
            source = stack.enter_context(open_zfile(source, containers.zfile_index, deadline))
        header, trailer = _read_lsmt_blocks(_Reader(source, place.name, deadline))
        file = LayerFile(place.name, containers, source.size, header, trailer)
        return OpenSource(file, placed, source, slow, deadline, stack.pop_all())


def read_layer_file(place: LayerPlace) -> LayerFile:
    """What open_layer_source finds, without keeping anything open."""
    with open_layer_source(place) as opened:
        return opened.file


@dataclass
class OpenLayer:
    """A layer with its index, and what answers for its bytes, if that is a registry."""

    file: LayerFile
    layer: Layer
    blob: RemoteBlob | None

    def close(self) -> None:
        self.layer.close()
        if self.blob is not None:
            self.blob.close()


def open_layer(place: LayerPlace, deadline: Deadline | None = None) -> OpenLayer:
    """The layer at place, its index read and checked; the caller closes it."""
    until = deadline or Deadline.after(OPEN_TIMEOUT_S)
    return _with_another_look(place, lambda: _open_whole(place, until))


def _open_whole(place: LayerPlace, deadline: Deadline) -> OpenLayer:
    with _open_source(place, deadline) as opened:
        return OpenLayer(opened.file, opened.open_index(), opened.placed.take_blob())


@dataclass(frozen=True)
class _Reader:
    """Reads a source, named for messages, until the deadline."""

    source: Source
    name: str
    deadline: Deadline

    def read(self, offset: int, length: int) -> bytes:
        return self.source.read(length, offset, _left_ms(self.deadline)) if length else b""


def _left_ms(deadline: Deadline) -> int:
    """What is here can be read even when nothing is left."""
    return round(deadline.remaining() * 1000)


def _read_containers(raw: _Reader) -> Containers:
    whole = size = raw.source.size
    offset, wrapper = 0, None
    start = raw.read(0, min(HEADER_READ, size))
    if not (lsmt.is_lsmt(start) or zfile.is_zfile(start)):
        wrapper = tar.detect(start, size, raw.name)
    if wrapper:
        size, offset = wrapper.size, wrapper.offset
        start = raw.read(offset, min(HEADER_READ, size))
    if zfile.is_zfile(start):
        return Containers(whole, wrapper, *_read_zfile_blocks(raw, start, offset, size))
    if not lsmt.is_lsmt(start):
        what = f"starts with {start[:8].hex()}" if start else "is empty"
        raise FormatError(f"{raw.name}: {what}: neither LSMT, ZFile nor a tar of one")
    return Containers(whole, wrapper, None, None)


def _read_zfile_blocks(raw: _Reader, start: bytes, offset: int, size: int) -> tuple[zfile.Block, zfile.Block]:
    """Header, and the block that locates the jump table."""
    header = zfile.parse_header(start[: zfile.BLOCK_SIZE], raw.name, crc32c)
    if header.is_overwritten:
        zfile.check_index(header, size, raw.name)
        return header, header
    if size < 2 * zfile.BLOCK_SIZE:
        raise CorruptError(f"{raw.name}: a ZFile of {size} bytes has no trailer: it is cut short")
    end = raw.read(offset + size - zfile.BLOCK_SIZE, zfile.BLOCK_SIZE)
    trailer = zfile.parse_trailer(end, raw.name, crc32c)
    zfile.check_index(trailer, size, raw.name)
    return header, trailer


def open_zfile(below: Source, index: zfile.Block, deadline: Deadline) -> Source:
    """The content of the ZFile that is all of below; index locates its jump table."""
    return Source.zfile(
        below,
        index_offset=index.index_offset,
        nr_blocks=index.nr_blocks,
        original_size=index.original_size,
        block_size=index.block_size,
        codec=index.codec,
        has_block_crc=index.has_block_crc,
        index_crc=index.index_crc if index.has_digest else None,
        timeout_ms=_left_ms(deadline),
    )


def _read_lsmt_blocks(lsmt_bytes: _Reader) -> tuple[lsmt.Block, lsmt.Block]:
    size, name = lsmt_bytes.source.size, lsmt_bytes.name
    if size < 2 * lsmt.BLOCK_SIZE:
        raise CorruptError(f"{name}: an LSMT layer of {size} bytes has no trailer: it is cut short")
    header = lsmt.parse_layer_header(lsmt_bytes.read(0, lsmt.BLOCK_SIZE), name)
    end = lsmt_bytes.read(size - lsmt.BLOCK_SIZE, lsmt.BLOCK_SIZE)
    if not lsmt.is_lsmt(end):
        why = (
            "it is cut short"
            if header.is_sealed
            else "it is cut short, or a writable layer that was never sealed"
        )
        raise CorruptError(f"{name}: there is no LSMT trailer in its last {lsmt.BLOCK_SIZE} bytes: {why}")
    return header, lsmt.parse_layer_trailer(end, size, name)
