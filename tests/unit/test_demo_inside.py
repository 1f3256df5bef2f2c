"""The demo itself, over NBD and on a few files: it shows what it says, and leaves nothing running."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from demo.__main__ import inside
from demo.processes import overlaybd, run
from demo.story import TerminalStory


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """What ``inside`` finds: source and base.tar."""
    usr = tmp_path / "source/usr"
    usr.mkdir(parents=True)
    dice = random.Random(4)
    for number in range(200):
        (usr / f"file-{number}").write_bytes(dice.randbytes(dice.randrange(1, 40000)))
    run("mke2fs", "-q", "-t", "ext4", "-d", tmp_path / "source", tmp_path / "base.raw", "64M")
    overlaybd(
        "image", "import", tmp_path / "base.raw", "-o", tmp_path / "base.tar", "--zfile", "lz4", "--tar"
    )
    return tmp_path


def test_the_name_is_opened_cold_then_with_one_layer_more(work):
    environment = dict(os.environ)
    story = TerminalStory()
    inside(work, "nbd", story)
    cold, warm = story.measured["openings"]
    assert (cold["layers"], warm["layers"]) == (2, 3)
    assert 0 < cold["before_comparison"]["blob_bytes"] < cold["in_all"]["blob_bytes"]
    assert cold["in_all"]["blob_bytes"] <= cold["image_bytes"]
    new = (work / "layer-2.tar").stat().st_size
    assert warm["in_all"]["blob_bytes"] <= new + (cold["image_bytes"] - cold["in_all"]["blob_bytes"])
    assert dict(os.environ) == environment
    assert processes_about(work) == []


def test_one_wrong_byte_fails_it(work):
    """The source is what differs here, from before the first push."""
    (work / "source/usr/file-199").write_bytes(b"another")
    done = subprocess.run(command(work), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "differs: usr/file-199" in done.stderr
    assert processes_about(work) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("when", ["docker-registry on", "is a disk"])
def test_a_signal_ends_all_that_it_started(work, number, when):
    with subprocess.Popen(command(work), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        assert demo.stderr is not None
        for line in demo.stdout:
            if when in line:
                demo.send_signal(number)
                break
        demo.stdout.read()
        assert "interrupted" in demo.stderr.read()
    assert demo.returncode == 130
    assert processes_about(work) == []


def command(work: Path) -> list[str]:
    return [sys.executable, "-m", "demo", "--inside", "nbd", "--work", str(work)]


def processes_about(folder: Path) -> list[str]:
    """Command lines of living processes that name the folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # ended meanwhile
        if str(folder) in words:
            found.append(words)
    return found
