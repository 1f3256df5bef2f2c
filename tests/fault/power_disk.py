"""A model of files on a disk whose power may go: what the processes see, and what is surely there.

Everything since a file's last sync is *pending*.  When the power goes, of each pending
write any sectors may be on the disk or not, and one sector of it may be torn at any byte
(in an index at multiples of 8: no disk tears an aligned word); the size is one that the
file had since then, and what was never written within it reads as zeros.  Names that
were made, renamed or removed since their folder was synced may be the old or the new.
A killed process loses nothing of this: it is all in the page cache.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path

from file_tape import Event

SECTOR = 512
WORD = 8


@dataclass
class File:
    now: bytearray = field(default_factory=bytearray)
    synced: bytes = b""
    pending: list[Event] = field(default_factory=list)

    def apply(self, event: Event) -> None:
        if event.kind == "sync":
            self.synced = bytes(self.now)
            self.pending.clear()
            return
        change(self.now, event)
        self.pending.append(event)

    def after_power_cut(self, rng: random.Random, unit: int) -> bytes:
        """unit: a sector is torn at multiples of it."""
        if not self.pending:
            return self.synced
        chance = rng.choice([0.0, 0.3, 0.7, 1.0])
        torn = rng.choice(self.pending) if rng.random() < 0.3 else None
        sizes = [len(self.synced)]
        disk = bytearray(self.synced)
        for event in self.pending:
            sizes.append(size_after(sizes[-1], event))
            if event.kind == "write":
                write_some_sectors(disk, event, rng, chance, unit if event is torn else 0)
            elif rng.random() < chance:
                change(disk, event)
        resize(disk, rng.choice([sizes[0], sizes[-1], rng.choice(sizes)]))
        return bytes(disk)


def change(content: bytearray, event: Event) -> None:
    """What the call did, as every process sees it."""
    if event.kind == "truncate":
        resize(content, event.offset)
    else:
        data = event.data if event.kind == "write" else bytes(int.from_bytes(event.data, "little"))
        write(content, event.offset, data)


def size_after(size: int, event: Event) -> int:
    if event.kind == "truncate":
        return event.offset
    return max(size, event.offset + len(event.data)) if event.kind == "write" else size


def write(content: bytearray, offset: int, data: bytes) -> None:
    content.extend(bytes(max(0, offset + len(data) - len(content))))
    content[offset : offset + len(data)] = data


def resize(content: bytearray, size: int) -> None:
    content.extend(bytes(max(0, size - len(content))))
    del content[size:]


def write_some_sectors(disk: bytearray, event: Event, rng: random.Random, chance: float, unit: int) -> None:
    """unit 0: none of them is torn."""
    end = event.offset + len(event.data)
    pieces = []
    at = event.offset
    while at < end:
        next_ = min(at - at % SECTOR + SECTOR, end)
        pieces.append((at, next_))
        at = next_
    torn = rng.choice(pieces) if unit else None
    for begin, stop in pieces:
        first, last = begin, stop
        if (begin, stop) == torn:
            middle = rng.randrange(begin, stop + 1) // unit * unit
            first, last = rng.choice([(begin, max(begin, middle)), (max(begin, middle), stop)])
        elif rng.random() >= chance:
            continue
        write(disk, first, event.data[first - event.offset : last - event.offset])


class Disk:
    """A folder of such files; and for a name that is not durable, what was there before."""

    def __init__(self, folder: Path) -> None:
        """All that is in folder now is surely there."""
        self.folder = folder
        self.before: dict[str, File | None] = {}
        self.files: dict[str, File] = {}
        for path in folder.iterdir():
            content = path.read_bytes()
            self.files[str(path)] = File(bytearray(content), content)

    def apply(self, event: Event) -> None:
        if event.kind == "create":
            self._name(event.path, File())
        elif event.kind == "rename":
            self._name(event.to, self.files[event.path])
            self._name(event.path, None)
        elif event.kind == "remove":
            self._name(event.path, None)
        elif event.kind == "sync" and Path(event.path) == self.folder:
            self.before.clear()
        elif event.kind != "answer":
            self.files[event.path].apply(event)

    def _name(self, path: str, file: File | None) -> None:
        self.before.setdefault(path, self.files.get(path))
        self.files.pop(path, None)
        if file is not None:
            self.files[path] = file

    def kill(self) -> None:
        """Makes the folder what the next process of this boot finds; a file that stays keeps its inode."""
        contents = {Path(path).name: bytes(file.now) for path, file in self.files.items()}
        fill(self.folder, contents)

    def cut_power(self, folder: Path, rng: random.Random) -> None:
        """Makes folder what the next boot finds."""
        names: dict[str, File | None] = dict(self.files)
        for path, before in self.before.items():
            names[path] = rng.choice([before, self.files.get(path)])
        contents = {
            Path(path).name: file.after_power_cut(rng, WORD if path.endswith("index") else 1)
            for path, file in names.items()
            if file is not None
        }
        fill(folder, contents)


def fill(folder: Path, contents: dict[str, bytes]) -> None:
    """Makes the files of folder those, by name."""
    for path in folder.iterdir():
        if path.name not in contents:
            path.unlink()
    for name, content in contents.items():
        (folder / name).write_bytes(content)
