"""The process is killed at every step of the journal's circle, each time reopened and compared.

What was acknowledged is there; what ran when the process died is there as a whole or not
at all, in a sparse upper sector by sector; nothing else is.  The steps are the HOOK names
of csrc/image (listed in upper.h and upper_sparse.h).
"""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from image_process import SECTOR, DiedError, ImageProcess, make_pair

SIZE = 1 << 20
CSRC = Path(__file__).parents[2] / "csrc" / "image"

WRITE = ["upper.reserved", "upper.data_written", "upper.record_written", "upper.map_inserted"]
FLUSH = [
    "upper.flush.data_synced",
    "upper.flush.index_appended",
    "upper.flush.index_synced",
    "upper.flush.trimmed",
]
FAILED = ["upper.flush.failed"]
GROW = ["upper.grow.data_header", "upper.grow.index_header"]
CLOSE = ["upper.close.flushed", "upper.close.marked_clean", "upper.close.removed"]
SEAL = [
    "seal.index_synced",
    "seal.trailer_written",
    "seal.trailer_synced",
    "seal.marked",
]  # tests/fault/test_kill_in_snapshot.py
FIRST_OPEN = ["journal.made", "upper.open.journal_ready"]
SPARSE_MADE = ["sparse.sectors_written", "sparse.sectors_replaced"]
SPARSE = ["sparse.punched", "sparse.marked_open", "sparse.marked_clean"]
OPEN_AGAIN = [
    "upper.open.replay_appended",
    "upper.open.replayed",
    "journal.taken_over",
    "upper.open.journal_ready",
]


class Model:
    """The disk as it must be: what was acknowledged, and what may or may not have happened."""

    def __init__(self) -> None:
        self.acknowledged = bytearray(SIZE)
        self.running: tuple[int, bytes] | None = None

    def run(self, offset: int, data: bytes, call: Callable[[], None]) -> None:
        self.running = (offset, data)
        call()
        self.acknowledged[offset : offset + len(data)] = data
        self.running = None

    def states(self) -> list[bytes]:
        """All that the disk may read as."""
        states = [bytes(self.acknowledged)]
        if self.running is not None:
            offset, data = self.running
            states.append(states[0][:offset] + data + states[0][offset + len(data) :])
        return states

    def allows(self, seen: bytes, folder: Path) -> bool:
        """What is written in place has each sector in one of its states, not all of them in the same."""
        states = self.states()
        if not is_sparse(folder):
            return seen in states
        return all(
            any(seen[at : at + SECTOR] == state[at : at + SECTOR] for state in states)
            for at in range(0, SIZE, SECTOR)
        )


def is_sparse(folder: Path) -> bool:
    return (folder / "index").stat().st_size == 0


class Work:
    """Writes, discards and flushes, each known to the model."""

    def __init__(self, process: ImageProcess, model: Model) -> None:
        self.process = process
        self.model = model

    def write(self, sector: int, count: int, byte: int) -> None:
        data = bytes([byte]) * (count * SECTOR)
        self.model.run(sector * SECTOR, data, lambda: self.process.write(sector * SECTOR, data))

    def discard(self, sector: int, count: int) -> None:
        length = count * SECTOR
        self.model.run(sector * SECTOR, bytes(length), lambda: self.process.discard(sector * SECTOR, length))

    def do_all(self) -> None:
        for round_ in range(10):
            self.write(0, 16, 10 * round_ + 1)
            self.write(8, 16, 10 * round_ + 2)
            self.discard(12, 2 + round_)
            self.write(100 + round_, 1, 10 * round_ + 3)
            self.discard(0, 3)
            if round_ % 2:
                self.process.flush()
        self.write(500, 300, 99)
        self.process.close()


def check(folder: Path, model: Model) -> None:
    """A tool sees the state, a writable opening does, and so does the one after it."""
    with ImageProcess(folder, read_only=True) as tool:
        seen = tool.read(0, SIZE)
        tool.close()
    assert model.allows(seen, folder)
    for _ in range(2):
        with ImageProcess(folder) as process:
            assert process.read(0, SIZE) == seen
            process.close()
    assert not (folder / "index.journal").exists()


def die(folder: Path, model: Model, step: str, **options: object) -> None:
    """Works until the process is killed at step."""
    with pytest.raises(DiedError) as died, ImageProcess(folder, kill_at=step, **options) as process:
        Work(process, model).do_all()
    assert died.value.exit_code == -signal.SIGKILL


@pytest.fixture(params=["append", "sparse"])
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    make_pair(tmp_path, SIZE, sparse=request.param == "sparse")
    return tmp_path


@pytest.fixture
def sparse_folder(tmp_path: Path) -> Path:
    make_pair(tmp_path, SIZE, sparse=True)
    return tmp_path


def test_list_of_steps_is_complete():
    named = {name for path in CSRC.glob("*.c") for name in re.findall(r'HOOK\("([^"]+)"\)', path.read_text())}
    assert named == {
        *[*WRITE, *FLUSH, *FAILED, *GROW, *CLOSE, *SEAL, *FIRST_OPEN, *OPEN_AGAIN],
        *[*SPARSE_MADE, *SPARSE],
    }
    documented = (CSRC / "upper.h").read_text() + (CSRC / "upper_sparse.h").read_text()
    assert all(name in documented for name in named)


