"""The power is cut at every system call: what was flushed is there, in order, and opens.

The calls of a working process are recorded with strace.  For each place between two of
them the files are built as a disk might hold them then: what was synced is there, of the
rest any sector may be or not, sizes are the old or the new, a rename has happened or not,
an mtime is what it was only when the whole inode was synced.  A lower shows through holes.
"""

from __future__ import annotations

import os
import random
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from image_process import SECTOR, ImageProcess, make_pair, open_stack
from system_calls import Event, read_trace, trace_command

from tcmu_overlaybd.config.image_config import ImageConfig, Upper
from tcmu_overlaybd.image.commit import commit_image
from tcmu_overlaybd.image.layer_writer import LayerOptions
from tcmu_overlaybd.native.source import crc32c

SIZE = 256 * SECTOR
NR_TRIES = 20 if os.environ.get("OBD_SOAK") == "1" else 2  # random disks at each place
OPTIONS = {"journal_slots": 64}

pytestmark = [
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed"),
    pytest.mark.timeout(1200),  # thousands of openings, each with its syncs
]


@dataclass
class File:
    """Its bytes for the processes, and what of them is surely on the disk."""

    now: bytearray = field(default_factory=bytearray)
    synced: bytes = b""
    mtime_ns: int | None = None  # None: it was not synced since the last change

    def apply(self, event: Event) -> None:
        if event.kind == "write":
            end = event.offset + len(event.data)
            self.now.extend(bytes(max(0, end - len(self.now))))
            self.now[event.offset : end] = event.data
        elif event.kind == "truncate":
            self.now.extend(bytes(max(0, event.offset - len(self.now))))
            del self.now[event.offset :]
        elif event.kind == "punch":
            self.now[event.offset : event.offset + event.length] = bytes(event.length)
        elif event.kind == "sync":
            self.synced = bytes(self.now)
        if event.kind == "sync" and event.with_times:
            self.mtime_ns = (
                Path(event.path).stat().st_mtime_ns
            )  # the process has ended; this was its last change
        elif event.kind != "sync":
            self.mtime_ns = None

    def after_power_cut(self, rng: random.Random) -> bytes:
        size = rng.choice([len(self.synced), len(self.now)])
        chance = rng.choice([0.0, 0.3, 0.9])
        disk = bytearray(size)
        for at in range(0, size, SECTOR):
            page = self.now if rng.random() < chance else self.synced
            part = page[at : min(at + SECTOR, size)]
            disk[at : at + len(part)] = part
        return bytes(disk)


