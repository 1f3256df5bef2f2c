"""Bytes of a blob by GET: all of it, however often the connection breaks, or a range.

Each is a pair ``request`` and ``consume`` for ``Conversation.answer``, which calls both
again for each attempt.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from tcmu_overlaybd.errors import CorruptError, TransientError, UnavailableError
from tcmu_overlaybd.registry.refusals import require_status
from tcmu_overlaybd.registry.wire import HttpReply, HttpRequest

Progress = Callable[[int, int], None]  # done, total; bytes

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True)
class RemoteBlob:
    """``name`` begins messages."""

    name: str
    repository: str
    digest: str

    @property
    def url(self) -> str:
        return f"/v2/{self.repository}/blobs/{self.digest}"


class Fetch(Protocol[T_co]):
    def request(self) -> HttpRequest:
        """The next attempt."""

    def consume(self, reply: HttpReply) -> T_co:
        """What comes of it; TransientError when that is not yet all."""


class BlobStart:
    """Bytes at the start of a blob: their number, and the state of their digest."""

    def __init__(self) -> None:
        self.size = 0
        self.hash = hashlib.sha256()

    def add(self, piece: bytes) -> None:
        self.hash.update(piece)
        self.size += len(piece)

    @property
    def digest(self) -> str:
        return f"sha256:{self.hash.hexdigest()}"


class Download:
    """All of a blob, given to write in order: how far it is, over all attempts, is in have."""

    def __init__(
        self,
        blob: RemoteBlob,
        size: int,
        write: Callable[[bytes], object],
        have: BlobStart,
        progress: Progress | None,
    ) -> None:
        self._blob = blob
        self._size = size
        self._write = write
        self._have = have
        self._progress = progress
        self._require_fit(have.size)

    @property
    def is_complete(self) -> bool:
        return self._have.size == self._size

    def request(self) -> HttpRequest:
        headers = {"Range": f"bytes={self._have.size}-"} if self._have.size else {}
        return HttpRequest("GET", self._blob.url, headers)

    def consume(self, reply: HttpReply) -> None:
        """Takes what is new to us of the body."""
        skip = self._have.size - begin_of(reply, self._have.size, self._blob.name)
        for piece in reply.chunks():
            fresh = piece[min(skip, len(piece)) :]
            skip -= len(piece) - len(fresh)
            self._take(fresh)
        if not self.is_complete:
            raise TransientError(f"{self._blob.name}: ended after {self._have.size} of {self._size} bytes")

    def require_digest(self) -> None:
        if self._have.digest != self._blob.digest:
            raise CorruptError(f"{self._blob.name}: what came has the digest {self._have.digest}")

    def _take(self, piece: bytes) -> None:
        self._require_fit(self._have.size + len(piece))
        self._write(piece)
        self._have.add(piece)
        if self._progress is not None:
            self._progress(self._have.size, self._size)

    def _require_fit(self, size: int) -> None:
        if size > self._size:
            raise CorruptError(f"{self._blob.name}: longer than its {self._size} bytes")


class RangeRead:
    """length bytes, at least one, from offset on."""

    def __init__(self, blob: RemoteBlob, offset: int, length: int) -> None:
        self._blob = blob
        self._offset = offset
        self._length = length

    def request(self) -> HttpRequest:
        last = self._offset + self._length - 1
        return HttpRequest("GET", self._blob.url, {"Range": f"bytes={self._offset}-{last}"})

    def consume(self, reply: HttpReply) -> bytes:
        if begin_of(reply, self._offset, self._blob.name) != self._offset:
            raise UnavailableError(f"{self._blob.name}: the registry gives no part of a blob")
        body = reply.read(self._length)
        if len(body) < self._length:
            raise TransientError(f"{self._blob.name}: {len(body)} of {self._length} bytes came")
        return body


def begin_of(reply: HttpReply, asked: int, what: str) -> int:
    """The offset in the blob at which a reply's body begins: asked, or 0 with a 200."""
    if reply.status != 206:
        require_status(reply, 200, what)
        return 0
    said = reply.headers.get("Content-Range", "")
    match = re.fullmatch(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)", said.strip())
    if match is None or int(match[1]) != asked:
        raise UnavailableError(f"{what}: bytes from {asked} were asked, {said!r} came")
    return asked
