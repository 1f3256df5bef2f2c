"""A proxy in front of a registry that spoils some of its answers, by a seed.

    with FaultyProxy(registry.host, random.Random(7)) as proxy:
        proxy.rate = 0.2        # of all answers; 0 is the truth only

Whom the registry knows as a host is the proxy, so what it says of itself leads back here.
While the registry is away its answer is 502, as nginx would say.
"""

from __future__ import annotations

import http.client
import random
import threading

from tests.registry.http_faults import (
    Answer,
    Cut,
    Delay,
    Fault,
    Garbage,
    HangUp,
    IgnoreRange,
    OtherBytes,
    ShortRange,
    Slow,
    Stall,
    Status,
    WrongRange,
    redirect,
    too_many,
)
from tests.registry.scripted_server import ScriptedServer, Seen

UPSTREAM_SECONDS = 30
LOST = {"connection", "keep-alive", "transfer-encoding", "content-length"}

# Of any answer.  A stall is found out by the time-out of whoever waits.
ANYWHERE: tuple[Fault, ...] = (
    Status(500),
    Status(502),
    Status(503, {}, b"<html>not now</html>"),
    too_many("0"),
    too_many("1"),
    too_many("soon"),
    HangUp(),
    HangUp(reset=True),
    Cut(0),
    Cut(100),
    Stall(),
    Stall(0),
    Garbage(),
    Delay(0.3),
    Delay(0.1, Status(503)),
    Slow(step=1 << 16, pause_s=0.002),
)
# Of ranged GETs.
RANGED: tuple[Fault, ...] = (
    Cut(70_000),
    Cut(100_000, reset=True),
    Stall(65_536),
    ShortRange(1000),
    IgnoreRange(),
    WrongRange(shift=512),
    WrongRange(text=""),
    WrongRange(text="bytes 0-99/*"),
)


class FaultyProxy(ScriptedServer):
    """``lies_about``: blobs whose bytes may come wrong, because their readers can tell.

    Faults of the kinds in leave_out are not made.
    """

    def __init__(self, host: str, rng: random.Random, leave_out: tuple[type[Fault], ...] = ()) -> None:
        self.rate = 0.0
        self._leave_out = leave_out
        self.lies_about: frozenset[str] = frozenset()
        self.nr_faults = 0
        self._upstream_host = host
        self._rng = rng
        self._draws = threading.Lock()
        self._mine = threading.local()
        super().__init__()

    def truth(self, seen: Seen) -> Answer:
        try:
            return self._forwarded(seen)
        except (OSError, http.client.HTTPException):
            self._mine.connection = None
            return Answer(502)

    def take_fault(self, path: str) -> Fault | None:
        queued = super().take_fault(path)
        if queued is not None:
            return queued
        with self._draws:
            if self._rng.random() >= self.rate:
                return None
            self.nr_faults += 1
            return self._rng.choice(self._faults_of(path))

    def _faults_of(self, path: str) -> list[Fault]:
        """What may go wrong there."""
        found, digest = list(ANYWHERE), path.rpartition("/")[2]
        if "/blobs/sha256:" in path:
            found += [*RANGED, redirect(path), redirect(f"./{digest}", 302)]
        if digest in self.lies_about:
            found += [OtherBytes(self._rng.randrange(1000), step=10_000)] * 3
        return [fault for fault in found if not isinstance(fault, self._leave_out)]

    def _forwarded(self, seen: Seen) -> Answer:
        connection = getattr(self._mine, "connection", None)
        if connection is None:
            connection = http.client.HTTPConnection(self._upstream_host, timeout=UPSTREAM_SECONDS)
            self._mine.connection = connection
        connection.request(seen.method, seen.target, seen.body or None, dict(seen.headers))
        reply = connection.getresponse()
        body = reply.read()
        headers = {name: value for name, value in reply.getheaders() if name.lower() not in LOST}
        if seen.method == "HEAD" and (length := reply.getheader("Content-Length")):
            headers["Content-Length"] = length
        return Answer(reply.status, headers, body)