class Disk:
    """A folder's files, and for a name that was renamed or removed, what it was before."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)
        self.files: dict[str, File] = {}
        self.before: dict[str, File | None] = {}
        for path in folder.iterdir():
            content = path.read_bytes()
            self.files[str(path)] = File(bytearray(content), content, path.stat().st_mtime_ns)

    def apply(self, event: Event) -> None:
        if event.kind == "create":
            self.files[event.path] = File()
        elif event.kind == "rename":
            self.before[event.to] = self.files.get(event.to)
            self.files[event.to] = self.files.pop(event.path)
        elif event.kind == "unlink":
            self.before[event.path] = self.files.pop(event.path)
        elif event.kind == "sync" and event.path.rstrip("/") == self.folder:
            self.before.clear()
        elif event.kind != "answer":
            self.files[event.path].apply(event)

    def cut_power(self, folder: Path, rng: random.Random) -> None:
        """Fills folder with what the next start finds."""
        names: dict[str, File | None] = dict(self.files)
        for path, before in self.before.items():
            names[path] = rng.choice([before, self.files.get(path)])
        for path, file in names.items():
            if file is not None:
                content = file.after_power_cut(rng)
                target = folder / Path(path).name
                write_with_holes(target, of_another_boot(content) if path.endswith(".journal") else content)
                if file.mtime_ns is not None:
                    os.utime(target, ns=(0, file.mtime_ns))


def write_with_holes(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        for at in range(0, len(content), 4096):
            if any(block := content[at : at + 4096]):
                file.seek(at)
                file.write(block)
        file.truncate(len(content))


def of_another_boot(journal: bytes) -> bytes:
    header = bytearray(journal[:176])
    header[16] ^= 0xFF
    return bytes(header) + crc32c(bytes(header), 0).to_bytes(4, "little") + journal[180:]


@dataclass
class Recording:
    events: list[Event]
    disk: Disk
    states: list[bytes]  # states[i]: the disk after i answered calls
    flushed: list[int]  # flushed[i]: how many calls are durable after i answered calls


def make_lower(folder: Path) -> None:
    """A layer that is full of "L", in folder."""
    make_pair(folder, SIZE)
    with ImageProcess(folder) as process:
        process.write(0, b"L" * SIZE)
        process.close()
    upper = Upper(data=str(folder / "data"), index=str(folder / "index"))
    commit_image(ImageConfig(upper=upper), folder / "lower-0", LayerOptions())
    for name in ("data", "index"):
        (folder / name).unlink()


def record(folder: Path, seed: int, *, sparse: bool, is_used: bool) -> Recording:
    """Works with an upper in folder under strace; is_used: it was open before."""
    make_lower(folder)
    make_pair(folder, SIZE, sparse=sparse)
    if is_used:
        ImageProcess(folder, **OPTIONS).close()
    disk = Disk(folder)
    trace = folder.parent / "trace"
    rng = random.Random(seed)
    content = bytearray(b"L" * SIZE)
    states, flushed = [bytes(content)] * 2, [0, 0]  # before and after the opening
    with ImageProcess(folder, wrapper=trace_command(trace), **OPTIONS) as process:
        for number in range(60):
            first, count = rng.randrange(200), rng.randrange(1, 50)
            where = slice(first * SECTOR, (first + count) * SECTOR)
            kind = rng.choices(["write", "discard", "flush"], [5, 2, 1])[0]
            if kind == "flush":
                process.flush()
            elif kind == "write":
                content[where] = bytes([number + 1]) * (count * SECTOR)
                process.write(where.start, bytes(content[where]))
            else:
                content[where] = bytes(count * SECTOR)
                process.discard(where.start, count * SECTOR)
            states.append(bytes(content))
            flushed.append(len(states) - 1 if kind == "flush" else flushed[-1])
        process.close()
    states.append(bytes(content))
    flushed.append(len(states) - 1)
    return Recording(read_trace(trace, folder), disk, states, flushed)


def read_after(folder: Path) -> bytes:
    image = open_stack(folder, OPTIONS)
    content = image.read(SIZE, 0, 10_000)
    image.close()
    return content


def is_allowed(disk: bytes, states: list[bytes], *, sparse: bool) -> bool:
    """One of the states; what is written in place may have each sector in another of them."""
    if disk in states or not sparse:
        return disk in states
    sectors = [slice(at, at + SECTOR) for at in range(0, SIZE, SECTOR)]
    return all(any(disk[where] == state[where] for state in states) for where in sectors)


@pytest.mark.parametrize("sparse", [False, True], ids=["append", "sparse"])
@pytest.mark.parametrize("seed", [1, 2])
def test_what_was_flushed_survives_a_power_cut_at_every_call(tmp_path, seed, sparse):
    work = tmp_path / "work"
    work.mkdir()
    recording = record(work, seed, sparse=sparse, is_used=seed == 2)
    rng = random.Random(seed)
    nr_answers = nr_cuts = 0
    for event in recording.events:
        recording.disk.apply(event)
        nr_answers += event.kind == "answer"
        # The call that runs may have happened; so may any that was not flushed.
        allowed = recording.states[recording.flushed[nr_answers] : nr_answers + 2]
        for _ in range(NR_TRIES):
            cut = tmp_path / "cut"
            cut.mkdir()
            recording.disk.cut_power(cut, rng)
            assert is_allowed(read_after(cut), allowed, sparse=sparse), (
                f"after {nr_answers} answers, at {event.kind} {event.path}"
            )
            shutil.rmtree(cut)
            nr_cuts += 1
    assert nr_answers == len(recording.states) - 1
    assert nr_cuts > 150 * NR_TRIES


def test_every_flush_is_answered_after_data_and_then_index_are_synced(tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    make_pair(work, SIZE)
    trace = tmp_path / "trace"
    with ImageProcess(work, wrapper=trace_command(trace), **OPTIONS) as process:
        process.write(0, b"a" * SECTOR)
        process.flush()
        process.discard(0, SECTOR)
        process.flush()
    events = read_trace(trace, work)
    names = [(event.kind, Path(event.path).name) for event in events]
    opened = names.index(("answer", ""))
    pair = [
        ("sync", "data"),
        ("write", "index"),
        ("sync", "index"),
        ("write", "index.journal"),
        ("answer", ""),
    ]
    assert names[opened + 1 :] == [
        *[("write", "data"), ("write", "index.journal"), ("answer", ""), *pair],
        *[("write", "index.journal"), ("answer", ""), *pair],
    ]
