"""A new layer file from the live segments of an image: what commit, merge and import share.

    [tar start 1536] [ZFile header 512] LSMT header, data, index, trailer [jump table]
    [ZFile trailer 512] [tar end]

C writes what lies between the ZFile header and its trailer; the rest is written here,
the headers last, because they say what was found out on the way (spec/lsmt.md section 7,
spec/zfile.md section 9, spec/tar.md section 2).  The same image and options give the
same bytes at any number of threads.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tcmu_overlaybd.errors import UsageError
from tcmu_overlaybd.formats import lsmt, tar, uuid_text, zfile
from tcmu_overlaybd.image.output_file import OutputFile
from tcmu_overlaybd.native.image import Image
from tcmu_overlaybd.native.source import crc32c
from tcmu_overlaybd.native.testing import hook
from tcmu_overlaybd.native.writer import Compact, Compacted, Writer, Written

STEP_BYTES = 8 << 20
READ_TIMEOUT_MS = 60_000
NO_CODEC = 0

# Called with bytes done and bytes in all.
Progress = Callable[[int, int], None]


def no_progress(done: int, total: int) -> None:
    """For callers who do not watch."""


@dataclass(frozen=True)
class LayerOptions:
    """How a layer is written.  Raises UsageError for what no layer can be."""

    codec: zfile.Codec | None = None  # None: plain LSMT
    block_size: int = zfile.DEFAULT_BLOCK_SIZE
    tar: bool = False
    uuid: str = uuid_text.NULL
    parent_uuid: str | None = None  # None: the source's
    message: str = ""
    nr_threads: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))
    detect_zeros: bool = False
    drop_zeros: bool = False  # for a lowest layer: nothing below that zeros would have to hide

    def __post_init__(self) -> None:
        if self.block_size not in zfile.WRITABLE_BLOCK_SIZES:
            sizes = ", ".join(str(size) for size in zfile.WRITABLE_BLOCK_SIZES)
            raise UsageError(f"blocks of {self.block_size} bytes are not possible, only of {sizes}")
        if len(self.message.encode()) > lsmt.MAX_USER_TAG:
            raise UsageError(
                f"the message is {len(self.message.encode())} bytes long, a layer holds {lsmt.MAX_USER_TAG}"
            )
        if self.nr_threads < 1:
            raise UsageError(f"{self.nr_threads} threads cannot write anything")


@dataclass(frozen=True)
class WrittenLayer:
    path: Path
    digest: str  # sha256:...
    size: int
    nr_segments: int


def write_layer(
    image: Image,
    path: Path,
    options: LayerOptions,
    parent_uuid: str,
    progress: Progress = no_progress,
    *,
    upper_only: bool = False,
) -> WrittenLayer:
    """Writes what is visible of image, or of its upper alone, as the new file path.

    Raises FailedError when path exists, LimitError for more than a million segments,
    and what reading the image raises; then there is no new file.
    """
    header = lsmt.Block(
        flags=lsmt.COMMITTED_HEADER,
        virtual_size=image.size,
        uuid=options.uuid,
        parent_uuid=options.parent_uuid or parent_uuid,
        user_tag=options.message.encode(),
    )
    body = (tar.PAX_PAYLOAD_OFFSET if options.tar else 0) + (zfile.BLOCK_SIZE if options.codec else 0)
    with OutputFile(path) as output:
        with Writer(
            output.fd,
            offset=body,
            codec=options.codec or NO_CODEC,
            block_size=options.block_size,
            nr_threads=options.nr_threads,
        ) as writer:
            writer.write(lsmt.build(header))
            compacted = _copy_segments(image, writer, options, progress, upper_only=upper_only)
            writer.write(lsmt.build(lsmt.trailer_of(header, compacted.index_offset, compacted.nr_entries)))
            written = writer.finish()
        size = body + written.bytes_out
        if options.codec:
            _write_zfile_blocks(output, body - zfile.BLOCK_SIZE, options.codec, options.block_size, written)
            size += zfile.BLOCK_SIZE
        if options.tar:
            size = _write_tar(output, size - tar.PAX_PAYLOAD_OFFSET)
        digest = _digest(output.fd, size)
        hook("commit.written")
    return WrittenLayer(path, f"sha256:{digest}", size, compacted.nr_segments)


def _copy_segments(
    image: Image, writer: Writer, options: LayerOptions, progress: Progress, *, upper_only: bool
) -> Compacted:
    """Data and index of the LSMT file."""
    with Compact(
        image,
        writer,
        detect_zeros=options.detect_zeros,
        drop_zeros=options.drop_zeros,
        upper_only=upper_only,
        timeout_ms=READ_TIMEOUT_MS,
    ) as compact:
        done, total = 0, compact.total
        while done < total:
            done = compact.step(STEP_BYTES)
            progress(done, total)
        return compact.finish()


def _write_zfile_blocks(
    output: OutputFile, offset: int, codec: zfile.Codec, block_size: int, written: Written
) -> None:
    """Header and trailer of the ZFile that begins at offset: the same but for their flags."""
    for flags, place in (
        (zfile.OVERWRITTEN_HEADER, offset),
        (zfile.TRAILER, offset + zfile.BLOCK_SIZE + written.bytes_out),
    ):
        block = zfile.Block(
            flags=flags,
            block_size=block_size,
            codec=codec,
            index_offset=zfile.BLOCK_SIZE + written.index_offset,
            nr_blocks=written.nr_blocks,
            original_size=written.bytes_in,
            index_crc=written.index_crc,
        )
        output.write_at(place, zfile.build(block, crc32c))


def _write_tar(output: OutputFile, payload_size: int) -> int:
    """The wrapper around a payload that is there; returns the size of the whole."""
    output.write_at(0, tar.build_start(payload_size))
    end = tar.end_offset(tar.Payload(tar.PAX_PAYLOAD_OFFSET, payload_size, "pax"))
    output.write_at(end, bytes(tar.END_SIZE))
    return end + tar.END_SIZE


def _digest(fd: int, size: int) -> str:
    """sha256 of the file as it lies there, which also proves that it can be read back."""
    total = hashlib.sha256()
    for offset in range(0, size, STEP_BYTES):
        total.update(os.pread(fd, min(STEP_BYTES, size - offset), offset))
    return total.hexdigest()
