"""The fetcher: ranged GETs in C, of URLs that Python resolves (csrc/cache/fetcher.h).

C asks by way of a queue, ``Fetcher.next_question``, which any number of threads may
pull from; each question is answered with ``reply`` or ``fail``.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Self

from tcmu_overlaybd.errors import MissingError, OverlayBDError, TimeoutExpiredError
from tcmu_overlaybd.native._binding import check, ffi, lib, status_name, status_of
from tcmu_overlaybd.native.handle import Handle, opened


class ResolveReason(IntEnum):
    """Why C asks for the URL and headers of a blob."""

    FIRST = lib.OBD_RESOLVE_FIRST  # it never had any
    EXPIRED = lib.OBD_RESOLVE_EXPIRED  # they were given for so long only
    REFUSED = lib.OBD_RESOLVE_REFUSED  # the server answered with http_status


@dataclass(frozen=True, slots=True)
class Question:
    """Where, and with which headers, is this origin fetched now?"""

    origin_id: int
    reason: ResolveReason
    http_status: int  # of a refusal: 3xx or 4xx; else 0
    location: str  # of a redirect, as it was sent, so perhaps relative; else ""
    www_authenticate: str


@dataclass(frozen=True, slots=True)
class Resolution:
    """The answer.  Neither URL nor headers are shown by ``repr``: both may hold secrets."""

    url: str = field(repr=False)
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    valid_ms: int = 0  # asked for anew after so long; 0: when it is refused


@dataclass(frozen=True, slots=True)
class HostTraffic:
    """See struct obd_host_traffic."""

    requests: int
    fetched_bytes: int
    refused: int
    failed: int


@dataclass(frozen=True, slots=True)
class FetcherStats:
    """Since the fetcher was opened, of all its origins."""

    hosts: dict[str, HostTraffic]  # by NAME:PORT; "": all beyond the first 16
    errors: dict[str, int]  # chunks that did not come, by the word for the status; only those that happened


class Fetcher(Handle):
    """One thread in C that fetches for all sources of the process."""

    @classmethod
    def open(
        cls,
        *,
        user_agent: str,
        ca_file: str | None = None,
        client_cert: str | None = None,
        client_key: str | None = None,
        proxy: str | None = None,
        connections_per_host: int = 0,
        connect_timeout_ms: int = 0,
        stall_timeout_ms: int = 0,
    ) -> Self:
        """0 is a default: 8 connections, 10 s.  proxy None is the environment's, "" is none."""
        params = ffi.new("struct obd_fetcher_params *")
        texts = {
            "user_agent": user_agent,
            "ca_file": ca_file,
            "client_cert": client_cert,
            "client_key": client_key,
            "proxy": proxy,
        }
        kept = {name: ffi.new("char[]", text.encode()) for name, text in texts.items() if text is not None}
        for name, text in kept.items():
            setattr(params, name, text)
        params.connections_per_host = connections_per_host
        params.connect_timeout_ms, params.stall_timeout_ms = connect_timeout_ms, stall_timeout_ms
        return cls(opened(lib.obd_fetcher_open, "struct fetcher", params), lib.obd_fetcher_close)

    def next_question(self, timeout_ms: int) -> Question | None:
        """None: nothing was asked in that time.  Raises FailedError once the queue is closed."""
        question = ffi.new("struct obd_resolve *")
        try:
            check(lib.obd_resolve_next(self.handle, question, timeout_ms))
        except TimeoutExpiredError:
            return None
        return Question(
            question.origin_id,
            ResolveReason(question.reason),
            question.http_status,
            ffi.string(question.location).decode(errors="replace"),
            ffi.string(question.www_authenticate).decode(errors="replace"),
        )

    def reply(self, origin_id: int, resolution: Resolution) -> None:
        """Raises UsageError for what is no http or https URL, or no header."""
        lines = "".join(f"{name}: {value}\n" for name, value in resolution.headers)
        url, headers = ffi.new("char[]", resolution.url.encode()), ffi.new("char[]", lines.encode())
        reply = ffi.new("struct obd_resolve_reply *")
        reply.origin_id, reply.url, reply.headers = origin_id, url, headers
        reply.valid_ms = resolution.valid_ms
        _unless_closed(lib.obd_resolve_reply(self.handle, reply))

    def fail(self, origin_id: int, error: OverlayBDError) -> None:
        """What waits for the origin ends with error; later reads ask again."""
        text = str(error).encode()
        _unless_closed(lib.obd_resolve_fail(self.handle, origin_id, status_of(error), text))

    def stats(self) -> FetcherStats:
        out = ffi.new("struct obd_fetcher_stats *")
        lib.obd_fetcher_stats(self.handle, out)
        hosts = {
            ffi.string(row.host).decode(errors="replace"): HostTraffic(
                row.nr_requests, row.fetched_bytes, row.nr_refused, row.nr_failed
            )
            for row in out.hosts[0 : out.nr_hosts]
        }
        return FetcherStats(hosts, {status_name(i): nr for i, nr in enumerate(out.nr_errors) if nr})

    def close_questions(self) -> None:
        """Ends the threads in ``next_question``: call it, join them, then close the fetcher."""
        lib.obd_resolve_close(self.handle)


class Origin(Handle):
    """One blob in one repository."""

    @classmethod
    def open(cls, fetcher: Fetcher, origin_id: int, size: int, name: str) -> Self:
        """size in bytes; origin_id, which must be new, names it in questions, name in messages."""
        arguments = (fetcher.handle, origin_id, size, name.encode())
        return cls(opened(lib.obd_origin_open, "struct origin", *arguments), lib.obd_origin_close)


def _unless_closed(status: int) -> None:
    """An answer to an origin that has been closed meanwhile is not wanted any more."""
    with contextlib.suppress(MissingError):
        check(status)
