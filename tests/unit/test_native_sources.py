"""Sources as Python sees them: right bytes, and for each fault its exception."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import lz4.block
import pytest
import zstandard

from tcmu_overlaybd import errors
from tcmu_overlaybd.native import testing
from tcmu_overlaybd.native.source import DELAY_NEVER, Source, crc32c

TIMEOUT_MS = 10_000
BLOCK_SEED = 100007
LZ4, ZSTD = 1, 2


@pytest.fixture
def plain() -> bytes:
    return b"".join(struct.pack("<I", i * i % 9973) for i in range(10_000))


@pytest.fixture
def plain_path(tmp_path: Path, plain: bytes) -> Path:
    path = tmp_path / "plain"
    path.write_bytes(plain)
    return path


@pytest.fixture
def file(plain_path: Path) -> Iterator[Source]:
    with Source.open_file(str(plain_path)) as source:
        yield source


@dataclass(frozen=True)
class ZFile:
    """A ZFile's bytes, and where its jump table lies."""

    content: bytes
    index_offset: int
    lengths: tuple[int, ...]
    original_size: int
    block_size: int
    codec: int

    def open(self, path: Path, **changes: object) -> Source:
        path.write_bytes(self.content)
        arguments = {
            "index_offset": self.index_offset,
            "nr_blocks": len(self.lengths),
            "original_size": self.original_size,
            "block_size": self.block_size,
            "codec": self.codec,
            "has_block_crc": True,
            "index_crc": crc32c(struct.pack(f"<{len(self.lengths)}I", *self.lengths), 0),
            "timeout_ms": TIMEOUT_MS,
        } | changes
        with Source.open_file(str(path)) as below:
            return Source.zfile(below, **arguments)  # type: ignore[arg-type]

    def flipped(self, offset: int) -> ZFile:
        content = bytearray(self.content)
        content[offset] ^= 0x40
        return replace(self, content=bytes(content))


def compress(codec: int, block: bytes) -> bytes:
    if codec == LZ4:
        return lz4.block.compress(block, store_size=False)
    return zstandard.ZstdCompressor(level=3).compress(block)


def make_zfile(plain: bytes, block_size: int = 4096, codec: int = LZ4) -> ZFile:
    """Made by other libraries than those under test."""
    blocks = [
        compress(codec, plain[begin : begin + block_size]) for begin in range(0, len(plain), block_size)
    ]
    stored = [block + struct.pack("<I", crc32c(block, BLOCK_SEED)) for block in blocks]
    lengths = tuple(len(block) for block in stored)
    body = bytes(512) + b"".join(stored)
    table = struct.pack(f"<{len(lengths)}I", *lengths)
    return ZFile(body + table + bytes(512), len(body), lengths, len(plain), block_size, codec)


def test_crc32c_is_the_raw_register() -> None:
    assert crc32c(b"123456789", 0) == 0x58E3FA20
    assert crc32c(b"", 7) == 7


def test_a_file_is_read(file: Source, plain: bytes) -> None:
    assert file.size == len(plain)
    assert file.read(100, 50, TIMEOUT_MS) == plain[50:150]
    assert file.read(0, file.size, TIMEOUT_MS) == b""


def test_a_missing_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(errors.MissingError, match=r"cannot open .*nothing: No such file or directory"):
        Source.open_file(str(tmp_path / "nothing"))
    with pytest.raises(FileNotFoundError):
        Source.open_file(str(tmp_path / "nothing"))


def test_a_folder_is_no_source(tmp_path: Path) -> None:
    with pytest.raises(errors.OverlayBDError, match="is neither a regular file nor a block device"):
        Source.open_file(str(tmp_path))


def test_a_fifo_without_a_writer_does_not_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(errors.UsageError, match="is neither a regular file nor a block device"):
        Source.open_file(str(tmp_path / "fifo"))


def test_a_file_name_need_not_be_utf8(tmp_path: Path) -> None:
    path = tmp_path / "\udcff\udcfe"
    path.write_bytes(b"abc")
    with Source.open_file(str(path)) as source:
        assert source.read(3, 0, TIMEOUT_MS) == b"abc"


