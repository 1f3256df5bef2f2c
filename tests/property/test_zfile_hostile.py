"""ZFiles that lie: whatever the numbers and the jump table say, a sentence or data, and no memory."""

from __future__ import annotations

import resource
import struct
from collections.abc import Iterator
from pathlib import Path

import lz4.block
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tcmu_overlaybd import errors
from tcmu_overlaybd.native.source import Source, crc32c

BLOCK_SIZE = 4096
PLAIN = b"".join(struct.pack("<I", i * i % 9973) for i in range(5000))
TIMEOUT_MS = 10_000


def stored_blocks() -> list[bytes]:
    blocks = [
        lz4.block.compress(PLAIN[i : i + BLOCK_SIZE], store_size=False)
        for i in range(0, len(PLAIN), BLOCK_SIZE)
    ]
    return [block + struct.pack("<I", crc32c(block, 100007)) for block in blocks]


BLOCKS = stored_blocks()
BODY = bytes(512) + b"".join(BLOCKS)
TABLE = struct.pack(f"<{len(BLOCKS)}I", *map(len, BLOCKS))

# Numbers near the limits of the types and of the file, where checks go wrong.
EDGES = [0, 1, 511, 512, 513, len(BODY), len(BODY) + 4, 2**31, 2**32 - 1, 2**32, 2**62, 2**63, 2**64 - 1]
BLOCK_SIZES = [0, 1, 3, 256, 511, 512, 4096, 8192, 65536, 131072, 2**31, 2**32 - 1]
numbers = st.sampled_from(EDGES) | st.integers(0, 2**64 - 1) | st.integers(0, len(BODY) + 1024)
small = st.sampled_from(BLOCK_SIZES) | st.integers(0, 2**32 - 1)

unchanged = {
    "index_offset": len(BODY),
    "nr_blocks": len(BLOCKS),
    "original_size": len(PLAIN),
    "block_size": BLOCK_SIZE,
    "codec": 1,
    "has_block_crc": True,
}


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.fixture(scope="module", autouse=True)
def little_memory() -> Iterator[None]:
    """A table allocated by a hostile number would not fit: 64 blocks of 4 KiB need no gigabyte."""
    used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + (512 << 20), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile")


def open_and_read(path: Path, params: dict[str, int]) -> bytes | None:
    """What it reads as, or None when it was refused with a sentence that names the file."""
    with Source.open_file(str(path)) as below:
        try:
            with Source.zfile(below, index_crc=None, timeout_ms=TIMEOUT_MS, **params) as source:  # type: ignore[arg-type]
                assert source.size == params["original_size"]
                return source.read(source.size, 0, TIMEOUT_MS)
        except (errors.CorruptError, errors.UnavailableError) as error:
            assert str(path) in str(error)  # noqa: PT017 - most examples raise nothing
            return None


# The folder is the same for all examples on purpose: a file is written for each.
relaxed = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@relaxed
@given(
    changes=st.fixed_dictionaries(
        {},
        optional={
            "index_offset": numbers,
            "nr_blocks": numbers,
            "original_size": numbers,
            "block_size": small,
            "codec": st.integers(0, 4) | small,
            "has_block_crc": st.booleans(),
        },
    )
)
def test_hostile_numbers_are_refused_or_read_right(folder: Path, changes: dict[str, int]) -> None:
    path = folder / "numbers"
    path.write_bytes(BODY + TABLE + bytes(512))
    params = unchanged | changes
    content = open_and_read(path, params)
    if content is not None:
        assert params["nr_blocks"] == 0 or content == PLAIN[: len(content)]


@relaxed
@given(
    lengths=st.lists(
        st.sampled_from([len(block) for block in BLOCKS] + [0, 1, 4, 5, 4096, 4612, 4613, 65535, 2**32 - 1])
        | st.integers(0, 2**32 - 1),
        min_size=len(BLOCKS),
        max_size=len(BLOCKS),
    )
)
def test_a_hostile_jump_table_is_refused_or_the_checksums_find_it(folder: Path, lengths: list[int]) -> None:
    path = folder / "table"
    path.write_bytes(BODY + struct.pack(f"<{len(lengths)}I", *lengths) + bytes(512))
    content = open_and_read(path, unchanged)
    assert content in {None, PLAIN}


@relaxed
@given(
    noise=st.binary(min_size=0, max_size=5000),
    table=st.binary(min_size=0, max_size=200),
    codec=st.sampled_from([1, 2]),
    block_size=st.sampled_from([512, 4096, 65536]),
    has_block_crc=st.booleans(),
)
def test_noise_is_refused(
    folder: Path, noise: bytes, table: bytes, codec: int, block_size: int, has_block_crc: bool
) -> None:
    path = folder / "noise"
    path.write_bytes(bytes(512) + noise + table)
    nr_blocks = len(table) // 4
    params = {
        "index_offset": 512 + len(noise),
        "nr_blocks": nr_blocks,
        "original_size": nr_blocks * block_size,
        "block_size": block_size,
        "codec": codec,
        "has_block_crc": has_block_crc,
    }
    open_and_read(path, params)


@relaxed
@given(place=st.integers(512, len(BODY) - 1), change=st.integers(1, 255))
def test_any_changed_byte_of_a_block_is_found(folder: Path, place: int, change: int) -> None:
    path = folder / "flipped"
    damaged = bytearray(BODY)
    damaged[place] ^= change
    path.write_bytes(bytes(damaged) + TABLE + bytes(512))
    assert open_and_read(path, unchanged) is None


def test_a_sparse_file_that_claims_many_blocks_costs_no_memory(folder: Path) -> None:
    """30 million blocks need 120 MB if they are believed, and they fit the limit above."""
    path = folder / "sparse"
    nr_blocks = 30_000_000
    with path.open("wb") as file:
        file.truncate(1 << 40)
    before = peak_bytes()
    params = unchanged | {
        "index_offset": 1 << 39,
        "nr_blocks": nr_blocks,
        "original_size": nr_blocks * BLOCK_SIZE,
    }
    with (
        Source.open_file(str(path)) as below,
        pytest.raises(errors.CorruptError, match="jump table: block 0 is 0 bytes long"),
    ):
        Source.zfile(below, index_crc=None, timeout_ms=TIMEOUT_MS, **params)  # type: ignore[arg-type]
    assert peak_bytes() - before < 64 << 20
