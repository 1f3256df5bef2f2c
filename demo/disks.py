"""How the demo reaches the files in a stack of layers: a mounted disk, or NBD alone.

Both give ``opened(layers, upper)``: a folder with the image's files, writable
when there is an upper folder, and everything is written back and given back when
the block ends.  All work is done by the command line, as a user would.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from demo.files import digest, regular_files

PROGRAM = (sys.executable, "-m", "tcmu_overlaybd")


class CommandError(RuntimeError):
    """A command of the demo failed; the message has its output."""


def run(*arguments: object, timeout: float = 300) -> str:
    """Runs a command and returns its stdout; CommandError when it fails."""
    words = [str(a) for a in arguments]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=timeout)
    if done.returncode != 0:
        raise CommandError(f"{' '.join(words)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def overlaybd(*arguments: object, timeout: float = 300) -> str:
    return run(*PROGRAM, *arguments, timeout=timeout)


class KernelDisks:
    """Disks of this kernel: a daemon of our own unless one answers already."""

    def __init__(self, work: Path) -> None:
        self._work = work
        self._daemon: subprocess.Popen[bytes] | None = None
        self.attach_seconds: list[float] = []

    def __enter__(self) -> Self:
        if subprocess.run([*PROGRAM, "list"], capture_output=True, check=False).returncode != 0:
            log = (self._work / "serve.log").open("wb")
            self._daemon = subprocess.Popen([*PROGRAM, "serve"], stdout=log, stderr=log)
            self._wait_until_ready()
        return self

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + 30
        while subprocess.run([*PROGRAM, "list"], capture_output=True, check=False).returncode != 0:
            if time.monotonic() > deadline or (self._daemon and self._daemon.poll() is not None):
                raise CommandError(
                    "the daemon does not start:\n" + (self._work / "serve.log").read_text()[-2000:]
                )
            time.sleep(0.05)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if self._daemon:
            self._daemon.terminate()
            self._daemon.wait(30)

    @contextlib.contextmanager
    def opened(self, layers: Sequence[Path], upper: Path | None) -> Iterator[Path]:
        where = Path(tempfile.mkdtemp(prefix="obd-demo-", dir="/run"))
        options = ["--writable", "--upper", upper] if upper else []
        begin = time.monotonic()
        overlaybd("attach", *layers, "--name", "demo", "--mount", where, *options)
        self.attach_seconds.append(time.monotonic() - begin)
        try:
            yield where
        finally:
            run("umount", where)
            overlaybd("detach", "demo")
            where.rmdir()


class NbdDisks:
    """No kernel: the image is copied out and back over NBD, its files with debugfs."""

    def __init__(self, work: Path) -> None:
        self._work = work

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        pass

    @contextlib.contextmanager
    def opened(self, layers: Sequence[Path], upper: Path | None) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(dir=self._work) as scratch:
            raw, tree = Path(scratch, "disk.raw"), Path(scratch, "tree")
            tree.mkdir()
            overlaybd("nbd", *layers, "--run", f'nbdcopy "$uri" {raw}')
            run("debugfs", "-R", f"rdump / {tree}", raw)
            before = {path: digest(tree / path) for path in regular_files(tree)}
            yield tree
            if upper:
                write_tree_back(raw, tree, before)
                copy = f'/usr/bin/python3 {Path(__file__).with_name("copy_changes.py")} "$uri" {raw}'
                overlaybd("nbd", *layers, "--writable", "--upper", upper, "--run", copy)


def write_tree_back(raw: Path, tree: Path, before: dict[Path, str]) -> None:
    """Brings the file system in raw to what tree holds, by a debugfs script."""
    now = {path: digest(tree / path) for path in regular_files(tree)}
    script = [f"rm /{path}" for path in sorted(before) if now.get(path) != before[path]]
    made: set[Path] = set()
    for path in sorted(now):
        if now[path] == before.get(path):
            continue
        for folder in [*path.parents][-2::-1]:
            if folder not in made and not any(folder in other.parents for other in before):
                script.append(f"mkdir /{folder}")
                made.add(folder)
        script.append(f"write {tree / path} /{path}")
    commands = raw.with_suffix(".debugfs")
    commands.write_text("\n".join(script) + "\n")
    run("debugfs", "-w", "-f", commands, raw)


def describe(layer: Path) -> str:
    """One line of what ``layer info`` knows."""
    facts = json.loads(overlaybd("layer", "info", layer, "--json"))
    return f"{layer.name}: {layer.stat().st_size / (1 << 20):.1f} MiB, {facts['segments']} segments"
