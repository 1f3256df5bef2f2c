"""``image verify``: every checksum and rule of every layer, and what nothing vouches for.

Opening a layer checks what reading needs; here the rest is looked at too: every block
is decoded, what is written twice is compared, and what all writers do alike is expected.
A *problem* means that bytes are not what was written; a *note* is something that a
reader should know, such as data without any checksum.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from itertools import chain

from tcmu_overlaybd.config.image_config import ImageConfig, Lower, Upper
from tcmu_overlaybd.errors import BusyError, CorruptError, FormatError, MissingError
from tcmu_overlaybd.formats import lsmt, zfile
from tcmu_overlaybd.image.layer_file import OPEN_TIMEOUT_MS, OpenSource, open_layer_source
from tcmu_overlaybd.image.layer_place import LayerPlace
from tcmu_overlaybd.image.layer_writer import Progress, no_progress
from tcmu_overlaybd.image.lowers import lower_place
from tcmu_overlaybd.image.open import OpenImage, open_image
from tcmu_overlaybd.image.source import Source, resolve_source
from tcmu_overlaybd.native.image import Segment
from tcmu_overlaybd.native.source import Source as RawSource
from tcmu_overlaybd.native.source import crc32c
from tcmu_overlaybd.remote.store import BlobStore

BLOCKS_PER_STEP = 4096
READ_SIZE = 4 << 20
ENTRIES_PER_PAGE = 256
PADDING = ((1 << 50) - 1).to_bytes(8, "little") + bytes(8)


@dataclass
class LayerReport:
    """What was found in one layer."""

    path: str
    checksums: int = 0  # that were looked at
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def verify_image(
    source: Source, *, progress: Progress = no_progress, store: BlobStore | None = None
) -> list[LayerReport]:
    """Reports on every layer of source, lowest first, the upper last.

    Raises MissingError when a layer is not there, UnavailableError when it cannot be read here.
    """
    config = resolve_source(source, store)
    if not config.layers and config.writable is None:
        raise FormatError("the configuration names neither layers nor an upper")
    places = [lower_place(lower, config, store) for lower in config.layers]
    meter = _Meter(progress, sum(place.size() for place in places))
    reports = [verify_layer(place, lower, meter) for lower, place in zip(config.layers, places, strict=True)]
    if config.writable is not None:
        reports.append(_verify_upper(config, store))
    return reports


class _Meter:
    """Adds up bytes of files that have been looked at, for a progress bar."""

    def __init__(self, progress: Progress = no_progress, total: int = 0) -> None:
        self._progress = progress
        self._done = 0
        self._total = total

    def add(self, nr_bytes: int) -> None:
        self._done += nr_bytes
        self._progress(self._done, self._total)


def verify_layer(
    place: LayerPlace, expected: Lower | None = None, meter: _Meter | None = None
) -> LayerReport:
    """Checks one layer; expected gives the blob's digest and size where they are known."""
    report = LayerReport(place.name)
    try:
        with open_layer_source(place) as opened:
            _note_tar(opened, report)
            found = chain(_zfile_problems(opened, report, meter or _Meter()), _lsmt_problems(opened, report))
            for text in found:
                report.problems.append(f"{place.name}: {text}")
    except CorruptError as error:
        report.problems.append(str(error))
    with closing(place.open()) as placed:
        _verify_digest(placed.source, expected or Lower(), report)
    return report


def _verify_digest(raw: RawSource, expected: Lower, report: LayerReport) -> None:
    """Compares all bytes with what the configuration says of the blob."""
    if expected.size and expected.size != raw.size:
        report.problems.append(
            f"{report.path}: {raw.size} bytes long, the configuration says {expected.size}"
        )
    if not expected.digest:
        return
    found = f"sha256:{_sha256(raw)}"
    report.checksums += 1
    report.notes = [note for note in report.notes if not note.startswith(UNVOUCHED)]
    if found != expected.digest:
        report.problems.append(
            f"{report.path}: its digest is {found}, the configuration says {expected.digest}"
        )


def _sha256(raw: RawSource) -> str:
    digest = hashlib.sha256()
    for piece in _pieces(raw, 0, raw.size):
        digest.update(piece)
    return digest.hexdigest()


def _pieces(raw: RawSource, offset: int, length: int) -> Iterator[bytes]:
    """The bytes of a range, in order, a few MiB at a time."""
    end = offset + length
    for at in range(offset, end, READ_SIZE):
        yield raw.read(min(READ_SIZE, end - at), at, OPEN_TIMEOUT_MS)