@pytest.mark.parametrize("nth", [1, 2, 7, 25])
@pytest.mark.parametrize("step", WRITE)
def test_killed_while_writing_loses_nothing_acknowledged(folder, step, nth):
    model = Model()
    die(folder, model, f"{step}:{nth}")
    check(folder, model)


@pytest.mark.parametrize("nth", [1, 3])
@pytest.mark.parametrize("step", FLUSH)
def test_killed_while_flushing_loses_nothing_acknowledged(folder, step, nth):
    model = Model()
    die(folder, model, f"{step}:{nth}")
    check(folder, model)


@pytest.mark.parametrize("step", CLOSE)
def test_killed_while_closing_loses_nothing(folder, step):
    model = Model()
    die(folder, model, step)
    check(folder, model)


@pytest.mark.parametrize("step", FIRST_OPEN)
def test_killed_at_the_first_opening_leaves_an_empty_disk(folder, step):
    model = Model()
    die(folder, model, step)
    check(folder, model)


@pytest.mark.parametrize("step", SPARSE_MADE)
def test_killed_at_the_first_opening_of_a_sparse_upper_leaves_an_empty_disk(sparse_folder, step):
    model = Model()
    die(sparse_folder, model, step)
    check(sparse_folder, model)


@pytest.mark.parametrize("step", [*SPARSE, "sparse.punched:5"])
def test_killed_where_only_a_sparse_upper_passes_loses_nothing(sparse_folder, step):
    model = Model()
    with ImageProcess(sparse_folder) as process:  # a second opening marks the side index as open
        Work(process, model).write(3, 9, 7)
        process.close()
    die(sparse_folder, model, step)
    check(sparse_folder, model)


@pytest.mark.parametrize("step", OPEN_AGAIN)
def test_killed_while_replaying_loses_nothing(folder, step):
    model = Model()
    die(folder, model, "upper.map_inserted:20")
    die(folder, model, step)
    die(folder, model, step)  # and once more: replaying twice changes nothing
    check(folder, model)


@pytest.mark.parametrize("times", [5])
def test_killed_again_and_again_loses_nothing_acknowledged(folder, times):
    model = Model()
    for number in range(times):
        die(folder, model, f"upper.record_written:{7 + number}")
        model = settled(folder, model)
    check(folder, model)


def settled(folder: Path, model: Model) -> Model:
    """The write that ran has happened or not: from now on it is known."""
    with ImageProcess(folder, read_only=True) as tool:
        seen = tool.read(0, SIZE)
        tool.close()
    assert model.allows(seen, folder)
    known = Model()
    known.acknowledged[:] = seen
    return known


def test_killed_after_a_failed_sync_stays_at_the_flushed_state(folder):
    with ImageProcess(folder) as process:
        process.write(0, b"a" * 4096)
        process.close()
    with pytest.raises(DiedError), ImageProcess(folder, kill_at="upper.flush.failed") as process:
        process.write(0, b"b" * 4096)
        process.fault("/data", "sync", 1, 5)
        process.flush()
    for read_only in (True, False):
        with ImageProcess(folder, read_only=read_only) as process:
            if not is_sparse(folder):  # in place, the flushed bytes are gone
                assert process.read(0, 4096) == b"a" * 4096
            assert process.stats().is_failed
            process.close()


@pytest.mark.parametrize("step", ["upper.map_inserted:7", "upper.flush.data_synced:1"])
def test_without_the_journal_the_same_kill_loses_acknowledged_writes(folder, step):
    """So the tests above would notice."""
    model = Model()
    die(folder, model, step, no_journal=True)
    with ImageProcess(folder, read_only=True) as tool:
        assert not model.allows(tool.read(0, SIZE), folder)
        tool.close()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_overlapping_writes_of_many_threads_leave_memory_and_index_in_one_order(folder, seed):
    with ImageProcess(folder) as process:
        process.race(seed, 4, 150)
        seen = process.read(0, 64 * 1024)
        process.kill()
    for options in ({"read_only": True}, {}, {"read_only": True}):
        with ImageProcess(folder, **options) as process:
            assert process.read(0, 64 * 1024) == seen
            process.close()


@pytest.mark.parametrize("seed", range(4))
def test_killed_in_the_midst_of_racing_writers_every_opening_sees_the_same(folder, seed):
    with ImageProcess(folder, journal_slots=32) as process:
        killer = threading.Timer(0.02 + 0.05 * seed, process.signal_kill)
        killer.start()
        with pytest.raises(DiedError):
            process.race(seed, 4, 1_000_000)
        killer.join()
    with ImageProcess(folder, read_only=True) as tool:
        seen = tool.read(0, 64 * 1024)
        tool.close()
    sectors = [seen[at : at + SECTOR] for at in range(0, len(seen), SECTOR)]
    assert all(sector == sector[:1] * SECTOR for sector in sectors)  # none is torn
    assert any(any(sector) for sector in sectors)
    for _ in range(2):
        with ImageProcess(folder) as process:
            assert process.read(0, 64 * 1024) == seen
            process.close()
