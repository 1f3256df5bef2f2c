"""Writing a layer: a stream into a file, compressed on the way, and an image's live segments into it."""

from __future__ import annotations

from dataclasses import dataclass

from tcmu_overlaybd.native._binding import check, ffi, lib
from tcmu_overlaybd.native.handle import Handle, opened
from tcmu_overlaybd.native.image import Image


@dataclass(frozen=True, slots=True)
class Written:
    """See struct obd_writer_result.  ``index_offset`` counts from where the writer began."""

    bytes_in: int
    bytes_out: int
    index_offset: int
    nr_blocks: int
    index_crc: int


@dataclass(frozen=True, slots=True)
class Compacted:
    """See struct obd_compact_result: where the LSMT index lies."""

    index_offset: int
    nr_entries: int
    nr_segments: int


class Writer(Handle):
    """Writes to a borrowed file descriptor from offset on.  codec 0 is a plain copy."""

    def __init__(self, fd: int, *, offset: int, codec: int, block_size: int, nr_threads: int) -> None:
        params = ffi.new("struct obd_writer_params *")
        params.fd, params.offset, params.codec = fd, offset, codec
        params.block_size, params.nr_threads = block_size, nr_threads
        super().__init__(opened(lib.obd_writer_open, "struct writer", params), lib.obd_writer_close)

    def write(self, data: bytes) -> None:
        check(lib.obd_writer_write(self.handle, ffi.from_buffer(data), len(data)))

    def finish(self) -> Written:
        """Writes the last block and the jump table."""
        out = ffi.new("struct obd_writer_result *")
        check(lib.obd_writer_finish(self.handle, out))
        return Written(out.bytes_in, out.bytes_out, out.index_offset, out.nr_blocks, out.index_crc)


class Compact(Handle):
    """Copies an image's live segments into a writer that stands behind the LSMT header."""

    def __init__(
        self,
        image: Image,
        writer: Writer,
        *,
        detect_zeros: bool = False,
        drop_zeros: bool = False,
        keep_tags: bool = False,
        upper_only: bool = False,
        timeout_ms: int,
    ) -> None:
        params = ffi.new("struct obd_compact_params *")
        params.detect_zeros, params.drop_zeros, params.keep_tags = detect_zeros, drop_zeros, keep_tags
        params.upper_only, params.timeout_ms = upper_only, timeout_ms
        pointer = opened(lib.obd_compact_open, "struct compact", image.handle, writer.handle, params)
        super().__init__(pointer, lib.obd_compact_close)
        self._parts = (image, writer)  # borrowed by C until this is closed

    @property
    def total(self) -> int:
        """Bytes of data to copy."""
        return int(lib.obd_compact_total(self.handle))

    def step(self, max_bytes: int) -> int:
        """Copies about max_bytes more; returns the sum so far."""
        done = ffi.new("uint64_t *")
        check(lib.obd_compact_step(self.handle, max_bytes, done))
        return int(done[0])

    def finish(self) -> Compacted:
        """Writes the index.  Raises LimitError above a million entries."""
        out = ffi.new("struct obd_compact_result *")
        check(lib.obd_compact_finish(self.handle, out))
        return Compacted(out.index_offset, out.nr_entries, out.nr_segments)
