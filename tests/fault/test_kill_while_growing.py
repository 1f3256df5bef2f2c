"""A disk that grows while its process dies has the old size or the new, and all its data.

So has one whose headers say two sizes, as a power cut between their syncs leaves them.
"""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from image_process import DiedError, ImageProcess, make_pair
from oracle.reader import read_upper

from tcmu_overlaybd.config.image_config import ImageConfig, Upper
from tcmu_overlaybd.formats import lsmt
from tcmu_overlaybd.image.info import image_info
from tcmu_overlaybd.image.open import open_image
from tcmu_overlaybd.image.upper_pair import UpperPair, read_upper_pair, store_virtual_size

SIZE, LARGER = 1 << 20, 3 << 20
DATA = b"here" * 1024


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_pair(tmp_path, SIZE)
    return tmp_path


def config_of(folder: Path) -> ImageConfig:
    return ImageConfig(upper=Upper(data=str(folder / "data"), index=str(folder / "index")))


def pair_of(folder: Path) -> UpperPair:
    return read_upper_pair(folder / "data", folder / "index")


def check(folder: Path, size: int) -> None:
    """Tools and a writable opening agree on the size; after that one both headers do."""
    assert image_info(config_of(folder))["virtual_size"] == size
    with open_image(config_of(folder)) as tool:
        assert tool.image.size == size
    with open_image(config_of(folder), writable=True) as image:
        assert image.image.size == size
        assert image.image.read(len(DATA), 0, 1000) == DATA
    assert pair_of(folder).virtual_size == pair_of(folder).data_virtual_size == size
    assert read_upper(folder / "data", folder / "index").size == size


@pytest.mark.parametrize(("step", "size"), [("data_header", SIZE), ("index_header", LARGER)])
def test_killed_while_growing_has_the_old_size_or_the_new(folder, step, size):
    with pytest.raises(DiedError) as died, ImageProcess(folder, kill_at=f"upper.grow.{step}") as process:
        process.write(0, DATA)
        process.grow(LARGER)
    assert died.value.exit_code == -signal.SIGKILL
    check(folder, size)


@pytest.mark.parametrize("step", ["data_header", "index_header"])
def test_a_sparse_upper_killed_while_growing_is_as_long_as_its_header_says(tmp_path, step):
    make_pair(tmp_path, SIZE, sparse=True)
    with pytest.raises(DiedError), ImageProcess(tmp_path, kill_at=f"upper.grow.{step}") as process:
        process.write(0, DATA)
        process.grow(LARGER)
    check(tmp_path, LARGER)


@pytest.mark.parametrize("sparse", [False, True], ids=["append", "sparse"])
def test_killed_after_growing_keeps_what_was_written_past_the_old_end(tmp_path, sparse):
    folder = tmp_path
    make_pair(folder, SIZE, sparse=sparse)
    with ImageProcess(folder) as process:
        process.write(0, DATA)
        process.grow(LARGER)
        process.write(LARGER - len(DATA), DATA)
        process.kill()
    with open_image(config_of(folder), writable=True) as image:
        assert image.image.read(len(DATA), LARGER - len(DATA), 1000) == DATA
    check(folder, LARGER)


@pytest.mark.parametrize(("data_size", "index_size"), [(SIZE, LARGER), (LARGER, SIZE)])
def test_headers_of_two_sizes_mean_that_of_the_index_file(folder, data_size, index_size):
    with ImageProcess(folder) as process:
        process.write(0, DATA)
        process.close()
    for path, size in ((folder / "data", data_size), (folder / "index", index_size)):
        block = lsmt.parse(path.read_bytes()[: lsmt.BLOCK_SIZE], str(path))
        with path.open("r+b") as file:
            file.write(lsmt.build(lsmt.with_virtual_size(block, size)))
    check(folder, index_size)


def test_stored_size_is_the_one_that_is_read(folder):
    store_virtual_size(pair_of(folder), LARGER)
    assert pair_of(folder).virtual_size == pair_of(folder).data_virtual_size == LARGER
