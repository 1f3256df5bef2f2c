"""The two files of an upper, as their headers describe them (spec/lsmt.md sections 4.2 to 4.4).

The data file's header says how it is written: appended to, or sparse.  A data file
that ends in a sound trailer of its own is sealed: a lower, never written again.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from tcmu_overlaybd.errors import CorruptError, MissingError, OverlayBDError
from tcmu_overlaybd.formats import lsmt, uuid_text


@dataclass(frozen=True)
class UpperPair:
    data: Path
    index: Path
    kind: str  # "append", "sparse" or "sealed"
    virtual_size: int  # bytes; 0: that of the lowers
    uuid: str
    parent_uuid: str
    data_virtual_size: int = 0  # in the data file: another when a growth was cut off

    @property
    def data_size(self) -> int:
        """Of the data file, or of the block device that it is; bytes."""
        with self.data.open("rb") as file:
            return file.seek(0, os.SEEK_END)


def read_upper_pair(data: Path, index: Path) -> UpperPair:
    """What the headers of a writable layer say.

    Raises MissingError, FormatError or CorruptError.
    """
    header = lsmt.parse_layer_header(_read(data, 0), str(data))
    if header.is_sealed:
        raise CorruptError(f"{data}: flags are {header.flags:#x}: a committed layer, not a writable one")
    if is_sealed(data, header):
        return UpperPair(data, index, "sealed", header.virtual_size, header.uuid, header.parent_uuid)
    if header.is_sparse:
        _check_sparse_length(data, header)
        size = header.virtual_size
        return UpperPair(data, index, "sparse", size, header.uuid, header.parent_uuid, size)
    index_header = lsmt.parse_index_header(_read_index(data, index), str(index))
    if uuid_text.NULL not in (header.uuid, index_header.uuid) and header.uuid != index_header.uuid:
        raise CorruptError(f"{index}: its UUID is {index_header.uuid}, that of {data} is {header.uuid}")
    return UpperPair(
        data,
        index,
        "append",
        index_header.virtual_size,
        index_header.uuid,
        index_header.parent_uuid,
        header.virtual_size,
    )


def read_data_header(data: Path) -> lsmt.Block:
    """The header of a writable layer's data file, whose UUID its trailer repeats."""
    return lsmt.parse_layer_header(_read(data, 0), str(data))


def is_sealed(data: Path, header: lsmt.Block) -> bool:
    """Whether a sound trailer ends data: the guest may have written bytes that only look like one."""
    size = data.stat().st_size
    in_place = header.virtual_size if header.is_sparse else 0  # the disk's own last bytes are no trailer
    if size < 2 * lsmt.BLOCK_SIZE + in_place:
        return False
    try:
        trailer = lsmt.parse_layer_trailer(_read(data, size - lsmt.BLOCK_SIZE), size, str(data))
    except OverlayBDError:
        return False
    same = (trailer.uuid, trailer.is_sparse) == (header.uuid, header.is_sparse)
    gap = size - lsmt.BLOCK_SIZE - trailer.index_offset - trailer.index_bytes
    return same and gap < lsmt.SECTOR_SIZE


def store_virtual_size(pair: UpperPair, size: int) -> None:
    """Writes size into the headers of a pair, as the reference does for one made with 0.

    Also for one whose growth was cut off between them: the index file's counts.
    """
    for path in (pair.data,) if pair.kind == "sparse" else (pair.data, pair.index):
        block = lsmt.parse(_read(path, 0), str(path))
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.pwrite(descriptor, lsmt.build(lsmt.with_virtual_size(block, size)), 0)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _check_sparse_length(data: Path, header: lsmt.Block) -> None:
    """Its length is the disk's: a shorter file has lost the end of the disk."""
    length = data.stat().st_size - lsmt.BLOCK_SIZE
    if length < header.virtual_size:
        raise CorruptError(f"{data}: {length} bytes of a disk of {header.virtual_size}: it is cut short")


def _read_index(data: Path, index: Path) -> bytes:
    """A missing one is never made anew where data holds something: the disk would read as zeros."""
    try:
        return _read(index, 0)
    except MissingError as error:
        nr_bytes = data.stat().st_size - lsmt.BLOCK_SIZE
        why = (
            f"where on the disk the {nr_bytes} bytes in {data} belong was written there only: restore it"
            if nr_bytes > 0
            else f"{data} holds nothing: remove it, and make a new upper"
        )
        raise MissingError(f"{error}; {why}") from error


def _read(path: Path, offset: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(lsmt.BLOCK_SIZE)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MissingError(f"{path}: no such file") from error
