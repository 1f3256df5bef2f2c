"""A host whose name look-up hangs slows down nobody but those who read from it."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.registry.images import random_blob

HERE = Path(__file__).parent
BLOB = random_blob(8 << 20, 12)

# Runs with getaddrinfo replaced.  Its reads of the host that hangs are under way, from
# more threads than a host has connections, when it reads from the one that does not.
PROGRAM = """
    import sys, threading, time
    from pathlib import Path
    from tests.registry.images import random_blob
    from tests.remote.cached_blob import Blobs
    from tcmu_overlaybd.errors import FailedError
    from tcmu_overlaybd.registry.transport import Transport

    url, folder, notes = sys.argv[1:]
    good, bad = random_blob(8 << 20, 12), random_blob(8 << 20, 13)
    ended = []

    def read_in_vain(source, number):
        try:
            source.read(100, number << 19, 40_000)
        except FailedError as error:
            ended.append(str(error))

    with Blobs(Path(folder), transport=Transport(proxy="", connect_timeout_s=3)) as blobs:
        hanging = blobs.open("http://hangs.test/blob", bad.data)
        waiting = [threading.Thread(target=read_in_vain, args=(hanging, i)) for i in range(12)]
        for thread in waiting:
            thread.start()
        while not Path(notes).exists():
            time.sleep(0.01)
        source = blobs.open(url, good.data)
        for offset in range(0, 8 << 20, 128 << 10):
            assert source.read(128 << 10, offset, 40_000) == good.data[offset : offset + (128 << 10)]
        assert not ended, ended
        print("read", flush=True)
        blobs.stop()
        for thread in waiting:
            thread.join()
    print("closed", len(ended), flush=True)
"""


@pytest.fixture
def preloaded(tmp_path: Path) -> Path:
    library = tmp_path / "hanging_getaddrinfo.so"
    source = HERE / "hanging_getaddrinfo.c"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    return library


def test_a_look_up_that_hangs_slows_no_other_read_and_no_close(server, tmp_path, preloaded):
    server.put("/blob", BLOB.data)
    notes = tmp_path / "lookups"
    environment = {**os.environ, "LD_PRELOAD": str(preloaded), "HANGING_LOOKUPS": str(notes)}
    program = [sys.executable, "-c", textwrap.dedent(PROGRAM)]
    done = subprocess.run(
        [*program, f"{server.url}/blob", str(tmp_path / "cache"), str(notes)],
        env=environment,
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
        timeout=55,  # shorter than the look-up
        check=False,
    )
    assert done.stdout == "read\nclosed 12\n", done.stderr
    assert notes.read_text().count("\n") >= 8, "the host's connections were all in use"
