"""A blob at some URL, read through a cache: fetcher, cache, source, and a thread that resolves.

The resolver is as simple as can be: it gives one URL and its headers, follows a redirect
by one step, and counts what it was asked.
"""

from __future__ import annotations

import hashlib
import itertools
import threading
from dataclasses import asdict
from pathlib import Path
from urllib.parse import urljoin

from tcmu_overlaybd.errors import FailedError
from tcmu_overlaybd.native.cache import Cache, CachedSource
from tcmu_overlaybd.native.fetcher import Fetcher, Origin, Question, Resolution
from tcmu_overlaybd.registry.transport import Transport

DIRECT = Transport(proxy="")
CHUNK_SIZE = 64 << 10
READ_TIMEOUT_MS = 60_000


class Blobs:
    """The process's fetcher and cache, as the daemon has them, and the sources opened on them."""

    def __init__(
        self,
        folder: Path,
        *,
        limit_bytes: int = 1 << 30,
        chunk_size: int = CHUNK_SIZE,
        transport: Transport = DIRECT,
    ) -> None:
        self.cache = Cache.open(
            str(folder), limit_bytes=limit_bytes, free_floor_bytes=0, chunk_size=chunk_size
        )
        self.fetcher = Fetcher.open(**asdict(transport.curl_values()))
        self.questions: list[Question] = []
        self._resolutions: dict[int, Resolution] = {}
        self._numbers = itertools.count(1)
        self._sources: list[CachedSource] = []
        self._thread = threading.Thread(target=self._resolve, daemon=True)
        self._thread.start()

    def open(self, url: str, data: bytes, headers: tuple[tuple[str, str], ...] = ()) -> CachedSource:
        """A source of data, which is to be had at url."""
        digest = hashlib.sha256(data).digest()
        number = next(self._numbers)
        self._resolutions[number] = Resolution(url, headers)
        with Origin.open(self.fetcher, number, len(data), f"sha256:{digest.hex()[:12]} of t/x") as origin:
            source = CachedSource.open(self.cache, origin, digest)
        self._sources.append(source)
        return source

    def stop(self) -> None:
        """What is being fetched ends, and with it every read that waits."""
        if self._thread.is_alive():
            self.fetcher.close_questions()
            self._thread.join()
            self.fetcher.close()

    def close(self) -> None:
        self.stop()
        for source in self._sources:
            source.close()
        self.cache.close()

    def __enter__(self) -> Blobs:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _resolve(self) -> None:
        try:
            while True:
                question = self.fetcher.next_question(1000)
                if question is not None:
                    self.questions.append(question)
                    self.fetcher.reply(question.origin_id, self._answer(question))
        except FailedError:
            pass  # the queue is closed

    def _answer(self, question: Question) -> Resolution:
        known = self._resolutions[question.origin_id]
        if not question.location:
            return known
        return Resolution(urljoin(known.url, question.location))