@pytest.mark.parametrize(("length", "offset"), [(1, 40_000), (40_001, 0), (2, 2**64 - 1)])
def test_a_range_outside_is_the_callers_mistake(file: Source, length: int, offset: int) -> None:
    with pytest.raises(errors.UsageError, match="are outside of its 40000"):
        file.read(length, offset, TIMEOUT_MS)


def test_a_file_cut_while_open_is_corrupt_not_zeros(file: Source, plain_path: Path) -> None:
    plain_path.write_bytes(b"short")
    with pytest.raises(errors.CorruptError, match="is shorter than"):
        file.read(100, 0, TIMEOUT_MS)


def test_a_closed_source_is_refused(plain_path: Path) -> None:
    source = Source.open_file(str(plain_path))
    source.close()
    source.close()
    with pytest.raises(ValueError, match="closed"):
        source.read(1, 0, TIMEOUT_MS)


def test_a_slice_is_a_part_and_keeps_the_file_open(plain_path: Path, plain: bytes) -> None:
    with Source.open_file(str(plain_path)) as below:
        part = Source.slice(below, 1000, 500)
    with part, Source.slice(part, 100, 10) as part_of_part:
        assert part.size == 500
        assert part.read(500, 0, TIMEOUT_MS) == plain[1000:1500]
        assert part_of_part.read(10, 0, TIMEOUT_MS) == plain[1100:1110]
        with pytest.raises(errors.UsageError):
            part.read(1, 500, TIMEOUT_MS)


@pytest.mark.parametrize(("offset", "size"), [(40_000, 1), (0, 40_001), (2**64 - 1, 2)])
def test_a_slice_past_the_end_is_corrupt(file: Source, offset: int, size: int) -> None:
    with pytest.raises(errors.CorruptError, match="is shorter than the part wanted of it"):
        Source.slice(file, offset, size)


