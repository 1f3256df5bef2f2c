"""What a process did to its files, from an strace of it: a second opinion that needs no hook.

``trace_command`` is put before the process's own command; ``read_trace`` gives its events
in order, of the files whose paths begin with a folder, and the answers it wrote.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

CALLS = "openat,close,write,pwrite64,pwritev,pwritev2,fdatasync,fsync,ftruncate,fallocate,rename,unlink"
LINE = re.compile(r"^(\d+) +(\w+)\((.*)\) += (-?\d+)", re.DOTALL)
STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
PICKLE = b"\x80\x04"


@dataclass(frozen=True)
class Event:
    """kind is write, sync, truncate, punch, create, rename, unlink or answer."""

    kind: str
    path: str = ""
    offset: int = 0  # of a write; the new size of a truncate
    data: bytes = b""
    length: int = 0  # of a punch
    with_times: bool = False  # of a sync
    to: str = ""  # of a rename


def trace_command(output: Path) -> list[str]:
    return ["strace", "-f", "-xx", "-s", "1000000", "-o", str(output), "-e", f"trace={CALLS}"]


def read_trace(trace: Path, folder: Path) -> list[Event]:
    paths: dict[int, str] = {}
    events = []
    for name, arguments, result in _calls(trace.read_text()):
        if result < 0:
            continue
        strings = [bytes.fromhex(text.replace("\\x", "")) for text in STRING.findall(arguments)]
        if name == "openat":
            paths[result] = strings[0].decode()
            if "O_TRUNC" in arguments and paths[result].startswith(str(folder)):
                events.append(Event("create", paths[result]))
            continue
        if name in ("rename", "unlink"):
            events.append(Event(name, strings[0].decode(), to=strings[-1].decode()))
            continue
        descriptor = int(arguments.split(",")[0])
        if name == "write" and strings and strings[0][4:6] == PICKLE:
            events.append(Event("answer"))
        elif paths.get(descriptor, "").startswith(str(folder)):
            events += _event(name, paths[descriptor], arguments, b"".join(strings))
        if name == "close":
            paths.pop(descriptor, None)
    return events


def _event(name: str, path: str, arguments: str, data: bytes) -> list[Event]:
    numbers = re.sub(r"\[.*\]", "", arguments, flags=re.DOTALL).split(",")
    if name in ("fdatasync", "fsync"):
        return [Event("sync", path, with_times=name == "fsync")]
    if name == "ftruncate":
        return [Event("truncate", path, int(numbers[1]))]
    if name == "fallocate" and "FALLOC_FL_PUNCH_HOLE" in numbers[1]:
        return [Event("punch", path, int(numbers[2]), length=int(numbers[3]))]
    if name in ("pwritev", "pwritev2", "pwrite64"):
        return [Event("write", path, int(numbers[3]), data)]
    return []


def _calls(text: str) -> list[tuple[str, str, int]]:
    """Whole calls; one that was interrupted by another thread's is put together again."""
    unfinished: dict[str, str] = {}
    calls = []
    for line in text.splitlines():
        pid = line.split(" ", 1)[0]
        if line.endswith("<unfinished ...>"):
            unfinished[pid] = line.removesuffix("<unfinished ...>").rstrip()
            continue
        resumed = re.match(r"^\d+ +<\.\.\. \w+ resumed>(.*)$", line, re.DOTALL)
        whole = unfinished.pop(pid) + resumed.group(1) if resumed else line
        if match := LINE.match(whole):
            calls.append((match.group(2), match.group(3), int(match.group(4))))
    return calls
