"""What can be asked of a registry about manifests and blobs.

Everything read whole is held against its digest.  Every method takes a deadline and
raises, with ``HOST/REPOSITORY: operation`` in front:

    MissingError         no such repository, tag, manifest or blob
    AuthenticationError  the password is wrong, or does not permit it
    UnavailableError     the registry does not answer, or not sensibly, also after attempts
    CorruptError         what came is not what its digest says
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from tcmu_overlaybd.errors import CorruptError, UnavailableError
from tcmu_overlaybd.registry.auth import Authorization, Scope
from tcmu_overlaybd.registry.blob_fetch import BlobStart, Download, Fetch, Progress, RangeRead, RemoteBlob
from tcmu_overlaybd.registry.challenge import parse_challenges
from tcmu_overlaybd.registry.conversation import Conversation
from tcmu_overlaybd.registry.credentials import CredentialSource, NoCredentials
from tcmu_overlaybd.registry.deadline import Deadline
from tcmu_overlaybd.registry.media_types import MANIFESTS_ACCEPTED
from tcmu_overlaybd.registry.reference import is_digest
from tcmu_overlaybd.registry.refusals import require_status
from tcmu_overlaybd.registry.retry import RetryPolicy
from tcmu_overlaybd.registry.transport import Transport
from tcmu_overlaybd.registry.wire import HttpReply, HttpRequest, Wire

MAX_MANIFEST = 4 << 20  # bytes: what registries themselves take

T = TypeVar("T")


@dataclass(frozen=True)
class RawManifest:
    """A manifest as it came; ``digest`` is that of ``body``."""

    media_type: str
    digest: str
    body: bytes = field(repr=False)


class RegistryClient:
    """One registry, for any number of threads; keeps connections, tokens and how it is spoken to.

    host: as in a Reference.  scheme: "http" or "https" when a configuration says it.
    insecure_hosts: see reference.py.
    """

    def __init__(
        self,
        host: str,
        transport: Transport,
        credentials: CredentialSource | None = None,
        *,
        insecure_hosts: frozenset[str] = frozenset(),
        policy: RetryPolicy | None = None,
        scheme: str | None = None,
    ) -> None:
        self.host = host
        self.conversation = Conversation(
            host,
            Wire(transport),
            credentials or NoCredentials(),
            insecure_hosts=insecure_hosts,
            policy=policy or RetryPolicy(),
            scheme=scheme,
        )

    def close(self) -> None:
        self.conversation.close()

    def __enter__(self) -> RegistryClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def check(self, deadline: Deadline) -> bool:
        """Whether the registry answers, and accepts who we are; False when it does not even ask."""
        what = f"{self.host}: trying the password"
        request = HttpRequest("GET", "/v2/")

        def consume(reply: HttpReply) -> None:
            require_status(reply, 200, what)
            reply.discard()

        self.conversation.answer(lambda: request, consume, (), deadline, what)
        return self.conversation.tokens.was_asked

    # -- manifests

    def get_manifest(self, repository: str, target: str, deadline: Deadline) -> RawManifest:
        """The manifest that a tag or digest names."""
        what = f"{self.host}/{repository}: manifest {target}"
        request = HttpRequest("GET", f"/v2/{repository}/manifests/{target}", {"Accept": MANIFESTS_ACCEPTED})

        def consume(reply: HttpReply) -> RawManifest:
            require_status(reply, 200, what)
            body = reply.read(MAX_MANIFEST)
            promised = target if is_digest(target) else reply.headers.get("Docker-Content-Digest", "")
            digest = require_digest(body, promised, what)
            media_type = reply.headers.get("Content-Type", "").partition(";")[0].strip().lower()
            return RawManifest(media_type, digest, body)

        return self.conversation.answer(lambda: request, consume, (Scope(repository),), deadline, what)

    # -- blobs

    def head_blob(
        self, repository: str, digest: str, deadline: Deadline, scope: Scope | None = None
    ) -> int | None:
        """The size of a blob in bytes; None when it is not there."""
        what = f"{self.host}/{repository}: looking for blob {digest}"
        request = HttpRequest("HEAD", f"/v2/{repository}/blobs/{digest}")

        def consume(reply: HttpReply) -> int | None:
            if reply.status == 404:
                reply.discard()
                return None
            require_status(reply, 200, what)
            reply.discard()
            length = reply.headers.get("Content-Length", "")
            if not length.isdecimal():
                raise UnavailableError(f"{what}: the registry does not say its size")
            return int(length)

        scopes = (scope or Scope(repository),)
        return self.conversation.answer(lambda: request, consume, scopes, deadline, what)

    def get_blob(self, repository: str, digest: str, limit: int, deadline: Deadline) -> bytes:
        """A small blob whole; UnavailableError when it is longer than limit bytes."""
        what = f"{self.host}/{repository}: blob {digest}"
        request = HttpRequest("GET", f"/v2/{repository}/blobs/{digest}")

        def consume(reply: HttpReply) -> bytes:
            require_status(reply, 200, what)
            body = reply.read(limit)
            require_digest(body, digest, what)
            return body

        return self.conversation.answer(lambda: request, consume, (Scope(repository),), deadline, what)

    def download_blob(
        self,
        repository: str,
        digest: str,
        size: int,
        write: Callable[[bytes], object],
        deadline: Deadline,
        *,
        have: BlobStart | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Gives a blob of size bytes to write, in order; after a cut it goes on where it was.

        have: the bytes at its start that the caller has by now.  The digest is known to be
        right only when this returns: what was written before an exception is unproved, and
        what was written before CorruptError is to be thrown away.
        """
        blob = self._blob(repository, digest)
        download = Download(blob, size, write, have or BlobStart(), progress)
        if not download.is_complete:
            self._fetch(blob, download, deadline)
        download.require_digest()

    def read_blob(self, repository: str, digest: str, offset: int, length: int, deadline: Deadline) -> bytes:
        """length bytes of a blob from offset on; they cannot be held against its digest."""
        blob = self._blob(repository, digest)
        return self._fetch(blob, RangeRead(blob, offset, length), deadline)

    def _blob(self, repository: str, digest: str) -> RemoteBlob:
        return RemoteBlob(f"{self.host}/{repository}: blob {digest}", repository, digest)

    def _fetch(self, blob: RemoteBlob, fetch: Fetch[T], deadline: Deadline) -> T:
        scopes = (Scope(blob.repository),)
        return self.conversation.answer(fetch.request, fetch.consume, scopes, deadline, blob.name)

    # -- for those who fetch by themselves (the data plane)

    def blob_url(self, repository: str, digest: str) -> str:
        return f"{self.conversation.base}/v2/{repository}/blobs/{digest}"

    def authorization_for(
        self, url: str, scopes: Sequence[Scope], deadline: Deadline
    ) -> Authorization | None:
        """What to send to url: None for any other host than the registry, and while it has not asked."""
        if not self.conversation.is_own(url):
            return None
        return self.conversation.tokens.authorization(scopes, deadline)

    def challenged(
        self, url: str, header: str, scopes: Sequence[Scope], refused: str | None, deadline: Deadline
    ) -> Authorization | None:
        """What to send after url answered 401 with this WWW-Authenticate to the Authorization refused."""
        if not self.conversation.is_own(url):
            return None
        return self.conversation.tokens.challenged(parse_challenges(header), scopes, refused, deadline)


def require_digest(body: bytes, promised: str, what: str) -> str:
    """The digest of body; CorruptError when another sha256 was promised (other kinds are not compared)."""
    found = f"sha256:{hashlib.sha256(body).hexdigest()}"
    if is_digest(promised) and promised != found:
        raise CorruptError(f"{what}: {len(body)} bytes came with the digest {found}, not {promised}")
    return found
