"""No FLUSH is answered before data, then index, are synced: proved from outside, by strace.

What must hold for each FLUSH, and for each write with FUA itself: for every write
that was answered before it came, on any connection, there is a sync of the data file
that began after that write had come, then a sync of the index file that began after
the first had ended, and that ended before the reply was sent.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from tests.nbd import strace_log
from tests.nbd.client import Client
from tests.nbd.serving import NbdProcess
from tests.nbd.strace_log import FLUSH, FUA, WRITE, Request, Sync


def is_covered(write: Request, syncs: list[Sync], deadline: int) -> bool:
    """Whether a pair of syncs lies between the write's arrival and the line deadline."""
    for data in syncs:
        if not data.path.endswith("/data") or data.began <= write.received:
            continue
        for index in syncs:
            if index.path.endswith("/index") and data.ended < index.began and index.ended < deadline:
                return True
    return False


def uncovered(requests: list[Request], syncs: list[Sync]) -> list[tuple[Request, Request]]:
    """Pairs of a write and the durable answer that came too early for it."""
    writes = [r for r in requests if r.kind == WRITE]
    found = []
    for promise in requests:
        if promise.kind == WRITE and not promise.flags & FUA:
            continue
        for write in writes:
            is_before = 0 <= write.answered < promise.received or write is promise
            if is_before and not is_covered(write, syncs, promise.answered):
                found.append((write, promise))
    return found


def write_and_flush(uri: str, number: int) -> None:
    with Client(uri) as client:
        for i in range(12):
            fua = ["fua"] if i % 5 == 4 else []
            client.write((number * 16 + i) * 4096, 512, i + 1, *fua)
            if i % 3 == 2:
                client.flush()


@pytest.fixture
def traced(tool: Any, upper_of: list[str], tmp_path: Path) -> tuple[list[Request], list[Sync]]:
    """Three connections that write and flush at the same time."""
    log = tmp_path / "strace.log"
    prefix = (tool("strace"), "-o", str(log), *strace_log.OPTIONS)
    environment = {"TCMU_OVERLAYBD_TEST_FLUSH_INTERVAL_MS": "0"}
    with NbdProcess(*upper_of, prefix=prefix, environment=environment) as server:
        threads = [threading.Thread(target=write_and_flush, args=[server.uri, n]) for n in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(100)
    calls = strace_log.read_calls(log)
    return strace_log.requests_of(calls), strace_log.syncs_of(calls)


def test_no_flush_is_answered_before_data_then_index_are_synced(
    traced: tuple[list[Request], list[Sync]],
) -> None:
    requests, syncs = traced
    flushes = [r for r in requests if r.kind == FLUSH]
    assert len(flushes) == 12
    assert all(r.answered > 0 for r in requests)
    assert uncovered(requests, syncs) == []
    # The judge itself: with the index's syncs taken away it finds every flush guilty.
    assert len({id(p) for _, p in uncovered(requests, [s for s in syncs if s.path.endswith("/data")])}) >= 12


def test_flushes_in_flight_share_their_syncs(traced: tuple[list[Request], list[Sync]]) -> None:
    requests, syncs = traced
    promises = [r for r in requests if r.kind == FLUSH or r.flags & FUA]
    pairs = [s for s in syncs if s.path.endswith("/index")]
    assert len(pairs) <= len(promises) + 1  # the last is the clean end's
