"""JSON files read into msgspec structs, and written so that a reader never sees half of one."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path
from typing import TypeVar

import msgspec

from tcmu_overlaybd.config.decoding import decode_json
from tcmu_overlaybd.errors import (
    FailedError,
    FormatError,
    MissingError,
    NoSpaceError,
    OverlayBDError,
    ReadOnlyError,
)

MAX_SIZE = 16 << 20  # bytes; a configuration of 255 layers has some 100 KB

T = TypeVar("T")


def read_json(path: Path, kind: type[T]) -> T:
    """The value in path.

    Raises MissingError when there is no such file, FormatError (``x.json: lowers[2].size:
    Expected `int`, got `str```) when it does not fit kind.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MAX_SIZE + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MissingError(f"{path}: no such file") from error
    except OSError as error:
        raise FailedError(f"{path}: cannot be read: {error.strerror}") from error
    if len(text) > MAX_SIZE:
        raise FormatError(f"{path}: larger than {MAX_SIZE} bytes, that is no configuration")
    try:
        return decode_json(text, kind)
    except msgspec.ValidationError as error:
        raise FormatError(f"{path}: {_key_first(str(error))}") from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise FormatError(f"{path}: not JSON: {error}") from error


def write_json(path: Path, value: object) -> None:
    """Writes value to path in one step, mode 0600, synced.

    Raises NoSpaceError, MissingError (no such folder) or FailedError; path is then as it was.
    """
    write_private(path, msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")


def write_private(path: Path, text: bytes) -> None:
    """As write_json, whatever text is."""
    try:
        _replace(path, text)
    except OSError as error:
        kind = WRITE_ERRORS.get(error.errno or 0, FailedError)
        raise kind(f"{path}: cannot be written: {error.strerror}") from error


WRITE_ERRORS: dict[int, type[OverlayBDError]] = {
    errno.ENOSPC: NoSpaceError,
    errno.EDQUOT: NoSpaceError,
    errno.ENOENT: MissingError,
    errno.ENOTDIR: MissingError,
    errno.EROFS: ReadOnlyError,
}


def _replace(path: Path, text: bytes) -> None:
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).rename(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes the names in folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _key_first(message: str) -> str:
    """msgspec says "Expected `int`, got `str` - at `$.lowers[2].size`"; the key is what is looked for."""
    what, separator, where = message.partition(" - at `$")
    return f"{where.rstrip('`').lstrip('.') or 'the whole file'}: {what}" if separator else what
