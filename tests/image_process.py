"""An image in a process of its own, so that a test can kill it.

    process = ImageProcess(folder, kill_at="upper.record_written")
    process.write(0, b"...")        # raises DiedError when the process is gone
    process.kill()                  # SIGKILL, as a daemon dies

The process reads calls from stdin and answers on stdout (pickled, each with its length
before it), so what has been answered has been acknowledged.  It opens ``data`` and
``index`` in folder over the layers ``lower-*``, lowest first.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, Self

SECTOR = 512
TIMEOUT_MS = 30_000


class DiedError(Exception):
    """The process ended before it had answered."""

    def __init__(self, call: str, exit_code: int | None) -> None:
        super().__init__(f"the process ended at {call} with exit code {exit_code}")
        self.exit_code = exit_code


class ImageProcess:
    """The parent's side.  Errors of the image are raised here as they were there."""

    def __init__(
        self,
        folder: Path,
        *,
        kill_at: str = "",
        fault: tuple[Any, ...] | None = None,
        wrapper: Sequence[str | Path] = (),
        **options: Any,
    ) -> None:
        """options go to native Upper.open; fault to native.testing.file_fault before the opening.

        wrapper is a program, with its arguments, that runs the process (strace).
        """
        self.folder = folder
        self._process = subprocess.Popen(
            [*wrapper, sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "TCMU_OVERLAYBD_TEST_BUILD": "1", "OBD_TEST_KILL_AT": kill_at},
        )
        try:
            self._call("open", str(folder), fault, options)
        except BaseException:
            self.kill()
            raise

    def write(self, offset: int, data: bytes) -> None:
        self._call("write", data, offset, TIMEOUT_MS)

    def discard(self, offset: int, length: int) -> None:
        self._call("discard", length, offset, TIMEOUT_MS)

    def read(self, offset: int, length: int) -> bytes:
        return bytes(self._call("read", length, offset, TIMEOUT_MS))

    def grow(self, size: int) -> None:
        self._call("grow", size)

    def flush(self) -> None:
        self._call("flush")

    def stats(self) -> Any:
        return self._call("upper_stats")

    def fault(self, suffix: str, operation: str, n: int, error: int, sticky: bool = False) -> None:
        self._call("fault", suffix, operation, n, error, sticky)

    def race(self, seed: int, nr_threads: int, nr_writes: int) -> None:
        """Overlapping writes and discards from several threads at once."""
        self._call("race", seed, nr_threads, nr_writes)

    def close(self) -> None:
        """Closes the image, and the process ends; raises what closing said."""
        try:
            self._call("close")
        finally:
            self._end()

    def kill(self) -> None:
        self._process.kill()
        self._end()

    def signal_kill(self) -> None:
        """As kill, from another thread than the one that waits for an answer."""
        self._process.kill()

    @property
    def exit_code(self) -> int | None:
        return self._process.poll()

    @property
    def pid(self) -> int:
        return self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.exit_code is None:
            self.kill()

    def _call(self, name: str, *arguments: Any) -> Any:
        try:
            send(self._process.stdin, (name, arguments))
            answer = receive(self._process.stdout)
        except BrokenPipeError:
            answer = None
        if answer is None:
            self._end()
            raise DiedError(name, self.exit_code)
        is_error, value = answer
        if is_error:
            raise value
        return value

    def _end(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        self._process.wait(timeout=30)


def send(pipe: BinaryIO, value: Any) -> None:
    data = pickle.dumps(value)
    pipe.write(struct.pack("<I", len(data)) + data)
    pipe.flush()


def receive(pipe: BinaryIO) -> Any:
    """The next value; None at the end."""
    head = pipe.read(4)
    if len(head) < 4:
        return None
    return pickle.loads(pipe.read(struct.unpack("<I", head)[0]))


def make_pair(folder: Path, size: int, *, sparse: bool = False) -> None:
    """A fresh upper of size bytes in folder."""
    from tcmu_overlaybd.image.create import create_layer

    create_layer(folder / "data", folder / "index", size, sparse=sparse)


# ---- the process ----


def open_stack(folder: Path, options: dict[str, Any]) -> Any:
    from tcmu_overlaybd.image.layer_place import FilePlace
    from tcmu_overlaybd.image.layer_table import LAYERS
    from tcmu_overlaybd.image.upper_pair import read_upper_pair
    from tcmu_overlaybd.native.image import Image, Upper

    pair = read_upper_pair(folder / "data", folder / "index")
    lowers = [LAYERS.acquire(FilePlace(path)) for path in sorted(folder.glob("lower-*"))]
    settings = {"holder": "a test", "read_only": False, "journal_slots": 64, **options}
    upper = Upper.open(
        str(pair.data),
        str(pair.index),
        uuid=pair.uuid,
        virtual_size=pair.virtual_size,
        tag=len(lowers),
        sparse=pair.kind == "sparse",
        **settings,
    )
    try:
        layers = [lower.layer for lower in lowers]
        return Image.open(layers, upper, virtual_size=pair.virtual_size, name="test")
    finally:
        for lower in lowers:
            lower.close()  # the image has its own


def run_race(image: Any, seed: int, nr_threads: int, nr_writes: int) -> None:
    import random
    import threading

    def work(number: int) -> None:
        rng = random.Random(seed * 100 + number)
        for _ in range(nr_writes):
            first, length = rng.randrange(64), rng.randrange(1, 32)
            if rng.random() < 0.2:
                image.discard(length * SECTOR, first * SECTOR, TIMEOUT_MS)
            else:
                image.write(bytes([rng.randrange(1, 256)]) * length * SECTOR, first * SECTOR, TIMEOUT_MS)
            if rng.random() < 0.05:
                image.flush()

    threads = [threading.Thread(target=work, args=[number]) for number in range(nr_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class Server:
    """The child's side: one image, and the calls on it."""

    image: Any = None

    def open(self, folder: str, fault: tuple[Any, ...] | None, options: dict[str, Any]) -> None:
        if fault is not None:
            self.fault(*fault)
        self.image = open_stack(Path(folder), options)

    def fault(self, suffix: str, operation: str, n: int, error: int, sticky: bool = False) -> None:
        from tcmu_overlaybd.native.testing import file_fault

        file_fault(suffix, operation, n, error, sticky=sticky)

    def race(self, *arguments: int) -> None:
        run_race(self.image, *arguments)

    def answer(self, name: str, arguments: tuple[Any, ...]) -> tuple[bool, Any]:
        try:
            method = getattr(self, name, None) or getattr(self.image, name)
            return False, method(*arguments)
        except Exception as error:
            return True, error


def serve() -> None:
    server = Server()
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what is printed by mistake must not end up among the answers
    while (call := receive(sys.stdin.buffer)) is not None:
        name, arguments = call
        send(output, server.answer(name, arguments))
        if name == "close":
            return


if __name__ == "__main__":
    serve()
