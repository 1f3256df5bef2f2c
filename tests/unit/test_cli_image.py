"""layer and image commands: what goes wrong, each with its exit code, its sentence, and no half-made file."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from oracle.reader import lsmt_block, read_image, read_layer, read_upper, stack
from small_disk import loop_device, mounted, small_tmpfs

HOLD = """
import sys, time
from tcmu_overlaybd.image.open import open_image
image = open_image(sys.argv[1], writable=True, holder="a test")
print("held", flush=True)
time.sleep(60)
"""


def everything_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


# ---- layer create --------------------------------------------------------------


def test_create_makes_a_pair_of_headers(tmp_path, program):
    done = program("layer", "create", tmp_path / "d", tmp_path / "i", 1 << 20)
    assert (done.returncode, done.stderr) == (0, "")
    data, index = (lsmt_block((tmp_path / name).read_bytes()) for name in "di")
    assert (data[0], data[3], data[4]) == (3, 1 << 20, done.stdout.strip())
    assert (index[0], index[1], index[3], index[4]) == (1, 4096, 1 << 20, done.stdout.strip())
    assert read_upper(tmp_path / "d", tmp_path / "i").segments == []


def test_create_equals_the_reference_but_for_the_uuid(vectors, tmp_path, program):
    uuid = program("layer", "create", tmp_path / "d", tmp_path / "i", "1G").stdout.strip().encode()
    for name, path in (("d", "rw/fresh.data"), ("i", "rw/fresh.index")):
        expected = bytearray((vectors / path).read_bytes())
        expected[56:92] = uuid
        assert (tmp_path / name).read_bytes() == expected


def test_create_sparse_makes_a_hole_file_and_an_empty_index(tmp_path, program):
    done = program("layer", "create", tmp_path / "d", tmp_path / "i", "1M", "--sparse")
    assert done.returncode == 0
    assert (tmp_path / "d").stat().st_size == (1 << 20) + 4096
    assert (tmp_path / "d").stat().st_blocks * 512 <= 8192
    assert lsmt_block((tmp_path / "d").read_bytes()[:4096])[0] == 0x13
    assert (tmp_path / "i").read_bytes() == b""


@pytest.mark.parametrize("existing", ["d", "i"])
def test_create_replaces_nothing_and_leaves_nothing(existing, tmp_path, fails):
    (tmp_path / existing).write_text("precious")
    sentence = fails(1, "layer", "create", tmp_path / "d", tmp_path / "i", 4096)
    assert f"{tmp_path / existing}: exists already" in sentence
    assert everything_in(tmp_path) == {existing}
    assert (tmp_path / existing).read_text() == "precious"


def test_create_follows_no_link(tmp_path, fails):
    (tmp_path / "d").symlink_to(tmp_path / "elsewhere")
    fails(1, "layer", "create", tmp_path / "d", tmp_path / "i", 4096)
    assert everything_in(tmp_path) == {"d"}


@pytest.mark.parametrize("size", ["513", "-1", "x", "1.5G", "999999999999999999"])
def test_create_with_an_impossible_size_is_wrong_usage(size, tmp_path, program):
    done = program("layer", "create", "--", tmp_path / "d", tmp_path / "i", size)
    assert done.returncode == 2
    assert everything_in(tmp_path) == set()


def test_create_in_a_folder_that_is_not_there(tmp_path, fails):
    assert "there is no folder" in fails(3, "layer", "create", tmp_path / "no/d", tmp_path / "i", 4096)
    assert everything_in(tmp_path) == set()


# ---- wrong sources --------------------------------------------------------------


@pytest.mark.parametrize("command", ["export", "verify", "info", "commit", "merge"])
def test_a_path_that_is_not_there_is_3(command, tmp_path, fails):
    output = [] if command in ("verify", "info") else ["-o", tmp_path / "out"]
    assert fails(3, "image", command, tmp_path / "nope.json", *output).endswith("nope.json: no such file")
    assert everything_in(tmp_path) == set()


def test_a_registry_that_is_down_is_4_and_named(tmp_path, fails):
    """Port 1 of this machine: nobody listens there, and no name has to be looked up."""
    sentence = fails(4, "image", "export", "127.0.0.1:1/some/image:tag", "-o", tmp_path / "out")
    assert "127.0.0.1:1/some/image: manifest tag: the connection is refused" in sentence
    assert not (tmp_path / "out").exists()


def test_a_missing_lower_is_named_with_its_place(private_vectors, tmp_path, fails):
    (private_vectors / "stack/l2.lsmt").unlink()
    config = private_vectors / "stack3-raw.config.v1.json"
    sentence = fails(3, "image", "export", config, "-o", tmp_path / "out")
    assert sentence == f"layer 2 of 3: {private_vectors}/stack/l2.lsmt: no such layer file"


@pytest.mark.parametrize(
    "name", ["stack/l1.lsmt", "stack/l1.lz4", "stack/l3.lz4.tar", "sealed/overlaybd.sealed"]
)
def test_a_truncated_layer_is_5_at_any_length(name, private_vectors, tmp_path, fails):
    data = (private_vectors / name).read_bytes()
    payload_end = len(data) if not name.endswith(".tar") else 1536 + 1680
    for length in (0, 1, 511, 512, 1536, 4096, payload_end // 2, payload_end - 1):
        (private_vectors / name).write_bytes(data[:length])
        sentence = fails(5, "image", "verify", private_vectors / name)
        assert name in sentence
    assert not (tmp_path / "out").exists()


def test_a_flipped_header_is_5(private_vectors, tmp_path, fails):
    path = private_vectors / "commit/lz4-4k.zfile"
    data = bytearray(path.read_bytes())
    data[50] ^= 4
    path.write_bytes(data)
    sentence = fails(5, "image", "export", path, "-o", tmp_path / "out")
    assert "ZFile header: its digest is" in sentence
    assert not (tmp_path / "out").exists()


def test_a_flipped_block_is_5_with_layer_and_leaves_no_output(private_vectors, tmp_path, fails):
    path = private_vectors / "commit/lz4-4k.zfile"
    data = bytearray(path.read_bytes())
    data[700] ^= 4
    path.write_bytes(data)
    sentence = fails(5, "image", "export", path, "-o", tmp_path / "out")
    assert str(path) in sentence
    assert "block 1 of 37, at byte 615 of the ZFile" in sentence
    sentence = fails(5, "image", "commit", path, "-o", tmp_path / "out")
    assert everything_in(tmp_path) - everything_in(private_vectors.parent) == set()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [b"", b"hello", b"\x7fELF" + bytes(5000), bytes(100_000)])
def test_a_file_that_is_no_layer_is_5(content, tmp_path, fails):
    (tmp_path / "x").write_bytes(content)
    assert "neither LSMT, ZFile nor a tar of one" in fails(5, "image", "info", tmp_path / "x")


def test_a_folder_without_a_configuration_is_3(tmp_path, fails):
    assert "config.v1.json: no such file" in fails(3, "image", "info", tmp_path)


def test_a_fifo_is_refused_at_once(tmp_path, fails):
    os.mkfifo(tmp_path / "fifo")
    fails(2, "image", "verify", tmp_path / "fifo")


def test_a_configuration_among_layers_is_wrong_usage(vectors, fails):
    fails(2, "image", "info", vectors / "stack/l1.lsmt", vectors / "rw.config.v1.json")


def test_more_than_255_lowers_are_refused(vectors, tmp_path, fails):
    layers = [vectors / "empty/empty.lsmt"] * 256
    assert "256 lower layers, at most 255" in fails(1, "image", "export", *layers, "-o", tmp_path / "out")


def test_255_lowers_are_stacked(vectors, program):
    layers = [vectors / "empty/empty.lsmt"] * 254 + [vectors / "stack/l1.lsmt"]
    assert program("image", "verify", *layers).returncode == 0


# ---- outputs ---------------------------------------------------------------------

WRITERS = [
    ["export", "rw.config.v1.json"],
    ["commit", "rw.config.v1.json"],
    ["merge", "stack3-raw.config.v1.json"],
    ["import", "rw/rw.data"],
]


@pytest.mark.parametrize(("command", "source"), WRITERS[1:])
def test_an_existing_layer_stays_and_is_1(command, source, vectors, tmp_path, fails):
    (tmp_path / "out").write_text("precious")
    assert "exists already" in fails(1, "image", command, vectors / source, "-o", tmp_path / "out")
    assert (tmp_path / "out").read_text() == "precious"
    assert everything_in(tmp_path) == {"out"}


def test_export_replaces_a_file_and_only_a_file(vectors, tmp_path, program, fails):
    (tmp_path / "out").write_text("old")
    assert program("image", "export", vectors / "rw.config.v1.json", "-o", tmp_path / "out").returncode == 0
    assert (tmp_path / "out").stat().st_size == 8 << 20
    (tmp_path / "folder").mkdir()
    fails(1, "image", "export", vectors / "rw.config.v1.json", "-o", tmp_path / "folder")
    assert everything_in(tmp_path) == {"out", "folder"}


def test_export_onto_a_device_overwrites_what_was_there(vectors, tmp_path, program):
    """Zeros too: a device has no holes."""
    with loop_device(tmp_path / "backing", 9 << 20) as device:
        device.write_bytes(b"\xee" * (9 << 20))
        done = program("image", "export", vectors / "rw.config.v1.json", "-o", device)
        assert done.returncode == 0, done.stderr
        content = device.read_bytes()
    assert content[: 8 << 20] == read_image(vectors / "rw.config.v1.json").read(0, 8 << 20)
    assert content[8 << 20 :] == b"\xee" * (1 << 20)


def test_export_onto_a_device_that_is_too_small_or_in_use(vectors, tmp_path, fails):
    with loop_device(tmp_path / "backing", 4 << 20) as device:
        assert "it has 4194304 bytes" in fails(
            2, "image", "export", vectors / "rw.config.v1.json", "-o", device
        )
    with loop_device(tmp_path / "backing", 9 << 20) as device:
        subprocess.run(["mkfs.ext4", "-q", device], check=True)
        with mounted(tmp_path / "mounted", device):
            sentence = fails(1, "image", "export", vectors / "rw.config.v1.json", "-o", device)
    assert "busy" in sentence


def test_a_failed_export_leaves_the_file_that_was_there(private_vectors, tmp_path, fails):
    path = private_vectors / "commit/lz4-4k.zfile"
    data = bytearray(path.read_bytes())
    data[700] ^= 4
    path.write_bytes(data)
    (tmp_path / "out").write_text("old")
    fails(5, "image", "export", path, "-o", tmp_path / "out")
    assert (tmp_path / "out").read_text() == "old"


@pytest.mark.parametrize(("command", "source"), WRITERS)
def test_an_output_in_no_folder_is_3(command, source, vectors, tmp_path, fails):
    fails(3, "image", command, vectors / source, "-o", tmp_path / "no/out")


@pytest.mark.parametrize(("command", "source"), WRITERS)
def test_a_full_disk_is_1_and_leaves_nothing(command, source, vectors, tmp_path, fails):
    with small_tmpfs(tmp_path / "small", "64k") as folder:
        sentence = fails(1, "image", command, vectors / source, "-o", folder / "out")
        assert everything_in(folder) == set()
    assert "No space left" in sentence or "full" in sentence
    assert str(folder / "out") in sentence


def test_data_that_64k_blocks_do_not_hold_is_1_and_names_the_output(tmp_path, fails):
    """The reference cannot read a stored block above 64 KiB, so none is written."""
    (tmp_path / "raw").write_bytes(random.Random(1).randbytes(1 << 18))
    options = ["--zfile", "zstd", "--block-size", "64K"]
    sentence = fails(1, "image", "import", tmp_path / "raw", "-o", tmp_path / "out", *options)
    assert sentence.startswith(f"{tmp_path / 'out'}: block ")
    assert "use smaller blocks" in sentence
    assert everything_in(tmp_path) == {"raw"}


@pytest.mark.parametrize(
    "options",
    [
        ["--uuid", "nope"],
        ["--parent-uuid", "nope"],
        ["--message", "x" * 257],
        ["--zfile", "lzma"],
        ["--zfile", "lz4", "--block-size", "5000"],
        ["--zfile", "lz4", "--block-size", "2"],
        ["--block-size", "4096"],
        ["--threads", "0"],
    ],
)
def test_impossible_options_are_wrong_usage(options, vectors, tmp_path, program):
    done = program("image", "commit", vectors / "rw.config.v1.json", "-o", tmp_path / "out", *options)
    assert done.returncode == 2
    assert everything_in(tmp_path) == set()


def test_commit_is_readable_by_others(vectors, tmp_path, program):
    program("image", "commit", vectors / "rw.config.v1.json", "-o", tmp_path / "out")
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o644 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_commit_as_json(vectors, tmp_path, program):
    done = program("image", "commit", vectors / "rw.config.v1.json", "-o", tmp_path / "out", "--json")
    data = (tmp_path / "out").read_bytes()
    assert json.loads(done.stdout) == {
        "path": str(tmp_path / "out"),
        "digest": f"sha256:{hashlib.sha256(data).hexdigest()}",
        "size": len(data),
    }


def test_commit_of_a_committed_stack_has_nothing_to_do(vectors, tmp_path, fails):
    config = vectors / "stack3-raw.config.v1.json"
    assert "image merge" in fails(2, "image", "commit", config, "-o", tmp_path / "out")


def test_commit_leaves_the_upper_as_it_is(private_vectors, tmp_path, program):
    before = [(private_vectors / name).read_bytes() for name in ("rw/rw.data", "rw/rw.index")]
    program("image", "commit", private_vectors / "rw.config.v1.json", "-o", tmp_path / "out")
    assert [(private_vectors / name).read_bytes() for name in ("rw/rw.data", "rw/rw.index")] == before
    assert everything_in(private_vectors / "rw") == {"rw.data", "rw.index", "fresh.data", "fresh.index"}


def test_an_upper_that_another_process_holds_is_1_and_names_it(private_vectors, tmp_path, fails):
    config = private_vectors / "rw.config.v1.json"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(config)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        for command in ("commit", "export"):
            sentence = fails(1, "image", command, config, "-o", tmp_path / "out")
            assert f"a test, pid {holder.pid}" in sentence
        assert not (tmp_path / "out").exists()
    finally:
        holder.kill()
        holder.wait(10)


def test_a_killed_commit_leaves_nothing(vectors, tmp_path):
    """The output has no name until it is whole, so nobody has to clean up."""
    raw = tmp_path / "raw"
    with raw.open("wb") as file:
        for n in range(64):
            file.write(os.urandom(1 << 20) if n % 2 else bytes(1 << 20))
    (tmp_path / "out").mkdir()
    command = [sys.executable, "-m", "tcmu_overlaybd", "image", "import", str(raw), "--zfile", "zstd"]
    process = subprocess.Popen([*command, "-o", str(tmp_path / "out/layer")])
    time.sleep(0.3)
    process.kill()
    process.wait(10)
    assert everything_in(tmp_path / "out") <= {"layer"}  # nothing, or it was quicker than the kill


# ---- import and merge --------------------------------------------------------------


def test_import_stores_neither_holes_nor_zeros(tmp_path, program):
    raw = tmp_path / "raw"
    with raw.open("wb") as file:
        file.write(b"a" * 4096 + bytes(8192) + b"b" * 512)
        file.truncate(1 << 20)
    assert program("image", "import", raw, "-o", tmp_path / "layer").returncode == 0
    layer = read_layer(tmp_path / "layer")
    assert layer.size == 1 << 20
    assert not any(segment.is_zero for segment in layer.segments)
    assert sum(segment.length for segment in layer.segments) <= 16
    assert stack([layer]).read(0, 1 << 20) == raw.read_bytes()


def test_import_without_detection_stores_written_zeros(tmp_path, program):
    raw = tmp_path / "raw"
    raw.write_bytes(b"a" * 4096 + bytes(65536) + b"b" * 4096)
    assert program("image", "import", raw, "-o", tmp_path / "layer", "--no-detect-zeros").returncode == 0
    layer = read_layer(tmp_path / "layer")
    assert sum(segment.length for segment in layer.segments) * 512 == raw.stat().st_size
    assert stack([layer]).read(0, layer.size) == raw.read_bytes()


@pytest.mark.parametrize("length", [1, 511, 513, 4097, 100_001])
def test_import_rounds_the_size_up_to_a_sector(length, tmp_path, program):
    raw = tmp_path / "raw"
    raw.write_bytes(b"x" * length)
    done = program("image", "import", raw, "-o", tmp_path / "layer", "--zfile", "lz4", "--tar")
    assert done.returncode == 0, done.stderr
    layer = read_layer(tmp_path / "layer")
    assert layer.size == -(-length // 512) * 512
    assert stack([layer]).read(0, layer.size) == (b"x" * length).ljust(layer.size, b"\0")


def test_import_of_nothing_is_wrong_usage(tmp_path, fails):
    (tmp_path / "raw").write_bytes(b"")
    fails(2, "image", "import", tmp_path / "raw", "-o", tmp_path / "layer")
    fails(3, "image", "import", tmp_path / "nope", "-o", tmp_path / "layer")


def test_commit_detects_zeros_when_asked(tmp_path, program):
    """The zeros stay zeros: they hide what lies below."""
    raw = tmp_path / "raw"
    raw.write_bytes(b"a" * 4096 + bytes(65536) + b"b" * 4096)
    program("image", "import", raw, "-o", tmp_path / "one", "--no-detect-zeros")
    done = program("image", "commit", tmp_path / "one", "-o", tmp_path / "two", "--detect-zeros")
    assert done.returncode == 0, done.stderr
    layer = read_layer(tmp_path / "two")
    assert sum(segment.length for segment in layer.segments if segment.is_zero) == 128
    assert (tmp_path / "two").stat().st_size < (tmp_path / "one").stat().st_size - 60_000
