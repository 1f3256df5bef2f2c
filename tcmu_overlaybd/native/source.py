"""Sources: stackable readers (csrc/source/source.h), and the CRC they use."""

from __future__ import annotations

import os
from typing import Self

from tcmu_overlaybd.native._binding import check, ffi, lib
from tcmu_overlaybd.native.handle import Handle, opened

DELAY_NEVER = 0xFFFFFFFF


def crc32c(data: bytes, seed: int) -> int:
    """The raw CRC-32C of spec/zfile.md section 4."""
    return int(lib.obd_crc32c(ffi.from_buffer(data), len(data), seed))


class Source(Handle):
    """Bytes that can be read.  One that reads another keeps that one open by itself."""

    def __init__(self, pointer: object) -> None:
        super().__init__(pointer, lib.obd_source_close)

    @classmethod
    def open_file(cls, path: str) -> Self:
        """Raises MissingError when there is none."""
        return cls(opened(lib.obd_source_open_file, "struct source", os.fsencode(path)))

    @classmethod
    def slice(cls, below: Source, offset: int, size: int) -> Self:
        """size bytes of below from offset on.  Raises CorruptError when it has not so many."""
        return cls(opened(lib.obd_source_open_slice, "struct source", below.handle, offset, size))

    @classmethod
    def zfile(
        cls,
        below: Source,
        *,
        index_offset: int,
        nr_blocks: int,
        original_size: int,
        block_size: int,
        codec: int,
        has_block_crc: bool,
        index_crc: int | None,
        timeout_ms: int,
    ) -> Self:
        """The content of the ZFile in below.  Raises CorruptError for a damaged jump table.

        index_crc None: the file has none that is valid.
        """
        params = ffi.new("struct obd_zfile_params *")
        params.index_offset, params.nr_blocks, params.original_size = index_offset, nr_blocks, original_size
        params.block_size, params.codec, params.has_block_crc = block_size, codec, has_block_crc
        params.has_index_crc, params.index_crc = index_crc is not None, index_crc or 0
        return cls(opened(lib.obd_source_open_zfile, "struct source", below.handle, params, timeout_ms))

    @classmethod
    def slow(cls, below: Source, *, chunk_size: int, delay_ms: int, keep_ms: int) -> Self:
        """Test build only: chunks of below that come delay_ms after they were asked for."""
        arguments = (below.handle, chunk_size, delay_ms, keep_ms)
        return cls(opened(lib.obd_source_open_slow, "struct source", *arguments))

    def set_late(self, is_late: bool) -> None:
        """Whether a slow source keeps its readers waiting; it does from the start."""
        check(lib.obd_source_set_late(self.handle, is_late))

    def discard(self, offset: int, length: int) -> None:
        """These bytes are wrong: they are fetched again when they are read again.

        Raises CorruptError for a source that would get them from the same place.
        """
        check(lib.obd_source_discard(self.handle, offset, length))

    def share(self) -> Self:
        """One more handle of it, with a life of its own."""
        return type(self)(lib.obd_source_share(self.handle))

    @property
    def size(self) -> int:
        return int(lib.obd_source_size(self.handle))

    def read(self, length: int, offset: int, timeout_ms: int) -> bytes:
        """Raises CorruptError for damaged data, TimeoutExpiredError when it does not come."""
        buffer = bytearray(length)
        check(lib.obd_source_read(self.handle, ffi.from_buffer(buffer), length, offset, timeout_ms))
        return bytes(buffer)

    def verify_zfile(self, first_block: int, nr_blocks: int, timeout_ms: int) -> None:
        """Decodes and checks blocks of a zfile source.  CorruptError names the first bad one."""
        check(lib.obd_source_verify_zfile(self.handle, first_block, nr_blocks, timeout_ms))


class BackgroundReader(Handle):
    """Reads a source when nobody else wants anything; one thread reads, any may ``stop``."""

    def __init__(self, pointer: object) -> None:
        super().__init__(pointer, lib.obd_background_reader_close)

    @classmethod
    def open(cls, source: Source) -> Self:
        """Keeps source open by itself."""
        return cls(opened(lib.obd_background_reader_open, "struct background_reader", source.handle))

    def read_into(self, buffer: bytearray | memoryview, offset: int, timeout_ms: int) -> None:
        """Fills buffer from offset on.  Raises TimeoutExpiredError, UnavailableError; FailedError
        once it is stopped.
        """
        view = ffi.from_buffer(buffer, require_writable=True)
        check(lib.obd_background_reader_read(self.handle, view, len(buffer), offset, timeout_ms))

    def stop(self) -> None:
        """A read that waits ends at once, and every later one that would wait."""
        lib.obd_background_reader_stop(self.handle)