@pytest.mark.parametrize("codec", [LZ4, ZSTD], ids=["lz4", "zstd"])
@pytest.mark.parametrize("block_size", [512, 4096, 65536])
def test_a_zfile_reads_as_what_went_in(tmp_path: Path, plain: bytes, block_size: int, codec: int) -> None:
    with make_zfile(plain, block_size, codec).open(tmp_path / "z") as source:
        assert source.size == len(plain)
        assert source.read(len(plain), 0, TIMEOUT_MS) == plain
        assert source.read(5000, 3000, TIMEOUT_MS) == plain[3000:8000]
        source.verify_zfile(0, -(-len(plain) // block_size), TIMEOUT_MS)


def test_a_zfile_with_a_flipped_byte_names_the_block(tmp_path: Path, plain: bytes) -> None:
    zfile = make_zfile(plain)
    damaged = zfile.flipped(512 + zfile.lengths[0] + 10)
    with damaged.open(tmp_path / "z") as source:
        assert source.read(4096, 0, TIMEOUT_MS) == plain[:4096]
        with pytest.raises(errors.CorruptError, match=r"z: block 1 of 10, at byte \d+ .* its checksum"):
            source.read(1, 4096, TIMEOUT_MS)
        with pytest.raises(errors.CorruptError, match="block 1 of 10"):
            source.verify_zfile(0, 10, TIMEOUT_MS)
        source.verify_zfile(2, 8, TIMEOUT_MS)


def test_a_zfile_with_a_flipped_byte_in_its_jump_table_is_refused(tmp_path: Path, plain: bytes) -> None:
    zfile = make_zfile(plain)
    with pytest.raises(errors.CorruptError, match="z: jump table: "):
        zfile.flipped(zfile.index_offset).open(tmp_path / "z")
    with pytest.raises(errors.CorruptError, match=r"z: jump table: checksum is \w{8}, not 00000001"):
        zfile.open(tmp_path / "z", index_crc=1)


def test_a_zfile_without_index_checksum_is_believed_only_so_far(tmp_path: Path, plain: bytes) -> None:
    zfile = make_zfile(plain)
    with pytest.raises(errors.CorruptError, match="jump table: block 1 is"):
        zfile.flipped(zfile.index_offset + 6).open(tmp_path / "z", index_crc=None)


@pytest.mark.parametrize(
    ("changes", "kind", "sentence"),
    [
        ({"codec": 0}, errors.UnavailableError, "algorithm 0"),
        ({"block_size": 3000}, errors.CorruptError, "block size 3000"),
        ({"nr_blocks": 11}, errors.CorruptError, "11 blocks of 4096 bytes cannot hold 40000"),
        ({"original_size": 2**64 - 1}, errors.CorruptError, "cannot hold"),
        ({"index_offset": 2**64 - 1}, errors.CorruptError, "outside of the file"),
        ({"index_offset": 0}, errors.CorruptError, "no room before the jump table"),
    ],
)
def test_zfile_parameters_that_make_no_sense(
    tmp_path: Path, plain: bytes, changes: dict[str, int], kind: type[Exception], sentence: str
) -> None:
    with pytest.raises(kind, match=sentence):
        make_zfile(plain).open(tmp_path / "z", **changes)


def test_only_a_zfile_can_be_verified(file: Source) -> None:
    with pytest.raises(errors.UsageError, match="is read as a file, which has no blocks"):
        file.verify_zfile(0, 1, TIMEOUT_MS)


def test_a_slow_source_is_read_in_the_end(file: Source, plain: bytes) -> None:
    with Source.slow(file, chunk_size=4096, delay_ms=1, keep_ms=0) as slow:
        assert slow.read(len(plain), 0, TIMEOUT_MS) == plain


def test_data_that_never_arrives_ends_with_a_timeout(file: Source) -> None:
    with Source.slow(file, chunk_size=4096, delay_ms=DELAY_NEVER, keep_ms=0) as slow:
        with pytest.raises(errors.TimeoutExpiredError, match="the data did not arrive in time"):
            slow.read(10, 0, 20)
        with pytest.raises(TimeoutError):
            slow.read(10, 0, 0)


def test_a_slow_source_reads_through_until_it_is_late(file: Source, plain: bytes) -> None:
    with Source.slow(file, chunk_size=4096, delay_ms=DELAY_NEVER, keep_ms=0) as slow:
        slow.set_late(False)
        assert slow.read(100, 0, TIMEOUT_MS) == plain[:100]
        slow.set_late(True)
        with pytest.raises(errors.TimeoutExpiredError):
            slow.read(100, 0, 1)
    with pytest.raises(errors.UsageError, match="is no slow source"):
        file.set_late(True)


def test_a_zfile_over_a_slow_source(tmp_path: Path, plain: bytes) -> None:
    zfile = make_zfile(plain)
    path = tmp_path / "z"
    path.write_bytes(zfile.content)
    with (
        Source.open_file(str(path)) as below,
        Source.slow(below, chunk_size=1000, delay_ms=1, keep_ms=1) as slow,
        Source.zfile(
            slow,
            index_offset=zfile.index_offset,
            nr_blocks=10,
            original_size=len(plain),
            block_size=4096,
            codec=LZ4,
            has_block_crc=True,
            index_crc=None,
            timeout_ms=TIMEOUT_MS,
        ) as source,
    ):
        assert source.read(len(plain), 0, TIMEOUT_MS) == plain


def test_a_disk_that_fails_is_said_with_its_reason(file: Source) -> None:
    testing.file_fault("plain", "read", 1, 5)
    try:
        with pytest.raises(errors.FailedError, match=r"cannot read 10 bytes at 0 of .*plain: Input/output"):
            file.read(10, 0, TIMEOUT_MS)
    finally:
        testing.file_fault("", "", 0, 0)
    file.read(10, 0, TIMEOUT_MS)


def test_the_tests_run_on_the_test_build() -> None:
    assert testing.is_test_build()
