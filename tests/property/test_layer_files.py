"""Layers of random disks: written by us, read by the oracle; and damaged at random, read by us."""

from __future__ import annotations

import random
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from golden.manifest import FOLDER
from hypothesis import given
from hypothesis import strategies as st
from oracle.reader import Image as OracleImage
from oracle.reader import read_layer, read_upper, stack

from tcmu_overlaybd.config.image_config import ImageConfig, Lower, Upper
from tcmu_overlaybd.errors import OverlayBDError
from tcmu_overlaybd.formats import zfile
from tcmu_overlaybd.image.commit import commit_image
from tcmu_overlaybd.image.create import create_layer
from tcmu_overlaybd.image.export import export_image
from tcmu_overlaybd.image.importing import import_raw
from tcmu_overlaybd.image.layer_place import FilePlace
from tcmu_overlaybd.image.layer_writer import LayerOptions
from tcmu_overlaybd.image.merge import merge_image
from tcmu_overlaybd.image.open import open_image
from tcmu_overlaybd.image.verify import verify_image, verify_layer

SECTORS = 600
SIZE = SECTORS * 512
TIMEOUT = 5000

OPTIONS = st.builds(
    LayerOptions,
    codec=st.sampled_from([None, *zfile.Codec]),
    block_size=st.sampled_from(zfile.WRITABLE_BLOCK_SIZES),
    tar=st.booleans(),
    nr_threads=st.integers(1, 3),
    detect_zeros=st.booleans(),
)
# (first sector, sectors, what): None discards, a number seeds bytes, 0 writes zeros.
OPERATIONS = st.lists(
    st.tuples(st.integers(0, SECTORS - 1), st.integers(1, 64), st.none() | st.integers(0, 5)), max_size=12
)


def some_bytes(seed: int, length: int) -> bytes:
    """Noise with zeros between: a 64 KiB block of noise alone has no place in a ZFile."""
    noise = random.Random(seed).randbytes(length)
    return b"".join(noise[at : at + 16] + bytes(48) for at in range(0, length, 64))


def apply(disk: bytearray, image, operations) -> None:
    """The operations on the model, and on image unless it is None."""
    for first, nr, what in operations:
        begin = first * 512
        length = min(nr * 512, SIZE - begin)
        data = some_bytes(what, length) if what else bytes(length)
        disk[begin : begin + length] = data
        if image is None:
            continue
        if what is None:
            image.discard(length, begin, TIMEOUT)
        else:
            image.write(data, begin, TIMEOUT)


def new_upper(folder: Path, name: str) -> Upper:
    data, index = folder / f"{name}.data", folder / f"{name}.index"
    create_layer(data, index, SIZE)
    return Upper(data=str(data), index=str(index))


@given(operations=OPERATIONS, options=OPTIONS)
def test_an_imported_disk_reads_as_it_was(operations, options):
    disk = bytearray(SIZE)
    apply(disk, None, operations)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "raw").write_bytes(disk)
        written = import_raw(folder / "raw", folder / "layer", options)
        assert stack([read_layer(folder / "layer")]).read(0, SIZE) == disk
        assert written.size == (folder / "layer").stat().st_size
        assert verify_layer(FilePlace(folder / "layer")).problems == []


@given(layers=st.lists(st.tuples(OPERATIONS, OPTIONS), min_size=1, max_size=4), merged=OPTIONS)
def test_a_stack_of_commits_reads_as_what_was_written(layers, merged):
    """Each layer is written through an upper over the ones before, and committed."""
    disk = bytearray(SIZE)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lowers: tuple[Lower, ...] = ()
        for number, (operations, options) in enumerate(layers):
            config = ImageConfig(lowers=lowers, upper=new_upper(folder, str(number)))
            with open_image(config, writable=True) as opened:
                apply(disk, opened.image, operations)
            commit_image(config, folder / f"layer{number}", options)
            lowers += (Lower(file=str(folder / f"layer{number}")),)
        committed = [read_layer(Path(lower.file)) for lower in lowers]
        assert stack(committed).read(0, SIZE) == disk
        config = ImageConfig(lowers=lowers)
        assert [report.problems for report in verify_image(config)] == [[]] * len(lowers)
        with open_image(config) as opened:
            export_image(opened.image, folder / "raw")
        assert (folder / "raw").read_bytes() == disk
        merge_image(config, folder / "merged", merged)
        assert stack([read_layer(folder / "merged")]).read(0, SIZE) == disk


