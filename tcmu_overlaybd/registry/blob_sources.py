"""Where the bytes of an upload come from: read at any offset, since a chunk may be sent twice."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Protocol

from tcmu_overlaybd.errors import CorruptError, FailedError, MissingError


class BlobSource(Protocol):
    """What is to be uploaded; ``size`` in bytes."""

    size: int

    def read(self, offset: int, length: int) -> bytes:
        """Exactly so many bytes."""


class FileBlob:
    """A file that does not change meanwhile.  Raises MissingError or FailedError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        try:
            self._file = path.open("rb")
            self.size = path.stat().st_size
        except FileNotFoundError as error:
            raise MissingError(f"{path}: no such file") from error
        except OSError as error:
            raise FailedError(f"{path}: cannot be read: {error.strerror}") from error

    def read(self, offset: int, length: int) -> bytes:
        try:
            with self._lock:
                self._file.seek(offset)
                piece = self._file.read(length)
        except OSError as error:
            raise FailedError(f"{self._path}: cannot be read: {error.strerror}") from error
        if len(piece) != length:
            raise CorruptError(f"{self._path}: became shorter while it was read")
        return piece

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> FileBlob:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class BytesBlob:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    def read(self, offset: int, length: int) -> bytes:
        return self._data[offset : offset + length]
