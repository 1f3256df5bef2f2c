"""An acknowledged write survives the death of the process, wherever it dies.

Each case reopens the disk, compares it with the model, kills that process too, and
compares once more: what the first reopening found must not hang on its clean end.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.nbd.client import Client, PeerError
from tests.nbd.disk_model import DiskModel, some_operations
from tests.nbd.disks import DISK_SIZE
from tests.nbd.peer import data_of
from tests.nbd.serving import NbdProcess

CSRC = Path(__file__).parents[2] / "csrc"
ROUNDS = 50 if os.environ.get("OBD_SOAK") == "1" else 3
NO_TIMED_FLUSH = {"TCMU_OVERLAYBD_TEST_FLUSH_INTERVAL_MS": "0"}

# NBD has no way to these: tests/fault walks them.
ELSEWHERE = ("upper.grow.",)


def hooks() -> list[str]:
    """The steps of the upper's circle, from the sources: a new hook is walked without being listed."""
    names = set()
    for file in [*CSRC.glob("image/*.c"), *CSRC.glob("front/nbd*.c")]:
        names |= set(re.findall(r'HOOK\("((?:upper|journal|nbd)\.[^"]+)"\)', file.read_text()))
    return sorted(name for name in names if not name.startswith(ELSEWHERE))


# Passed once in a run, or only on the way into the failed state.
ONCE = ("upper.open", "upper.close", "journal.", "upper.flush.failed")
STEPS = [(name, n) for name in hooks() for n in ((1,) if name.startswith(ONCE) else (1, 4))]


def assert_disk_is(model: DiskModel, arguments: list[str]) -> None:
    """Twice, with a kill in between."""
    found = []
    for _ in range(2):
        server = NbdProcess(*arguments, environment=NO_TIMED_FLUSH)
        with Client(server.uri) as client:
            found.append(client.read(0, DISK_SIZE))
        server.kill()
    assert found[0] == found[1]
    assert found[0] in model.allowed()


def test_there_are_hooks_at_every_step_of_the_circle() -> None:
    """The numbers of architecture section 6: reserve, data, record, map, sync, append, sync, trim."""
    steps = ["reserved", "data_written", "record_written", "map_inserted"]
    steps += ["flush.data_synced", "flush.index_appended", "flush.index_synced", "flush.trimmed"]
    assert {f"upper.{step}" for step in steps} <= set(hooks())


def leave_a_journal(model: DiskModel, arguments: list[str]) -> None:
    """A process works on the disk and is killed; what it left is replayed, and so flushed, by the next."""
    server = NbdProcess(*arguments, environment=NO_TIMED_FLUSH)
    with Client(server.uri) as client:
        model.run(client, some_operations(1, 25))
    server.kill()
    model.flushed = model.content


@pytest.mark.parametrize(("name", "n"), STEPS)
def test_killed_at_a_step_the_disk_is_as_acknowledged(upper_of: list[str], name: str, n: int) -> None:
    model = DiskModel()
    if name != "journal.made":  # the only one that a first start passes and a second does not
        leave_a_journal(model, upper_of)
    environment = {**NO_TIMED_FLUSH, "OBD_TEST_KILL_AT": f"{name}:{n}"}
    if name == "upper.flush.failed":
        environment["OBD_TEST_FILE_FAULT"] = "/data:sync:2:5"  # the first is the replay's
    server = NbdProcess(*upper_of, environment=environment, ready=False)
    if server.read_uri():
        with Client(server.uri) as client:
            model.run_until_death(client, some_operations(2, 60))
    code, _, stderr = server.stop()
    assert code == -signal.SIGKILL, f"the hook was not reached: {stderr}"
    if name == "upper.flush.failed":
        model = DiskModel(content=model.flushed)
    assert_disk_is(model, upper_of)


def test_killed_again_and_again_in_the_middle_of_writes_of_many_connections(upper_of: list[str]) -> None:
    """Four writers, each in a quarter of the disk; each kill comes whenever it comes."""
    quarters = [Quarter(number) for number in range(4)]
    for _ in range(ROUNDS):
        server = NbdProcess(*upper_of, environment=NO_TIMED_FLUSH)
        writers = [
            threading.Thread(target=quarter.write_until_death, args=[server.uri]) for quarter in quarters
        ]
        for writer in writers:
            writer.start()
        time.sleep(random.uniform(0.3, 1.2))
        server.kill()
        for writer in writers:
            writer.join(60)
        with NbdProcess(*upper_of) as server, Client(server.uri) as client:
            for quarter in quarters:
                quarter.assert_all_there(client)
    assert all(quarter.nr_acknowledged > 0 for quarter in quarters)


class Quarter:
    """A quarter of the disk, written 4 KiB at a time, round and round; a flush now and then."""

    BLOCKS = 64

    def __init__(self, number: int) -> None:
        self.number = number
        self.seeds: dict[int, int] = {}  # block -> of the last acknowledged write
        self.unanswered: tuple[int, int] | None = None
        self.nr_acknowledged = 0

    def offset_of(self, block: int) -> int:
        return self.number * (DISK_SIZE // 4) + block * 4096

    def write_until_death(self, uri: str) -> None:
        with Client(uri) as client, contextlib.suppress(PeerError):
            while True:
                self.write_one(client)

    def write_one(self, client: Client) -> None:
        block = self.nr_acknowledged % self.BLOCKS
        self.unanswered = (block, self.number * 1_000_000 + self.nr_acknowledged + 1)
        client.write(self.offset_of(block), 4096, self.unanswered[1])
        self.seeds[block] = self.unanswered[1]
        self.unanswered = None
        self.nr_acknowledged += 1
        if self.nr_acknowledged % 50 == 0:
            client.flush()

    def assert_all_there(self, client: Client) -> None:
        """The block of the unanswered write may be new or old, and is known from then on."""
        for block, seed in self.seeds.items():
            seeds = [seed]
            if self.unanswered is not None and self.unanswered[0] == block:
                seeds.append(self.unanswered[1])
            found = client.read_hex(self.offset_of(block), 4096)
            which = [s for s in seeds if data_of(s, 4096).hex() == found]
            assert which, f"quarter {self.number}, block {block}"
            self.seeds[block] = which[0]
        self.unanswered = None


def test_without_the_journal_a_kill_loses_acknowledged_writes(upper_of: list[str]) -> None:
    """What the tests above are about: with the journal off they would fail."""
    server = NbdProcess(*upper_of, environment={**NO_TIMED_FLUSH, "TCMU_OVERLAYBD_TEST_NO_JOURNAL": "1"})
    with Client(server.uri) as client:
        client.write(0, 4096, 1)
        server.kill()
    with NbdProcess(*upper_of) as server, Client(server.uri) as client:
        assert client.read_hex(0, 4096) == bytes(4096).hex()