# What nothing vouches for; a digest in the configuration makes it untrue: it vouches for
# every byte, and where it does not match, that is what there is to say.
UNVOUCHED = "nothing vouches for "


# ---- tar -----------------------------------------------------------------------


def _note_tar(opened: OpenSource, report: LayerReport) -> None:
    containers = opened.file.containers
    if containers.wrapper is None:
        return
    report.checksums += 2 if containers.wrapper.form == "pax" else 1
    end = containers.wrapper.offset + containers.wrapper.size
    tail = containers.size - end
    if any(piece.count(0) != len(piece) for piece in _pieces(opened.raw, end, tail)):
        report.notes.append(f"the {tail} bytes after the payload of the tar wrapper are not all zero")


# ---- ZFile ---------------------------------------------------------------------


def _zfile_problems(opened: OpenSource, report: LayerReport, meter: _Meter) -> Iterator[str]:
    containers = opened.file.containers
    index = containers.zfile_index
    if index is None:
        meter.add(containers.size)
        return
    if index.has_digest:
        report.checksums += 2
    else:
        report.notes.append(f"{UNVOUCHED}the ZFile's header and jump table: they are without checksums")
    yield from _compare_zfile_blocks(opened)
    for first in range(0, index.nr_blocks, BLOCKS_PER_STEP):
        nr = min(BLOCKS_PER_STEP, index.nr_blocks - first)
        try:
            opened.source.verify_zfile(first, nr, OPEN_TIMEOUT_MS)
        except CorruptError as error:
            yield str(error).removeprefix(f"{opened.file.name}: ")
        meter.add(containers.size * nr // index.nr_blocks)
    if index.has_block_crc:
        report.checksums += index.nr_blocks
    else:
        report.notes.append(f"{UNVOUCHED}{index.nr_blocks} blocks: they have no checksums, but decompress")


def _compare_zfile_blocks(opened: OpenSource) -> Iterator[str]:
    """Header and trailer come from one writer.  The header need not be the whole truth, the
    trailer is always written, even when no reader needs it."""
    containers = opened.file.containers
    header = containers.zfile_header
    assert header is not None  # noqa: S101  the caller found a ZFile
    at = containers.payload_offset + containers.payload_size - zfile.BLOCK_SIZE
    try:
        end = opened.raw.read(zfile.BLOCK_SIZE, at, OPEN_TIMEOUT_MS)
        trailer = zfile.parse_trailer(end, opened.file.name, crc32c)
    except CorruptError as error:
        yield str(error).removeprefix(f"{opened.file.name}: ")
        return
    names = ["has_digest", "block_size", "codec", "has_block_crc"]
    if header.is_overwritten:
        names += ["index_offset", "nr_blocks", "original_size"]
    if header.is_overwritten and header.has_digest:  # else index_crc may be leftovers
        names.append("index_crc")
    for name in names:
        first, second = getattr(header, name), getattr(trailer, name)
        if first != second:
            yield f"ZFile trailer at byte {at}: {name} is {second}, in the header {first}"


# ---- LSMT ----------------------------------------------------------------------


def _lsmt_problems(opened: OpenSource, report: LayerReport) -> Iterator[str]:
    file = opened.file
    yield from _compare_lsmt_blocks(file.header, file.trailer, file.lsmt_size - lsmt.BLOCK_SIZE)
    with opened.open_index() as layer:
        segments = list(layer.segments())
    gap = file.lsmt_size - lsmt.BLOCK_SIZE - file.trailer.index_offset - file.trailer.index_bytes
    if gap >= lsmt.SECTOR_SIZE:
        yield f"LSMT index: it ends {gap} bytes before the trailer, where nothing should be"
    if file.header.is_sealed:
        yield from _dense_problems(segments, file.trailer.index_offset)
        yield from _padding_problems(opened, len(segments))
    beyond = sum(s.offset + s.length > file.trailer.virtual_size // lsmt.SECTOR_SIZE for s in segments)
    if beyond:
        report.notes.append(f"{beyond} segments end behind the disk's {file.trailer.virtual_size} bytes")
    if file.containers.zfile_index is None:
        data = sum(s.length for s in segments if not s.is_zero) * lsmt.SECTOR_SIZE
        report.notes.append(f"{UNVOUCHED}{data} bytes of data and their index: plain LSMT has no checksums")


def _compare_lsmt_blocks(header: lsmt.Block, trailer: lsmt.Block, trailer_offset: int) -> Iterator[str]:
    """What is written into both, and what every writer writes alike."""
    names = ["virtual_size", "uuid", "parent_uuid", "version", "sub_version"]
    if header.is_sealed:  # sealing in place drops the message
        names.append("user_tag")
    for name in names:
        first, second = getattr(header, name), getattr(trailer, name)
        if first != second:
            yield f"LSMT trailer at byte {trailer_offset}: {name} is {second!r}, in the header {first!r}"
    if header.raw_ids != trailer.raw_ids and _ids(header) == _ids(trailer):
        yield f"LSMT trailer at byte {trailer_offset}: a UUID there or in the header is damaged"
    if header.flags not in lsmt.HEADER_FLAGS:
        yield f"LSMT header at byte 0: flags are {header.flags:#x}, which no writer writes"
    if trailer.flags not in lsmt.TRAILER_FLAGS:
        yield f"LSMT trailer at byte {trailer_offset}: flags are {trailer.flags:#x}, which no writer writes"
    if header.index_offset or header.index_size:
        yield f"LSMT header at byte 0: it has an index at {header.index_offset}, only trailers have one"
    for block, place in ((header, "header at byte 0"), (trailer, f"trailer at byte {trailer_offset}")):
        if block.size != lsmt.HEADER_SIZE_FIELD:
            yield f"LSMT {place}: size is {block.size}, not {lsmt.HEADER_SIZE_FIELD}"
        if block.has_garbage:
            yield f"LSMT {place}: bytes that every writer leaves zero are not"


def _ids(block: lsmt.Block) -> tuple[str, str]:
    return block.uuid, block.parent_uuid


def _dense_problems(segments: list[Segment], index_offset: int) -> Iterator[str]:
    """Committing copies segments one behind the other: each begins where the last one ended."""
    expected = lsmt.BLOCK_SIZE // lsmt.SECTOR_SIZE
    for number, segment in enumerate(segments):
        if segment.moffset != expected:
            place = segment.moffset * lsmt.SECTOR_SIZE
            yield f"LSMT index: segment {number} lies at {place}, not at {expected * lsmt.SECTOR_SIZE}"
            return
        expected += 0 if segment.is_zero else segment.length
    if expected * lsmt.SECTOR_SIZE != index_offset:
        yield f"LSMT index: data ends at {expected * lsmt.SECTOR_SIZE}, the index begins at {index_offset}"


def _padding_problems(opened: OpenSource, nr_segments: int) -> Iterator[str]:
    """A committed index is filled up to whole pages with one pattern."""
    trailer = opened.file.trailer
    if trailer.index_size % ENTRIES_PER_PAGE:
        yield f"LSMT trailer: {trailer.index_size} index entries, not a multiple of {ENTRIES_PER_PAGE}"
    padding = trailer.index_size - nr_segments
    offset = trailer.index_offset + nr_segments * lsmt.ENTRY_SIZE
    raw = opened.source.read(padding * lsmt.ENTRY_SIZE, offset, OPEN_TIMEOUT_MS) if padding else b""
    if raw != PADDING * padding:
        yield f"LSMT index: the {padding} entries at byte {offset} are not the padding they should be"


# ---- the upper -------------------------------------------------------------------


def _upper_losses(upper: Upper, opened: OpenImage) -> Iterator[str]:
    """What was there and is not any more; what a power cut left of unflushed writes is none."""
    with suppress(MissingError):  # it is read as a layer
        stats = opened.image.upper_stats()
        if stats.is_drop_unexplained:
            lost = stats.dropped_bytes
            yield f"{upper.index}: its last {lost} bytes are no entries, and no journal says why"
        if stats.dropped_writes:
            yield (
                f"{upper.index}.journal: damaged: {stats.dropped_writes} or more acknowledged writes are lost"
            )


def _verify_upper(config: ImageConfig, store: BlobStore | None) -> LayerReport:
    assert config.writable is not None  # noqa: S101  asked by the caller
    report = LayerReport(config.writable.data)
    try:
        with open_image(config, holder="tcmu-overlaybd image verify", store=store) as opened:
            report.notes.append(f"{UNVOUCHED}the upper's data and index: they are without checksums")
            report.problems += _upper_losses(config.writable, opened)
    except BusyError as error:
        report.notes.append(f"not looked at: {error}")
    except CorruptError as error:
        report.problems.append(str(error))
    return report
