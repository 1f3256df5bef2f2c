"""Layers, uppers and images: the stack that is read and written (csrc/image)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, Self

from tcmu_overlaybd.native._binding import check, ffi, lib
from tcmu_overlaybd.native.handle import Handle, opened
from tcmu_overlaybd.native.source import Source

MAX_LAYERS: int = lib.OBD_MAX_LAYERS

EXTENT_HOLE: int = lib.OBD_EXTENT_HOLE
EXTENT_ZERO: int = lib.OBD_EXTENT_ZERO
EXTENT_DATA: int = lib.OBD_EXTENT_DATA

_BATCH = 1024  # segments or extents taken over in one call


class Segment(NamedTuple):
    """An index entry; sectors."""

    offset: int
    length: int
    moffset: int
    is_zero: bool
    tag: int


class Extent(NamedTuple):
    """What a range of an image is made of; bytes.  layer is the place in lowers, -1 for a hole."""

    offset: int
    length: int
    kind: int
    layer: int


@dataclass(frozen=True, slots=True)
class UpperStats:
    """See struct obd_upper_stats."""

    nr_segments: int
    nr_journal_slots: int  # 0: it has no journal
    nr_journal_used: int
    log_bytes: int
    live_bytes: int
    unflushed_bytes: int
    nr_flushes: int
    nr_flush_calls: int
    replayed: int
    dropped_writes: int
    dropped_bytes: int
    is_failed: bool
    is_drop_unexplained: bool


class SealedIndex(NamedTuple):
    """What a seal has put behind the log: for the trailer.  Bytes, and a number of entries."""

    offset: int
    nr_entries: int


class Layer(Handle):
    """A sealed layer whose index has been read and checked."""

    def __init__(self, pointer: object) -> None:
        super().__init__(pointer, lib.obd_layer_close)

    @classmethod
    def open(
        cls, source: Source, *, index_offset: int, nr_entries: int, virtual_size: int, timeout_ms: int
    ) -> Self:
        """Raises CorruptError for an index that breaks a rule.  Keeps source open by itself."""
        params = ffi.new("struct obd_layer_params *")
        params.index_offset, params.nr_entries, params.virtual_size = index_offset, nr_entries, virtual_size
        return cls(opened(lib.obd_layer_open, "struct layer", source.handle, params, timeout_ms))

    @classmethod
    def open_raw(cls, path: str) -> Self:
        """A raw disk image: the data extents of its file."""
        return cls(opened(lib.obd_layer_open_raw, "struct layer", os.fsencode(path)))

    @property
    def nr_segments(self) -> int:
        return int(lib.obd_layer_nr_segments(self.handle))

    def segments(self) -> Iterator[Segment]:
        """In order of offset."""
        batch = ffi.new("struct obd_segment[]", _BATCH)
        first = 0
        while nr := lib.obd_layer_segments(self.handle, first, batch, _BATCH):
            for s in batch[0:nr]:
                yield Segment(s.offset, s.length, s.moffset, bool(s.zeroed), s.tag)
            first += nr


class Upper(Handle):
    """A writable pair, locked.  An image takes it over."""

    def __init__(self, pointer: object) -> None:
        super().__init__(pointer, lib.obd_upper_close)

    @classmethod
    def open(
        cls,
        data: str,
        index: str,
        *,
        uuid: str,
        holder: str,
        virtual_size: int,
        tag: int,
        read_only: bool,
        sparse: bool = False,
        drop_unflushed: bool = False,
        no_journal: bool = False,
        lose_nothing: bool = False,
        flush_interval_ms: int = 0,
        journal_slots: int = 0,
    ) -> Self:
        """Replays what a killed process left; with read_only in memory only.

        Raises BusyError (with the holder), JournalError, CorruptError.
        """
        flags = lib.OBD_UPPER_READ_ONLY if read_only else 0
        flags |= lib.OBD_UPPER_SPARSE if sparse else 0
        flags |= lib.OBD_UPPER_DROP_UNFLUSHED if drop_unflushed else 0
        flags |= lib.OBD_UPPER_NO_JOURNAL if no_journal else 0
        flags |= lib.OBD_UPPER_LOSE_NOTHING if lose_nothing else 0
        texts = [ffi.new("char[]", os.fsencode(text)) for text in (data, index, uuid, holder)]
        params = ffi.new("struct obd_upper_params *")
        params.data_path, params.index_path, params.uuid, params.holder = texts
        params.virtual_size, params.tag, params.flags = virtual_size, tag, flags
        params.flush_interval_ms, params.journal_slots = flush_interval_ms, journal_slots
        return cls(opened(lib.obd_upper_open, "struct upper", params))

    def stats(self) -> UpperStats:
        out = ffi.new("struct obd_upper_stats *")
        lib.obd_upper_stats(self.handle, out)
        return _upper_stats(out)


class Image(Handle):
    """The stack.  Offsets and lengths in bytes, multiples of 512."""

    def __init__(self, pointer: object) -> None:
        super().__init__(pointer, lib.obd_image_close)

    @classmethod
    def open(cls, lowers: Sequence[Layer], upper: Upper | None, *, virtual_size: int, name: str) -> Self:
        """lowers[0] is the lowest; they may be closed afterwards.  Takes upper, also when it raises."""
        pointers = ffi.new("struct layer *[]", [lower.handle for lower in lowers])
        top = ffi.NULL if upper is None else upper.release()
        arguments = (pointers, len(lowers), top, virtual_size, name.encode())
        return cls(opened(lib.obd_image_open, "struct image", *arguments))

    @property
    def size(self) -> int:
        return int(lib.obd_image_size(self.handle))

    @property
    def is_read_only(self) -> bool:
        return bool(lib.obd_image_is_read_only(self.handle))

    @property
    def nr_segments(self) -> int:
        """Of the merged lowers."""
        return int(lib.obd_image_nr_segments(self.handle))

    def read(self, length: int, offset: int, timeout_ms: int) -> bytes:
        buffer = bytearray(length)
        self.read_into(buffer, offset, timeout_ms)
        return bytes(buffer)

    def read_into(self, buffer: bytearray | memoryview, offset: int, timeout_ms: int) -> None:
        """Fills buffer from offset on.  Raises CorruptError, TimeoutExpiredError."""
        view = ffi.from_buffer(buffer, require_writable=True)
        check(lib.obd_image_read(self.handle, view, len(buffer), offset, timeout_ms))

    def write(self, data: bytes | bytearray | memoryview, offset: int, timeout_ms: int) -> None:
        """Raises NoSpaceError, ReadOnlyError; TimeoutExpiredError when the journal stays full."""
        check(lib.obd_image_write(self.handle, ffi.from_buffer(data), len(data), offset, timeout_ms))

    def discard(self, length: int, offset: int, timeout_ms: int) -> None:
        check(lib.obd_image_discard(self.handle, length, offset, timeout_ms))

    def grow(self, size: int) -> None:
        """The disk has size bytes from now on; the next flush makes that durable.

        Raises UsageError when it had more, ReadOnlyError.
        """
        check(lib.obd_image_grow(self.handle, size))

    def flush(self) -> None:
        """All that was written before is durable when it returns."""
        check(lib.obd_image_flush(self.handle))

    def seal(self) -> SealedIndex:
        """Writes the upper's index behind its log; nobody may write meanwhile, or ever after.

        Raises LimitError, NoSpaceError, BusyError (a write runs); unseal makes it writable then.
        """
        out = ffi.new("struct obd_sealed_index *")
        check(lib.obd_image_seal(self.handle, out))
        return SealedIndex(out.index_offset, out.nr_entries)

    def finish_seal(self, trailer: bytes) -> None:
        """With the trailer the upper's data file is a sealed layer, and all of it is durable."""
        check(lib.obd_image_finish_seal(self.handle, trailer))

    def unseal(self) -> None:
        """The upper is as before; for a seal that nobody has made use of."""
        check(lib.obd_image_unseal(self.handle))

    def share(self) -> Image:
        """Another handle of it, which stays open when this one is closed."""
        return Image(lib.obd_image_share(self.handle))

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """What [offset, offset + length) is made of, in order."""
        batch = ffi.new("struct obd_extent[]", _BATCH)
        nr = ffi.new("size_t *")
        end = offset + length
        while offset < end:
            check(lib.obd_image_extents(self.handle, offset, end - offset, batch, _BATCH, nr))
            for e in batch[0 : nr[0]]:
                yield Extent(e.offset, e.length, e.kind, e.layer)
            last = batch[nr[0] - 1]
            offset = last.offset + last.length

    def upper_stats(self) -> UpperStats:
        """Raises MissingError when it has no upper."""
        out = ffi.new("struct obd_upper_stats *")
        check(lib.obd_image_upper_stats(self.handle, out))
        return _upper_stats(out)


def _upper_stats(out: Any) -> UpperStats:
    values = {field.name: getattr(out, field.name) for field in fields(UpperStats)}
    flags = {name: bool(values[name]) for name in ("is_failed", "is_drop_unexplained")}
    return UpperStats(**{**values, **flags})
