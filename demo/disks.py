"""How the demo reaches the files of an image: a mounted disk, or NBD alone.

Both give ``opened(source, upper)``, where the source is layer files or the name of an
image in a registry.  What they give can be read when the block begins, is writable
when there is an upper folder, and is written back and given back when the block ends.
All work is done by the command line, as a user would.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from demo.files import digest, regular_files
from demo.processes import PROGRAM, CommandError, overlaybd, run, running, tail

SYSTEM_PYTHON = "/usr/bin/python3"  # has Debian's libnbd binding
DEVICE = "demo"
DAEMON_READY_SECONDS = 30.0


class OpenDisk(Protocol):
    """The files of an image that is open."""

    def read(self, path: Path) -> bytes:
        """One file, and no more of the disk than leads to it."""

    def tree(self) -> Path:
        """All of them, as a folder that can be changed if the disk is writable."""

    def told_by_status(self) -> dict[str, int] | None:
        """``requests`` and ``bytes_fetched`` as our own counters have them; None without a daemon."""


class Disks(Protocol):
    """Where images are opened."""

    def opened(
        self, source: Sequence[object], upper: Path | None
    ) -> contextlib.AbstractContextManager[OpenDisk]: ...


class MountedDisk:
    """A disk of this kernel, mounted when something of it is wanted first."""

    def __init__(self, disk: str, point: Path, *, is_writable: bool) -> None:
        self._disk = disk
        self._point = point
        self._options = [] if is_writable else ["-o", "ro"]
        self._is_mounted = False

    def tree(self) -> Path:
        if not self._is_mounted:
            run("mount", *self._options, self._disk, self._point)
            self._is_mounted = True
        return self._point

    def read(self, path: Path) -> bytes:
        return (self.tree() / path).read_bytes()

    def told_by_status(self) -> dict[str, int]:
        facts = json.loads(overlaybd("status", DEVICE, "--json"))
        return {key: facts[key] for key in ("requests", "bytes_fetched")}

    def close(self) -> None:
        if self._is_mounted:
            run("umount", self._point)


class KernelDisks:
    """Disks of this kernel, through a daemon that runs already."""

    @contextlib.contextmanager
    def opened(self, source: Sequence[object], upper: Path | None) -> Iterator[OpenDisk]:
        options = ["--writable", "--upper", upper] if upper else []
        disk = overlaybd("attach", *source, "--name", DEVICE, *options).strip()
        point = Path(tempfile.mkdtemp(prefix="obd-demo-", dir="/run"))
        mounted = MountedDisk(disk, point, is_writable=upper is not None)
        try:
            yield mounted
        finally:
            mounted.close()
            point.rmdir()
            overlaybd("detach", DEVICE)


@contextlib.contextmanager
def kernel_disks(work: Path) -> Iterator[KernelDisks]:
    """With a daemon of our own, for it has to know our password and to have an empty cache."""
    log = work / "serve.log"
    with log.open("wb") as output, running(*PROGRAM, "serve", output=output) as daemon:
        deadline = time.monotonic() + DAEMON_READY_SECONDS
        while subprocess.run([*PROGRAM, "list"], capture_output=True, check=False).returncode != 0:
            if time.monotonic() > deadline or daemon.poll() is not None:
                raise CommandError(f"the daemon does not start:\n{tail(log)}")
            time.sleep(0.05)
        yield KernelDisks()


class NbdDisk:
    """An image that an ``nbd`` process serves: its files are copied out, and back, with debugfs."""

    def __init__(self, uri: str, scratch: Path) -> None:
        self._uri = uri
        self._raw, self._tree = scratch / "disk.raw", scratch / "tree"
        self._before: dict[Path, str] | None = None

    def read(self, path: Path) -> bytes:
        program = Path(__file__).with_name("ext4_file.py")
        command = [SYSTEM_PYTHON, str(program), self._uri, str(path)]
        done = subprocess.run(command, capture_output=True, check=False, timeout=300)
        if done.returncode != 0:
            raise CommandError(f"cannot read {path} over NBD:\n{done.stderr.decode(errors='replace')}")
        return done.stdout

    def tree(self) -> Path:
        if self._before is None:
            run("nbdcopy", self._uri, self._raw)
            self._tree.mkdir()
            run("debugfs", "-R", f"rdump / {self._tree}", self._raw)
            self._before = {path: digest(self._tree / path) for path in regular_files(self._tree)}
        return self._tree

    def told_by_status(self) -> None:
        return None

    def write_back(self) -> None:
        if self._before is not None:
            write_tree_back(self._raw, self._tree, self._before)
            run(SYSTEM_PYTHON, Path(__file__).with_name("copy_changes.py"), self._uri, self._raw)


class NbdDisks:
    """No kernel, no daemon, no root."""

    def __init__(self, work: Path) -> None:
        self._work = work

    @contextlib.contextmanager
    def opened(self, source: Sequence[object], upper: Path | None) -> Iterator[OpenDisk]:
        options = ["--writable", "--upper", upper] if upper else []
        log = self._work / "nbd.log"
        with (
            tempfile.TemporaryDirectory(dir=self._work) as scratch,
            log.open("wb") as errors,
            running(*PROGRAM, "nbd", *source, *options, output=subprocess.PIPE, errors=errors) as server,
        ):
            uri = server.stdout.readline().strip() if server.stdout else ""
            if not uri:
                raise CommandError(f"nbd {' '.join(map(str, source))} serves nothing:\n{tail(log)}")
            disk = NbdDisk(uri, Path(scratch))
            yield disk
            if upper:
                disk.write_back()


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