@given(operations=OPERATIONS)
def test_the_oracle_reads_an_upper_as_it_was_left(operations):
    disk = bytearray(SIZE)
    with tempfile.TemporaryDirectory() as name:
        upper = new_upper(Path(name), "up")
        with open_image(ImageConfig(upper=upper), writable=True) as opened:
            apply(disk, opened.image, operations)
        image = OracleImage(SIZE)
        image.paint(read_upper(Path(upper.data), Path(upper.index)))
        assert image.read(0, SIZE) == disk


@given(operations=OPERATIONS, options=OPTIONS, threads=st.tuples(st.integers(1, 4), st.integers(1, 4)))
def test_a_commit_is_the_same_bytes_at_any_number_of_threads(operations, options, threads):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = ImageConfig(upper=new_upper(folder, "up"))
        with open_image(config, writable=True) as opened:
            apply(bytearray(SIZE), opened.image, operations)
        digests = {
            commit_image(
                config,
                folder / f"layer{place}",
                LayerOptions(codec=options.codec, block_size=options.block_size, nr_threads=nr),
            ).digest
            for place, nr in enumerate(threads)
        }
        assert len(digests) == 1


DAMAGED = [
    "commit/raw-uuid.lsmt",
    "commit/lz4-4k.zfile",
    "commit/raw-nocrc.zfile",
    "commit/zstd-64k.zfile",
    "stack/l3.lz4.tar",
    "stack/merged.zfile",
    "sealed/overlaybd.sealed",
    "big/big.lz4-64k.zfile",
]


@pytest.mark.parametrize("name", DAMAGED)
@given(data=st.data())
def test_a_damaged_layer_gives_data_or_an_error_of_ours(name, data):
    """Bytes are replaced where the structures are, or anywhere; pieces are cut out or put in."""
    layer = bytearray((FOLDER / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 4), label="number of damages")):
        near = data.draw(st.sampled_from([0, 512, 1536, len(layer) - 512, len(layer) - 4096]), label="near")
        at = max(0, min(near + data.draw(st.integers(-64, 600), label="by"), len(layer) - 1))
        at = data.draw(st.just(at) | st.integers(0, len(layer) - 1), label="at")
        piece = data.draw(st.binary(max_size=9), label="piece")
        cut = data.draw(st.sampled_from([len(piece), 0, 1, 512]), label="cut")
        layer[at : at + cut] = piece
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "layer"
        path.write_bytes(layer)
        with suppress(OverlayBDError), open_image(path) as opened:
            list(opened.image.extents(0, opened.image.size))
            opened.image.read(min(opened.image.size, 48 << 20), 0, TIMEOUT)
        verify_layer(FilePlace(path))


@pytest.mark.parametrize("name", ["rw/rw", "group/g", "stack/up"])
@given(data=st.data())
def test_a_damaged_upper_gives_data_or_an_error_of_ours(name, data):
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for suffix in (".data", ".index"):
            content = bytearray((FOLDER / (name + suffix)).read_bytes())
            for _ in range(data.draw(st.integers(0, 2), label="number of damages")):
                at = data.draw(st.integers(0, min(len(content), 4400)), label="at")
                content[at : at + 8] = data.draw(st.binary(max_size=8), label="piece")
            paths.append(Path(folder) / f"up{suffix}")
            paths[-1].write_bytes(content)
        config = ImageConfig(upper=Upper(data=str(paths[0]), index=str(paths[1])))
        for writable in (False, True):
            with suppress(OverlayBDError), open_image(config, writable=writable) as opened:
                opened.image.read(min(opened.image.size, 16 << 20), 0, TIMEOUT)
