"""Putting blobs and manifests into a repository.

A blob goes up in chunks, so that a broken connection costs one of them::

    HEAD                          200: there already, done
    POST uploads/[?mount=&from=]  201: taken from another repository, done
                                  202, Location: a session
    PATCH Location                bytes a-b; 202, Location: where it goes on
      on failure: GET Location    204, Range 0-b: goes on after b; 404: a new session
    PUT Location?digest=          201

Where a session goes on is said by the registry with each answer, on any host it likes;
proof of who we are goes to the registry only.  With KeptUploads a session also outlives
the process that began it; docker-registry 2 goes on with one that ended between two
chunks, and forgets one that was cut within a chunk.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from contextlib import closing
from enum import StrEnum
from http import HTTPStatus
from urllib.parse import quote

from tcmu_overlaybd.errors import (
    AuthenticationError,
    CorruptError,
    MissingError,
    OverlayBDError,
    TransientError,
    UnavailableError,
)
from tcmu_overlaybd.registry.auth import Scope
from tcmu_overlaybd.registry.blob_fetch import Progress
from tcmu_overlaybd.registry.blob_sources import BlobSource
from tcmu_overlaybd.registry.client import RegistryClient
from tcmu_overlaybd.registry.deadline import Deadline
from tcmu_overlaybd.registry.kept_uploads import KeptUpload, KeptUploads
from tcmu_overlaybd.registry.redirects import redirect_url
from tcmu_overlaybd.registry.refusals import require_status, status_error
from tcmu_overlaybd.registry.wire import HttpReply, HttpRequest

log = logging.getLogger(__name__)

CHUNK_SIZE = 8 << 20  # bytes of a PATCH
MAX_SETBACKS = 5  # failures in a row without a byte of progress

_OCTETS = "application/octet-stream"


class Outcome(StrEnum):
    """How a blob came to be there."""

    PRESENT = "present"  # it was already
    MOUNTED = "mounted"  # taken from another repository
    UPLOADED = "uploaded"


class Uploader:
    """Pushes into one repository; blobs may be uploaded by several threads at once.

    chunk_size: bytes of a PATCH.  kept: where sessions are remembered for a later process.
    """

    def __init__(
        self,
        client: RegistryClient,
        repository: str,
        chunk_size: int = CHUNK_SIZE,
        kept: KeptUploads | None = None,
    ) -> None:
        self.conversation = client.conversation
        self.chunk_size = chunk_size
        self.name = f"{client.host}/{repository}"
        self.scope = Scope(repository, "pull,push")
        self._client = client
        self._repository = repository
        self._kept = kept

    @property
    def start_url(self) -> str:
        return f"/v2/{self._repository}/blobs/uploads/"

    def check(self, target: str, deadline: Deadline) -> None:
        """Finds out at the price of one request that the registry is there and knows us.

        Raises UnavailableError or AuthenticationError; whether target exists does not matter.
        """
        what = f"{self.name}: looking for {target}"
        request = HttpRequest("HEAD", f"/v2/{self._repository}/manifests/{target}")

        def consume(reply: HttpReply) -> None:
            if reply.status != HTTPStatus.NOT_FOUND:
                require_status(reply, HTTPStatus.OK, what)
            reply.discard()

        self.conversation.answer(lambda: request, consume, (self.scope,), deadline, what)

    def has_blob(self, digest: str, deadline: Deadline) -> bool:
        return self._client.head_blob(self._repository, digest, deadline, scope=self.scope) is not None

    def upload(
        self,
        digest: str,
        blob: BlobSource,
        deadline: Deadline,
        *,
        mount_from: str = "",
        progress: Progress | None = None,
    ) -> Outcome:
        """Makes the blob be there.  mount_from: a repository of the same registry that may have it."""
        tell = progress or (lambda _done, _total: None)
        outcome = Outcome.PRESENT
        if not self.has_blob(digest, deadline):
            with closing(self._keep(digest)) as kept:
                session = UploadSession(self, digest, blob, deadline, progress=tell, kept=kept)
                outcome = session.run(mount_from)
        tell(blob.size, blob.size)
        return outcome

    def _keep(self, digest: str) -> KeptUpload:
        return self._kept.open(f"{self.name}@{digest}") if self._kept else KeptUpload(None)

    def put_manifest(self, target: str, media_type: str, body: bytes, deadline: Deadline) -> None:
        """Stores a manifest under a tag or its digest; its blobs must be there."""
        what = f"{self.name}: storing manifest {target}"
        url = f"/v2/{self._repository}/manifests/{target}"
        request = HttpRequest("PUT", url, {"Content-Type": media_type}, body)

        def consume(reply: HttpReply) -> None:
            require_status(reply, 201, what)
            reply.discard()

        self.conversation.answer(lambda: request, consume, (self.scope,), deadline, what)


class UploadSession:
    """One blob on its way up.

    ``_url``      where it goes on; "" when there is no session
    ``_done``     so many bytes the registry has, as far as is known
    ``_is_sure``  whether it said so: not after a failure
    ``_kept``     remembers ``_url``
    """

    def __init__(
        self,
        uploader: Uploader,
        digest: str,
        blob: BlobSource,
        deadline: Deadline,
        *,
        progress: Progress,
        kept: KeptUpload,
    ) -> None:
        self._uploader = uploader
        self._digest = digest
        self._blob = blob
        self._deadline = deadline
        self._progress = progress
        self._what = f"{uploader.name}: uploading blob {digest}"
        self._kept = kept
        self._url = kept.url
        self._done = 0
        self._is_sure = True

    def run(self, mount_from: str = "") -> Outcome:
        """Until the blob is there."""
        if self._url:
            self._adopt()
        if mount_from and not self._done and self._mount(mount_from):
            return Outcome.MOUNTED
        self._send_all()
        self._kept.forget()
        return Outcome.UPLOADED

    def _adopt(self) -> None:
        """Goes on with the session of an earlier process, if the registry still has it."""
        try:
            self._ask()
        except OverlayBDError as error:
            log.info("%s; beginning anew", error)
            self._restart()
        self._progress(self._done, self._blob.size)

    def _send_all(self) -> None:
        setbacks = 0
        while True:
            before = self._done
            try:
                self._go_on()
            except TransientError as error:
                setbacks = 0 if self._done > before else setbacks + 1
                self._is_sure = False
                if setbacks > MAX_SETBACKS:
                    raise
                log.info("%s; going on", error)
                self._uploader.conversation.pause(setbacks, self._deadline, self._what)
            else:
                return

    def _restart(self) -> None:
        self._url = ""
        self._done = 0
        self._is_sure = True

    def _mount(self, source: str) -> bool:
        query = f"?mount={quote(self._digest, safe='')}&from={quote(source, safe='')}"
        scopes = (self._uploader.scope, Scope(source))
        try:
            return self._open_session(query, scopes) == HTTPStatus.CREATED
        except (AuthenticationError, MissingError, TransientError):
            return False  # it will not give it: an upload does, or fails with a better sentence

    def _go_on(self) -> None:
        if self._url and not self._is_sure:
            self._ask()
        if not self._url:
            self._open_session("", (self._uploader.scope,))
        while self._done < self._blob.size:
            self._send_chunk()
        self._finish()

    def _open_session(self, query: str, scopes: Sequence[Scope]) -> int:
        self._restart()
        request = HttpRequest("POST", self._uploader.start_url + query, body=b"")
        reply = self._send(request, (HTTPStatus.ACCEPTED, HTTPStatus.CREATED), scopes)
        if reply.status == HTTPStatus.ACCEPTED:
            self._move_on(reply)
        return reply.status

    def _ask(self) -> None:
        """How much the registry has; a session that it has forgotten begins anew."""
        try:
            reply = self._send(HttpRequest("GET", self._url), (HTTPStatus.NO_CONTENT,))
        except MissingError:
            self._restart()
            return
        has = self._said(reply)
        # "0-0" is one byte or none; a registry that has more than there is has something else.
        if has is None or has == 1 or has > self._blob.size:
            self._restart()
            return
        self._done, self._is_sure = has, True
        self._move_on(reply, required=False)

    def _send_chunk(self) -> None:
        length = min(self._uploader.chunk_size, self._blob.size - self._done)
        body = self._blob.read(self._done, length)
        headers = {"Content-Type": _OCTETS, "Content-Range": f"{self._done}-{self._done + length - 1}"}
        reply = self._send(HttpRequest("PATCH", self._url, headers, body), (HTTPStatus.ACCEPTED,))
        self._move_on(reply)
        has = self._said(reply)
        self._done += length
        if has is not None and has != self._done:
            self._is_sure = False
            raise TransientError(f"{self._what}: the registry has {has} bytes of {self._done} sent")
        self._progress(self._done, self._blob.size)

    def _finish(self) -> None:
        url = f"{self._url}{'&' if '?' in self._url else '?'}digest={quote(self._digest, safe='')}"
        request = HttpRequest("PUT", url, {"Content-Type": _OCTETS}, b"")
        try:
            self._send(request, (HTTPStatus.CREATED, HTTPStatus.NO_CONTENT))
        except (TransientError, MissingError):
            # The end may have arrived, and only its answer not.
            if not self._uploader.has_blob(self._digest, self._deadline):
                self._restart()
                raise TransientError(f"{self._what}: broke off at its end") from None

    def _send(
        self, request: HttpRequest, statuses: tuple[int, ...], scopes: Sequence[Scope] | None = None
    ) -> HttpReply:
        """One attempt; the reply, read, when it has one of statuses."""
        conversation = self._uploader.conversation
        with conversation.once(
            request, scopes or (self._uploader.scope,), self._deadline, self._what
        ) as reply:
            if reply.status not in statuses:
                raise self._refusal(reply)
            reply.discard()
            return reply

    def _refusal(self, reply: HttpReply) -> OverlayBDError:
        error = status_error(reply, self._what)
        if self._uploader.conversation.policy.is_worth_it(reply.status):
            return TransientError(str(error))
        if reply.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:  # not the place where it goes on: ask
            return TransientError(str(error))
        is_other = reply.status == HTTPStatus.BAD_REQUEST and "digest" in str(error)
        return CorruptError(str(error)) if is_other else error

    def _move_on(self, reply: HttpReply, *, required: bool = True) -> None:
        location = reply.headers.get("Location", "")
        if location:
            base = self._url or self._uploader.conversation.base + self._uploader.start_url
            self._url = redirect_url(base, location, self._what)
            self._kept.keep(self._url)
        elif required:
            raise UnavailableError(f"{self._what}: the registry does not say where it goes on")

    @staticmethod
    def _said(reply: HttpReply) -> int | None:
        """How many bytes a reply says there are, by ``Range: 0-b``; None when it says nothing."""
        match = re.fullmatch(r"(?:bytes=)?0-(\d{1,18})", reply.headers.get("Range", "").strip())
        return None if match is None else int(match[1]) + 1
