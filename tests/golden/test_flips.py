"""One flipped bit in anything that has a checksum or a rule is refused or reported.

Every byte of each structure is damaged in turn, one bit of it; what a reader of the
whole does then is asked of ``verify_layer``, which opens the layer as readers do.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from golden.manifest import FOLDER

from tcmu_overlaybd.errors import CorruptError
from tcmu_overlaybd.image.layer_place import FilePlace
from tcmu_overlaybd.image.open import open_image
from tcmu_overlaybd.image.verify import verify_layer


def flips(data: bytes, begin: int, end: int) -> Iterator[tuple[int, bytes]]:
    """data with one bit of each byte in [begin, end) flipped; which bit changes from byte to byte."""
    for at in range(begin, end):
        damaged = bytearray(data)
        damaged[at] ^= 1 << (at * 5 + 3) % 8
        yield at, bytes(damaged)


def unnoticed(path: Path, data: bytes, begin: int, end: int) -> list[int]:
    """Offsets at which a flipped bit was neither refused nor reported."""
    missed = []
    for at, damaged in flips(data, begin, end):
        path.write_bytes(damaged)
        if not verify_layer(FilePlace(path)).problems:
            missed.append(at)
    return missed


def read(name: str) -> bytes:
    return (FOLDER / name).read_bytes()


ZFILES = ["commit/lz4-4k.zfile", "commit/zstd-64k.zfile", "commit/raw-by-zfiletool.zfile", "stack/l2.zstd16k"]


def jump_table(data: bytes) -> tuple[int, int]:
    """Where it lies, from whichever of header and trailer says it."""
    block = data[:512] if data[32] & 8 else data[-512:]
    offset, nr_blocks = (int.from_bytes(block[at : at + 8], "little") for at in (40, 48))
    return offset, offset + 4 * nr_blocks


@pytest.mark.parametrize("name", [*ZFILES, "commit/raw-nocrc.zfile"])
def test_zfile_header(name, tmp_path):
    assert unnoticed(tmp_path / "layer", read(name), 0, 512) == []


@pytest.mark.parametrize("name", [*ZFILES, "commit/raw-nocrc.zfile"])
def test_zfile_trailer(name, tmp_path):
    data = read(name)
    assert unnoticed(tmp_path / "layer", data, len(data) - 512, len(data)) == []


@pytest.mark.parametrize("name", [*ZFILES, "commit/raw-nocrc.zfile"])
def test_zfile_jump_table(name, tmp_path):
    data = read(name)
    assert unnoticed(tmp_path / "layer", data, *jump_table(data)) == []


@pytest.mark.parametrize("name", ZFILES)
def test_zfile_blocks_and_their_checksums(name, tmp_path):
    data = read(name)
    end = jump_table(data)[0]
    step = max((end - 512) // 400, 1)
    missed = []
    for at in range(512, end, step):
        missed += unnoticed(tmp_path / "layer", data, at, at + 1)
    assert missed == []


RESERVED = {130, 131}
COMMITTED = ["commit/raw-uuid.lsmt", "stack/l2.lsmt", "empty/empty.lsmt"]


@pytest.mark.parametrize("name", COMMITTED)
def test_lsmt_header(name, tmp_path):
    missed = unnoticed(tmp_path / "layer", read(name), 0, 500)
    assert set(missed) <= RESERVED


@pytest.mark.parametrize("name", COMMITTED)
def test_lsmt_trailer(name, tmp_path):
    data = read(name)
    begin = len(data) - 4096
    missed = unnoticed(tmp_path / "layer", data, begin, begin + 500)
    assert {at - begin for at in missed} <= RESERVED


def test_sealed_lsmt_header_and_trailer(tmp_path):
    data = read("sealed/overlaybd.sealed")
    begin = len(data) - 4096
    assert set(unnoticed(tmp_path / "layer", data, 0, 134)) <= RESERVED
    # A count of entries that is a little too small leaves room that may hold leftovers (byte 40).
    missed = {at - begin for at in unnoticed(tmp_path / "layer", data, begin, begin + 134)}
    assert missed <= RESERVED | {40}


@pytest.mark.parametrize("name", COMMITTED[:2])
def test_lsmt_index_entries_where_a_rule_binds_them(name, tmp_path):
    """Length, place and zeroed bit follow from the entry before; offset and tag are free.

    Of an offset only what breaks the order can be seen.
    """
    data = read(name)
    begin, nr = (int.from_bytes(data[-4096:][at : at + 8], "little") for at in (32, 40))
    bound = [begin + 16 * n + at for n in range(nr) for at in (*range(7, 8), *range(8, 15))]
    missed = [at for at in bound if unnoticed(tmp_path / "layer", data, at, at + 1)]
    assert missed == []


def test_lsmt_index_out_of_order_is_refused(tmp_path):
    data = bytearray(read("stack/l2.lsmt"))
    begin = int.from_bytes(data[-4064:-4056], "little")
    data[begin : begin + 16], data[begin + 16 : begin + 32] = (
        data[begin + 16 : begin + 32],
        data[begin : begin + 16],
    )
    (tmp_path / "layer").write_bytes(data)
    with pytest.raises(CorruptError):
        open_image(tmp_path / "layer")


@pytest.mark.parametrize(
    "name", ["commit/lz4-4k.tar", "commit/raw-by-zfiletool-zstd32.tar", "stack/l3.lz4.tar"]
)
def test_tar_headers(name, tmp_path):
    data = read(name)
    record = data[512:1024].index(b"\0")
    missed = unnoticed(tmp_path / "layer", data, 0, 512 + record)
    missed += unnoticed(tmp_path / "layer", data, 1024, 1536)
    # A checksum may be padded with blanks, zeros and NULs alike.
    blank = {at for at in missed if 148 <= at % 1024 < 156 and data[at : at + 1] in (b" ", b"\0")}
    assert set(missed) == blank


@pytest.mark.parametrize("name", ["rw/rw.data", "rw/rw.index"])
def test_upper_magic(name, private_vectors):
    data = (private_vectors / name).read_bytes()
    for _, damaged in flips(data, 0, 24):
        (private_vectors / name).write_bytes(damaged)
        with pytest.raises(CorruptError):
            open_image(private_vectors / "rw.config.v1.json").close()


@pytest.mark.parametrize(("name", "bits"), [("rw/rw.data", [0, 1, 2]), ("rw/rw.index", [0, 1, 2])])
def test_upper_flags(name, bits, private_vectors):
    data = (private_vectors / name).read_bytes()
    for bit in bits:
        damaged = bytearray(data)
        damaged[28] ^= 1 << bit
        (private_vectors / name).write_bytes(damaged)
        with pytest.raises(CorruptError):
            open_image(private_vectors / "rw.config.v1.json").close()
