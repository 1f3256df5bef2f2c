"""The layers of an image that is pushed: where the bytes of each come from.

    LocalLayer      a file; one that is not yet a tar is wrapped on its way (spec/tar.md
                    section 2), so that it is what ``image commit --tar`` writes
    RegistryLayer   a blob of a registry, as it is: mounted, or read there part by part

A local layer's digest is found out by reading it; it is read a second time when it has
to be sent.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from tcmu_overlaybd.formats import tar
from tcmu_overlaybd.registry.blob_sources import BlobSource, FileBlob
from tcmu_overlaybd.registry.client import RegistryClient
from tcmu_overlaybd.registry.deadline import Deadline
from tcmu_overlaybd.registry.overlaybd_layers import RemoteLayer


@dataclass(frozen=True)
class LocalLayer:
    """A sound sealed layer at path; is_wrapped says whether it is a tar already."""

    path: Path
    is_wrapped: bool

    def open(self) -> AbstractContextManager[BlobSource]:
        return FileBlob(self.path) if self.is_wrapped else WrappedFile(self.path)


@dataclass(frozen=True)
class RegistryLayer:
    """A blob of repository at host; copy is a file with the same bytes, if there is one here."""

    host: str
    repository: str
    layer: RemoteLayer
    copy: Path | None = None

    def open(self, client: RegistryClient, deadline: Deadline) -> AbstractContextManager[BlobSource]:
        return nullcontext(RegistryBlob(client, self, deadline)) if self.copy is None else FileBlob(self.copy)


PushLayer = LocalLayer | RegistryLayer


class WrappedFile(FileBlob):
    """A file as the payload of the tar wrapper."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._payload = tar.Payload(tar.PAX_PAYLOAD_OFFSET, self.size, "pax")
        self._start = tar.build_start(self.size)
        self.size = tar.end_offset(self._payload) + tar.END_SIZE

    def read(self, offset: int, length: int) -> bytes:
        """What of the range lies in front of the payload, in it, and behind it."""
        end = offset + length
        begin, behind = self._payload.offset, self._payload.offset + self._payload.size
        front = self._start[offset:end]
        first, last = max(offset, begin), min(end, behind)
        middle = super().read(first - begin, last - first) if first < last else b""
        return front + middle + bytes(length - len(front) - len(middle))


class RegistryBlob:
    """A blob read part by part, to be put into another registry, which checks its digest."""

    def __init__(self, client: RegistryClient, source: RegistryLayer, deadline: Deadline) -> None:
        self._client = client
        self._source = source
        self._deadline = deadline
        self.size = source.layer.size

    def read(self, offset: int, length: int) -> bytes:
        source = self._source
        return self._client.read_blob(source.repository, source.layer.digest, offset, length, self._deadline)
