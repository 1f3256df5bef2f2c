"""The demo itself, over NBD and on a few files: it shows what it says, and leaves nothing running."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
from small_demo import command, make_work, processes_about

from demo.__main__ import inside
from demo.story import TerminalStory


@pytest.fixture
def work(tmp_path: Path) -> Path:
    return make_work(tmp_path)


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
    done = subprocess.run(command(work, "nbd"), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "differs: usr/file-199" in done.stderr
    assert processes_about(work) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("when", ["docker-registry on", "is a disk"])
def test_a_signal_ends_all_that_it_started(work, number, when):
    with subprocess.Popen(
        command(work, "nbd"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as demo:
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
