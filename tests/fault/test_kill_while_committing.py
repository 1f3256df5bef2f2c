"""A commit that dies at any step leaves the whole layer or none, and no other file."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from kill_points import COMMIT

from tcmu_overlaybd.image.commit import commit_image
from tcmu_overlaybd.image.layer_writer import LayerOptions
from tcmu_overlaybd.image.open import open_image


@pytest.fixture
def upper(tmp_path: Path) -> Path:
    folder = tmp_path / "upper"
    with open_image(None, writable=True, upper_dir=folder, size=1 << 20) as opened:
        opened.image.write(b"x" * 4096, 8192, 10_000)
    return folder / "config.v1.json"


@pytest.mark.parametrize("point", COMMIT)
def test_killed_at_a_step_a_commit_is_whole_or_not_there(program, tmp_path, upper, point):
    wanted = commit_image(upper, tmp_path / "wanted", LayerOptions()).path.read_bytes()
    output = tmp_path / "out" / "layer"
    output.parent.mkdir()
    died = program("image", "commit", upper, "-o", output, env={"OBD_TEST_KILL_AT": point})
    assert died.returncode == -signal.SIGKILL, died.stderr
    left = list(output.parent.iterdir())
    assert left == ([output] if point == "commit.linked" else [])
    assert all(path.read_bytes() == wanted for path in left)
    output.unlink(missing_ok=True)
    assert program("image", "commit", upper, "-o", output).returncode == 0
    assert output.read_bytes() == wanted
