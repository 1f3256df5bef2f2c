"""A sparse upper: written in place, with a side index that knows what its holes cannot tell.

The reference reads the same data file and knows nothing of the side index; the oracle reads
as it does.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
from oracle.reader import read_sparse

from tcmu_overlaybd.config.image_config import ImageConfig, Lower, Upper
from tcmu_overlaybd.errors import CorruptError, NoSpaceError, UsageError
from tcmu_overlaybd.image.commit import commit_image, commit_open_image
from tcmu_overlaybd.image.create import create_layer
from tcmu_overlaybd.image.layer_writer import LayerOptions
from tcmu_overlaybd.image.open import OpenImage, open_image
from tcmu_overlaybd.native.process import next_log_record
from tcmu_overlaybd.native.testing import file_fault

SIZE = 1 << 20
SECTOR = 512
TIMEOUT = 10_000
ENTRY = 16
HEADER = 4096


@pytest.fixture
def lower(tmp_path: Path) -> Path:
    """A layer that is "L" all over."""
    create_layer(tmp_path / "ld", tmp_path / "li", SIZE)
    upper = ImageConfig(upper=Upper(data=str(tmp_path / "ld"), index=str(tmp_path / "li")))
    with open_image(upper, writable=True) as opened:
        opened.image.write(b"L" * SIZE, 0, TIMEOUT)
    commit_image(upper, tmp_path / "lower", LayerOptions())
    return tmp_path / "lower"


@pytest.fixture
def config(tmp_path: Path, lower: Path) -> ImageConfig:
    """A new sparse upper on it."""
    create_layer(tmp_path / "data", tmp_path / "index", SIZE, sparse=True)
    upper = Upper(data=str(tmp_path / "data"), index=str(tmp_path / "index"))
    return ImageConfig(lowers=(Lower(file=str(lower)),), upper=upper)


@pytest.fixture
def log():
    """What the data plane has said since the last call."""
    said_so_far()
    return said_so_far


def said_so_far() -> str:
    texts = []
    with contextlib.suppress(EOFError):  # another test has closed the log; what is in it still comes
        while (record := next_log_record(0)) is not None:
            texts.append(record.text)
    return "\n".join(texts)


def write(config: ImageConfig, *changes: tuple[int, bytes | int]) -> None:
    """Opens, makes each change (bytes are written, a number is the length of a discard), closes."""
    with open_image(config, writable=True) as opened:
        for offset, change in changes:
            if isinstance(change, int):
                opened.image.discard(change, offset, TIMEOUT)
            else:
                opened.image.write(change, offset, TIMEOUT)


def content(config: ImageConfig) -> bytes:
    with open_image(config) as opened:
        return read_all(opened)


def read_all(opened: OpenImage) -> bytes:
    return opened.image.read(opened.image.size, 0, TIMEOUT)


def derive(tmp_path: Path) -> None:
    """What is left is what the reference has."""
    (tmp_path / "index.sectors").unlink()


# ---- what the reference forgets ---------------------------------------------------


def test_discards_and_small_writes_over_a_lower_are_there_after_reopening(config, tmp_path):
    write(config, (8192, 4096), (SECTOR, b"s" * SECTOR), (65536, b"w" * 8192), (69632, 1024))
    expected = bytearray(b"L" * SIZE)
    expected[8192:12288] = bytes(4096)
    expected[SECTOR : 2 * SECTOR] = b"s" * SECTOR
    expected[65536:73728] = b"w" * 8192
    expected[69632:70656] = bytes(1024)
    assert content(config) == expected
    write(config)  # a writable opening and closing changes nothing
    assert content(config) == expected
    derive(tmp_path)
    assert content(config) != expected


def test_data_lies_where_the_reference_looks_for_it_and_its_index_stays_empty(config, tmp_path):
    write(config, (4096, b"a" * 8192), (65536, b"b" * 4096), (65536, 4096), (1 << 19, b"c" * 65536))
    assert (tmp_path / "index").stat().st_size == 0
    assert (tmp_path / "data").stat().st_size == HEADER + SIZE
    layer = read_sparse(tmp_path / "data")
    assert {(s.offset, s.length) for s in layer.segments} == {(8, 16), (1024, 128)}
    assert (tmp_path / "data").read_bytes()[HEADER + 4096 :][:8192] == b"a" * 8192


def test_a_discard_gives_space_back(config, tmp_path):
    write(config, (0, b"a" * SIZE))
    before = (tmp_path / "data").stat().st_blocks
    write(config, (0, SIZE))
    assert (tmp_path / "data").stat().st_blocks <= before - SIZE // SECTOR


def test_commit_is_that_of_the_reference_where_that_forgets_nothing(config, tmp_path):
    """Whatever the order of the writes: the map is the same as the holes tell."""
    write(config, (8192, b"2" * 4096), (4096, b"1" * 4096), (12288, b"3" * 65536), (16384, b"4" * 4096))
    write(config, (1 << 19, b"5" * (1 << 18)))
    commit_image(config, tmp_path / "with", LayerOptions())
    derive(tmp_path)
    commit_image(config, tmp_path / "without", LayerOptions())
    assert (tmp_path / "with").read_bytes() == (tmp_path / "without").read_bytes()


def test_commit_keeps_discards_and_small_writes(config, tmp_path):
    write(config, (8192, 4096), (SECTOR, b"s" * SECTOR))
    commit_image(config, tmp_path / "layer", LayerOptions())
    stacked = ImageConfig(lowers=(*config.lowers, Lower(file=str(tmp_path / "layer"))))
    assert content(stacked) == content(config)


def test_commit_while_it_is_written_is_refused(config, tmp_path):
    with (
        open_image(config, writable=True) as opened,
        pytest.raises(UsageError, match="cannot be committed while it is written"),
    ):
        commit_open_image(opened, tmp_path / "layer", LayerOptions())


# ---- the side index and whoever does not know it ----------------------------------


def write_as_the_reference(tmp_path: Path, offset: int, data: bytes) -> None:
    with (tmp_path / "data").open("r+b") as file:
        file.seek(HEADER + offset)
        file.write(data)


@pytest.mark.parametrize("writable", [False, True])
def test_what_another_program_wrote_in_between_is_seen_and_said(config, tmp_path, log, writable):
    write(config, (0, b"a" * 4096))
    write_as_the_reference(tmp_path, 65536, b"r" * 4096)
    with open_image(config, writable=writable) as opened:
        found = read_all(opened)
    assert found[:4096] == b"a" * 4096
    assert found[65536:69632] == b"r" * 4096
    assert "is outdated: another program has written to the data file" in log()


def test_an_upper_that_the_reference_made_and_wrote_is_taken_over(private_vectors, tmp_path, log):
    source = private_vectors / "sparse.config.v1.json"
    before = content(source)
    write(source, (0, b"n" * SECTOR))
    assert content(source) == b"n" * SECTOR + before[SECTOR:]
    assert "unused.index.sectors does not exist" in log()


def test_a_new_upper_says_nothing(config, log):
    write(config, (0, b"a" * SECTOR))
    content(config)
    assert log() == ""


DAMAGES = {
    "is cut short": lambda old: old[:100],
    "is damaged": lambda old: old[:20] + b"?" + old[21:],
}


@pytest.mark.parametrize("sentence", DAMAGES)
def test_a_damaged_side_index_is_replaced_and_said(config, tmp_path, log, sentence):
    write(config, (4096, b"a" * 4096))
    sectors = tmp_path / "index.sectors"
    sectors.write_bytes(DAMAGES[sentence](sectors.read_bytes()))
    damaged = sectors.read_bytes()
    expected = b"L" * 4096 + b"a" * 4096 + b"L" * (SIZE - 8192)
    assert content(config) == expected
    assert sectors.read_bytes() == damaged  # a tool changes nothing
    write(config)
    assert content(config) == expected
    assert sentence in log()
    assert sectors.read_bytes() != damaged


def test_the_side_index_of_another_upper_is_not_believed(config, tmp_path, log):
    write(config, (4096, b"a" * 4096))
    mine = (tmp_path / "index.sectors").read_bytes()
    for name in ("data", "index", "index.sectors"):
        (tmp_path / name).unlink()
    create_layer(tmp_path / "data", tmp_path / "index", SIZE, sparse=True)
    (tmp_path / "index.sectors").write_bytes(mine)
    assert content(config) == b"L" * SIZE
    assert "belongs to another upper" in log()


def test_an_entry_that_puts_a_sector_elsewhere_is_corrupt(config, tmp_path):
    write(config, (4096, b"a" * 4096))
    with (tmp_path / "index.sectors").open("r+b") as file:
        file.seek(HEADER + 8)
        file.write((9).to_bytes(8, "little"))
    with pytest.raises(CorruptError, match="sector 8 of the disk cannot lie at sector 9"):
        content(config)


def test_a_faithful_copy_is_as_good_and_a_careless_one_is_not_believed(config, tmp_path, log):
    write(config, (4096, 4096))
    times = (tmp_path / "data").stat()
    (tmp_path / "copy").write_bytes((tmp_path / "data").read_bytes())
    (tmp_path / "copy").rename(tmp_path / "data")
    os.utime(tmp_path / "data", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert content(config)[4096:8192] == bytes(4096)
    assert log() == ""
    os.utime(tmp_path / "data")
    content(config)
    assert "is outdated" in log()


# ---- how long it gets -------------------------------------------------------------


def test_rewriting_what_is_data_already_adds_nothing_to_the_side_index(config, tmp_path):
    write(config, (0, b"a" * 65536))
    before = (tmp_path / "index.sectors").stat().st_size
    write(config, *[(offset, b"b" * 4096) for offset in range(0, 65536, 4096)])
    assert (tmp_path / "index.sectors").stat().st_size == before
    assert content(config)[:65536] == b"b" * 65536


def test_an_index_that_has_grown_long_is_written_anew_when_closed(config, tmp_path):
    changes = [(0, b"a" * 4096), (0, 4096)] * 2500
    write(config, *changes, (4096, b"z" * SECTOR))
    assert (tmp_path / "index.sectors").stat().st_size == HEADER + 2 * ENTRY
    assert content(config)[: 4096 + SECTOR] == bytes(4096) + b"z" * SECTOR


# ---- made, sized, full ------------------------------------------------------------


def test_an_upper_made_with_size_0_becomes_as_large_as_its_lowers(tmp_path, lower):
    create_layer(tmp_path / "data", tmp_path / "index", 0, sparse=True)
    upper = Upper(data=str(tmp_path / "data"), index=str(tmp_path / "index"))
    config = ImageConfig(lowers=(Lower(file=str(lower)),), upper=upper)
    assert content(config) == b"L" * SIZE
    write(config, (SIZE - SECTOR, b"e" * SECTOR))
    assert content(config) == b"L" * (SIZE - SECTOR) + b"e" * SECTOR
    assert (tmp_path / "data").stat().st_size == HEADER + SIZE


def test_an_upper_folder_is_made_sparse_when_asked_and_found_again(tmp_path, lower):
    with open_image([lower], writable=True, upper_dir=tmp_path / "up", sparse=True) as opened:
        assert opened.upper.kind == "sparse"
        opened.image.discard(SIZE, 0, TIMEOUT)
    with open_image([lower], writable=True, upper_dir=tmp_path / "up") as opened:
        assert opened.upper.kind == "sparse"
        assert read_all(opened) == bytes(SIZE)
    with open_image([lower], writable=True, upper_dir=tmp_path / "undone", sparse=True) as opened:
        opened.undo()
    assert not (tmp_path / "undone").exists()


def test_sparse_is_not_asked_of_an_upper_that_is_not(tmp_path, lower):
    open_image([lower], writable=True, upper_dir=tmp_path / "up").close()
    with pytest.raises(UsageError, match="not sparse"):
        open_image([lower], writable=True, upper_dir=tmp_path / "up", sparse=True)
    with pytest.raises(UsageError, match="none is to be made"):
        open_image([lower], sparse=True)


def test_bytes_of_the_disk_that_look_like_a_trailer_do_not_seal_it(config, tmp_path):
    """The reference's seal lies behind the disk, not in its last bytes."""
    header = bytearray((tmp_path / "data").read_bytes()[:HEADER])
    header[28] = 0x16  # flags of a trailer
    header[32:48] = (SIZE).to_bytes(8, "little") + (0).to_bytes(8, "little")
    write(config, (SIZE - HEADER, bytes(header)))
    write(config, (0, b"a" * SECTOR))
    assert content(config)[SIZE - HEADER :] == header


def test_a_full_disk_refuses_that_write_only(config):
    with open_image(config, writable=True) as opened:
        opened.image.write(b"a" * 4096, 0, TIMEOUT)
        file_fault("/data", "write", 1, 28)
        with pytest.raises(NoSpaceError):
            opened.image.write(b"b" * 4096, 4096, TIMEOUT)
        opened.image.write(b"c" * 4096, 8192, TIMEOUT)
        opened.image.flush()
    assert content(config)[:12288] == b"a" * 4096 + b"L" * 4096 + b"c" * 4096
