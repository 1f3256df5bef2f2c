"""C works on while Python is busy: no thread of the data plane takes the interpreter lock."""

from __future__ import annotations

import random
import threading
from array import array
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tcmu_overlaybd.image.open import open_image
from tcmu_overlaybd.native import mem
from tcmu_overlaybd.native.core import Core, Device
from tcmu_overlaybd.native.testing import hold_gil

SIZE = 16 << 20
LOOP_SECONDS = 0.5
HELD_SECONDS = 2.0
MOST_SLOWDOWN = 2.0  # a loop that needs the lock takes at least HELD_SECONDS: four times as long
ATTEMPTS = 2  # of each, the best counts: the machine has other work too


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    with ExitStack() as stack:
        opened = stack.enter_context(open_image(None, writable=True, upper_dir=tmp_path / "upper", size=SIZE))
        core = stack.enter_context(Core.open())
        device = stack.enter_context(Device.open(core, opened.image, name="gil"))
        for offset in range(0, SIZE, 1 << 20):
            mem.write(device, random.randbytes(1 << 20), offset)
        yield device


def offsets_for(device: Device, seconds: float) -> array[int]:
    """So many reads that they take about that long."""
    few = array("Q", (random.randrange(SIZE // 4096) * 4096 for _ in range(10_000)))
    nr_loops = max(1, round(seconds * 1e9 / mem.read_loop(device, few, 4096, 1)))
    return few * nr_loops


def read_while_the_lock_is_held(device: Device, offsets: array[int]) -> int:
    """Nanoseconds by C's clock: the way back into Python does not count."""
    elapsed: list[int] = []
    begun = threading.Event()

    def read() -> None:
        begun.set()
        elapsed.append(mem.read_loop(device, offsets, 4096, 1))

    thread = threading.Thread(target=read)
    thread.start()
    begun.wait()
    threading.Event().wait(0.05)  # into C
    hold_gil(int(HELD_SECONDS * 1e6))
    thread.join()
    return elapsed[0]


def test_warm_reads_go_on_while_a_python_thread_holds_the_lock(device: Device) -> None:
    offsets = offsets_for(device, LOOP_SECONDS)
    free = min(mem.read_loop(device, offsets, 4096, 1) for _ in range(ATTEMPTS))
    held = min(read_while_the_lock_is_held(device, offsets) for _ in range(ATTEMPTS))
    assert held < free * MOST_SLOWDOWN
