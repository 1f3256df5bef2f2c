"""New writable layers: two headers on disk, nothing else (spec/lsmt.md sections 4.2, 4.3)."""

from __future__ import annotations

import errno
import os
from contextlib import ExitStack
from pathlib import Path

from tcmu_overlaybd.config.json_file import sync_folder
from tcmu_overlaybd.errors import FailedError, MissingError, NoSpaceError, UsageError
from tcmu_overlaybd.formats import lsmt, uuid_text
from tcmu_overlaybd.image.blank_device import write_first_block


def check_size(size: int) -> None:
    """Raises UsageError for what can't be the size of a disk.  0 is allowed: the lowers' then."""
    if size % lsmt.SECTOR_SIZE or not 0 <= size <= lsmt.MAX_VIRTUAL_SIZE:
        raise UsageError(
            f"a disk of {size} bytes is not possible: it must be a multiple of {lsmt.SECTOR_SIZE}"
            f" up to {lsmt.MAX_VIRTUAL_SIZE}"
        )


def create_layer(
    data: Path,
    index: Path,
    size: int,
    *,
    sparse: bool = False,
    uuid: str | None = None,
    parent_uuid: str = uuid_text.NULL,
) -> str:
    """Makes the two files of a writable layer of size bytes; returns its UUID.

    A sparse layer's index file stays empty, as in the reference.  data may be a blank block
    device.  Raises FailedError when one of them exists; what was made by then is removed again.
    """
    check_size(size)
    if sparse and data.is_block_device():
        raise UsageError(f"{data}: a device has no holes, so it cannot be a sparse layer")
    uuid = uuid or uuid_text.fresh()
    flags = lsmt.SPARSE_DATA_HEADER if sparse else lsmt.APPEND_DATA_HEADER
    block = lsmt.Block(flags=flags, virtual_size=size, uuid=uuid, parent_uuid=parent_uuid)
    index_block = lsmt.Block(
        flags=lsmt.INDEX_HEADER,
        virtual_size=size,
        uuid=uuid,
        parent_uuid=parent_uuid,
        index_offset=lsmt.BLOCK_SIZE,
    )
    with ExitStack() as undo:
        _write_new(index, b"" if sparse else lsmt.build(index_block), 0, undo)
        if data.is_block_device():
            write_first_block(data, lsmt.build(block))
        else:
            _write_new(data, lsmt.build(block), lsmt.BLOCK_SIZE + size if sparse else 0, undo)
        for folder in {data.parent, index.parent}:
            sync_folder(folder)
        undo.pop_all()
    return uuid


def _write_new(path: Path, content: bytes, length: int, undo: ExitStack) -> None:
    """Makes path, which must be new, with content, stretched to length."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    except FileExistsError as error:
        raise FailedError(f"{path}: exists already") from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MissingError(f"{path}: there is no folder {path.parent}") from error
    except OSError as error:
        raise FailedError(f"{path}: cannot be made: {error.strerror}") from error
    undo.callback(path.unlink, missing_ok=True)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            if length:
                file.truncate(length)
            os.fsync(file.fileno())
    except OSError as error:
        kind = NoSpaceError if error.errno in (errno.ENOSPC, errno.EDQUOT) else FailedError
        raise kind(f"{path}: cannot be written: {error.strerror}") from error
