"""A folder of ``--upper`` that is copied or moved, configuration and all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from image_process import SECTOR, ImageProcess

from tcmu_overlaybd.errors import JournalError
from tcmu_overlaybd.image.open import open_image

SIZE = 1 << 20
TIMEOUT_MS = 5000


def write(folder: Path, data: bytes, **options: object) -> None:
    """At the start of the disk in folder, which is made if absent."""
    source = folder / "config.v1.json" if folder.exists() else None
    with open_image(source, writable=True, upper_dir=folder, **options) as opened:
        opened.image.write(data * 512, 0, TIMEOUT_MS)


def read(folder: Path) -> bytes:
    with open_image(folder / "config.v1.json") as opened:
        return opened.image.read(512, 0, TIMEOUT_MS)[:1]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "original", b"1", size=SIZE)
    return tmp_path / "original"


def test_a_copy_is_written_and_its_original_stays(folder, tmp_path):
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    write(copy, b"2")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert (read(folder), read(copy)) == (b"1", b"2")


def test_a_moved_folder_opens_where_it_is(folder, tmp_path):
    moved = folder.rename(tmp_path / "elsewhere")
    write(moved, b"3")
    assert read(moved) == b"3"


def test_a_layer_kept_in_the_folder_moves_with_it(folder, tmp_path, program):
    done = program("image", "commit", folder / "config.v1.json", "-o", tmp_path / "base")
    assert done.returncode == 0, done.stderr
    stack = tmp_path / "stack"
    stack.mkdir()
    (tmp_path / "base").rename(stack / "base")
    with open_image(stack / "base", writable=True, upper_dir=stack):
        pass
    moved = stack.rename(tmp_path / "moved")
    assert read(moved) == b"1"


def test_absolute_paths_of_earlier_versions_are_read(folder):
    path = folder / "config.v1.json"
    config = json.loads(path.read_text())
    config["upper"] = {"data": str(folder / "data"), "index": str(folder / "index")}
    path.write_text(json.dumps(config))
    write(folder, b"4")
    assert read(folder) == b"4"


def test_a_copy_with_a_journal_is_still_refused(folder, tmp_path):
    """It holds a write that was acknowledged, and belongs to the original's data."""
    with ImageProcess(folder) as process:
        process.write(SECTOR, b"6" * SECTOR)
        process.kill()
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    for writable in (False, True):
        with pytest.raises(JournalError, match="a copy"):
            open_image(copy / "config.v1.json", writable=writable)
    write(copy, b"5", drop_unflushed=True)
    assert (read(folder), read(copy)) == (b"1", b"5")
    with open_image(folder / "config.v1.json") as opened:
        assert opened.image.read(SECTOR, SECTOR, TIMEOUT_MS) == b"6" * SECTOR
