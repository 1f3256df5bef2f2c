"""The power is cut anywhere in thousands of generated histories: what was flushed is there.

A history is a row of sessions with one upper: it is opened, written to, discarded, flushed,
and closed, killed or met by a power cut at some call.  The test build notes every call that
changes a file (``recorded_files``); a model of the disk plays them again (power_disk.py) and
cuts the power around every sync and name, and at some calls between.  Each time an upper
of another boot must open on what is left, and the disk must be as it was after some call:
not before the last flush that was answered, and not after the call that ran.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from file_tape import Event, read_tape
from hypothesis import example, given, settings
from hypothesis import strategies as st
from image_process import SECTOR, make_pair, open_stack
from power_disk import Disk

from tcmu_overlaybd.errors import OverlayBDError
from tcmu_overlaybd.native.testing import file_fault, recorded_files

NR_SECTORS = 64
SIZE = NR_SECTORS * SECTOR
TIMEOUT_MS = 30_000
IS_SOAK = os.environ.get("OBD_SOAK") == "1"
NR_HISTORIES = 40_000 if IS_SOAK else 2000

pytestmark = pytest.mark.timeout(7200 if IS_SOAK else 900)


# ---- what happens ----


@dataclass(frozen=True)
class Step:
    kind: str  # "write", "write fua", "discard" or "flush"
    first: int = 0  # sectors, as is the next
    count: int = 0
    byte: int = 0


@dataclass(frozen=True)
class Session:
    """With end "kill" or "cut" it ends at that part of its calls, in thousandths."""

    steps: tuple[Step, ...]
    end: str = "close"
    place: int = 0
    nr_slots: int = 64


@dataclass(frozen=True)
class History:
    sessions: tuple[Session, ...]
    seed: int = 0  # of what the disk has of unsynced writes at each cut


CHANGES = st.builds(
    Step,
    st.sampled_from(["write", "write", "write", "write fua", "discard"]),
    st.integers(0, NR_SECTORS - 1),
    st.integers(1, 24),
    st.integers(1, 255),
)
STEPS = st.one_of(CHANGES, CHANGES, CHANGES, st.just(Step("flush")))
SESSIONS = st.builds(
    Session,
    st.lists(STEPS, max_size=12).map(tuple),
    st.sampled_from(["close", "kill", "cut"]),
    st.integers(0, 1000),
    st.sampled_from([4, 64]),
)
HISTORIES = st.builds(
    History, st.lists(SESSIONS, min_size=1, max_size=4).map(tuple), st.integers(0, 2**32 - 1)
)


# ---- doing it ----


@dataclass
class Told:
    """What was answered in a session so far, by which the disk is judged."""

    before: list[bytes]  # all that the disk may be before the opening is answered
    states: list[bytes] = field(default_factory=list)  # after each answered call
    flushed: list[int] = field(default_factory=list)  # and the place in states of what is durable then

    def answer(self, state: bytes, *, is_durable: bool) -> None:
        self.states.append(state)
        self.flushed.append(len(self.states) - 1 if is_durable else self.flushed[-1])

    def after_kill(self, nr_answers: int) -> list[bytes]:
        """Everything that was answered, and perhaps the call that ran."""
        if nr_answers == 0:
            return self.before
        return self.states[nr_answers - 1 : nr_answers + 1]

    def after_power_cut(self, nr_answers: int) -> list[bytes]:
        if nr_answers == 0:
            return self.before
        return self.states[self.flushed[nr_answers - 1] : nr_answers + 1]


def take_step(image: object, step: Step, content: bytearray) -> None:
    where = slice(step.first * SECTOR, min(step.first + step.count, NR_SECTORS) * SECTOR)
    length = where.stop - where.start
    if step.kind.startswith("write"):
        content[where] = bytes([step.byte]) * length
        image.write(bytes(content[where]), where.start, TIMEOUT_MS)
    elif step.kind == "discard":
        content[where] = bytes(length)
        image.discard(length, where.start, TIMEOUT_MS)
    if step.kind in ("flush", "write fua"):
        image.flush()


def run(folder: Path, session: Session, told: Told) -> list[Event]:
    """The session from opening to closing; gives its events."""
    tape = folder.parent / "tape"
    marks = []

    def answer(state: bytes, *, is_durable: bool) -> None:
        told.answer(state, is_durable=is_durable)
        marks.append(tape.stat().st_size)

    with recorded_files(folder, tape):
        image = open_stack(folder, {"journal_slots": session.nr_slots})
        content = bytearray(image.read(SIZE, 0, TIMEOUT_MS))
        assert bytes(content) in told.before, "opened on something else"
        answer(bytes(content), is_durable=True)
        for step in session.steps:
            take_step(image, step, content)
            answer(bytes(content), is_durable=step.kind in ("flush", "write fua"))
        image.close()
        answer(bytes(content), is_durable=True)
    return read_tape(tape, marks)


class World:
    """One upper through its sessions."""

    def __init__(self, root: Path, seed: int) -> None:
        self.folder = root / "upper"
        self.elsewhere = root / "cut"
        for folder in (self.folder, self.elsewhere):
            folder.mkdir()
        self.rng = random.Random(seed)
        make_pair(self.folder, SIZE)
        self.disk = Disk(self.folder)
        self.boot = 0
        self.expected = [bytes(SIZE)]
        self.durable = self.expected
        self.nr_cuts = 0

    def live_through(self, session: Session) -> None:
        told = Told(self.expected)
        with boot(self.boot):
            events = run(self.folder, session, told)
        told.before = self.durable
        end = len(events) if session.end == "close" else len(events) * session.place // 1000
        nr_answers = 0
        for number, event in enumerate(events[:end]):
            self.disk.apply(event)
            nr_answers += event.kind == "answer"
            self._check_power_cut(events[number : number + 2], told.after_power_cut(nr_answers))
        self._end(session, told, nr_answers)

    def _check_power_cut(self, around: list[Event], allowed: list[bytes]) -> None:
        """Around is the call before the cut and the one after it."""
        if all(event.kind in ("write", "answer") for event in around) and self.rng.random() < 0.7:
            return
        self.disk.cut_power(self.elsewhere, self.rng)
        with boot(self.boot + 1):
            assert self._read_elsewhere() in allowed, f"at {around}"
        self.nr_cuts += 1

    def _read_elsewhere(self) -> bytes:
        try:
            image = open_stack(self.elsewhere, {"read_only": self.rng.random() < 0.5})
            found = image.read(SIZE, 0, TIMEOUT_MS)
            image.close()
        except OverlayBDError as error:
            raise AssertionError(f"it cannot be read: {error}") from error
        return bytes(found)

    def _end(self, session: Session, told: Told, nr_answers: int) -> None:
        self.durable = told.after_power_cut(nr_answers)
        if session.end == "cut":
            self.disk.cut_power(self.folder, self.rng)
            self.disk = Disk(self.folder)
            self.boot += 1
            self.expected = self.durable
        elif session.end == "kill":
            self.disk.kill()
            self.expected = told.after_kill(nr_answers)
        else:
            self.expected = [told.states[-1]]


@contextmanager
def boot(number: int) -> Iterator[None]:
    os.environ["OBD_TEST_BOOT_ID"] = f"{number:08x}-0000-0000-0000-000000000000"
    try:
        yield
    finally:
        del os.environ["OBD_TEST_BOOT_ID"]


def live_through(history: History) -> int:
    """How many power cuts were tried."""
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None  # thousands of syncs
    root = Path(tempfile.mkdtemp(prefix="obd-power-", dir=memory))
    try:
        world = World(root, history.seed)
        for session in history.sessions:
            world.live_through(session)
        return world.nr_cuts
    finally:
        shutil.rmtree(root)


# ---- the tests ----


# Killed between the flush of entries and the header that says so, then cut while they are
# appended again: an older entry was the last of its sectors.
APPENDED_TWICE = History(
    (
        Session((Step("write", 4, 6, 240), Step("flush"))),
        Session(
            (
                Step("write", 12, 24, 254),
                Step("write", 0, 4, 91),
                Step("write", 59, 21, 79),
                Step("write", 12, 3, 108),
                Step("discard", 28, 7),
                Step("write", 6, 23, 130),
                Step("flush"),
            ),
            "kill",
            810,
            4,
        ),
        Session((Step("flush"),), "kill", 94, 4),
        Session((Step("flush"),), "cut", 223),
    )
)


@example(APPENDED_TWICE)
@settings(max_examples=NR_HISTORIES, derandomize=not IS_SOAK, print_blob=True)
@given(HISTORIES)
def test_what_was_flushed_survives_a_power_cut_anywhere_in_any_history(history):
    live_through(history)


WRITE, OTHER = Step("write", 0, 8, 1), Step("write", 4, 8, 2)
FLUSH = Step("flush")
PLAIN = (WRITE, FLUSH, OTHER, FLUSH, WRITE, FLUSH)


@pytest.mark.parametrize("rule", [("/data", "late"), ("/data", "forget"), ("/index", "forget")])
def test_a_sync_that_is_missing_or_in_the_wrong_order_is_noticed(rule):
    file_fault(*rule, 1, 5, sticky=True)
    try:
        with pytest.raises(AssertionError):
            for seed in range(200):
                live_through(History((Session(PLAIN),), seed))
    finally:
        file_fault("", "", 0, 0)
