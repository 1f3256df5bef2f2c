"""Commits whose bytes the format leaves no freedom for equal the reference's files."""

from __future__ import annotations

import hashlib

import pytest
from oracle.reader import crc, lsmt_block, read_layer, stack

UUID = "00000001-1111-2222-3333-000000000001"
PARENT = "00000009-1111-2222-3333-000000000009"
SAME = {
    "raw.lsmt": [],
    "raw-uuid.lsmt": ["--message", "hello tag", "--uuid", UUID, "--parent-uuid", PARENT],
    "lz4-4k.zfile": ["--zfile", "lz4"],
    "lz4-4k-mt.zfile": ["--zfile", "lz4", "--threads", 2],
    "lz4-16k.zfile": ["--zfile", "lz4", "--block-size", 16],
    "lz4-64k.zfile": ["--zfile", "lz4", "--block-size", 65536],
    "lz4-4k.tar": ["--zfile", "lz4", "--tar"],
}


@pytest.mark.parametrize("name", SAME)
@pytest.mark.parametrize("threads", [1, 3])
def test_commit_equals_the_reference(name, threads, vectors, tmp_path, program):
    output = tmp_path / "layer"
    options = [*SAME[name], "--threads", threads]
    done = program("image", "commit", vectors / "rw.config.v1.json", "-o", output, *options)
    assert done.returncode == 0, done.stderr
    digest = hashlib.sha256(output.read_bytes()).hexdigest()
    assert done.stdout.split() == [f"sha256:{digest}", str(output.stat().st_size)]
    assert output.read_bytes() == (vectors / "commit" / name).read_bytes()


@pytest.mark.parametrize("block_size", [4, 8, 16, 32, 64])
@pytest.mark.parametrize("codec", ["lz4", "zstd"])
@pytest.mark.parametrize("tar", [[], ["--tar"]])
def test_oracle_reads_what_commit_writes(block_size, codec, tar, vectors, tmp_path, program):
    output = tmp_path / "layer"
    options = ["--zfile", codec, "--block-size", block_size, "--uuid", UUID.lower(), *tar]
    done = program("image", "commit", vectors / "rw.config.v1.json", "-o", output, *options)
    assert done.returncode == 0, done.stderr
    layer = read_layer(output)
    assert (layer.uuid, layer.size) == (UUID, 8 << 20)
    assert stack([layer]).digest() == stack([read_layer(vectors / "commit/raw.lsmt")]).digest()


def test_sealed_layer_commits_to_the_reference_bytes(vectors, tmp_path, program):
    output = tmp_path / "layer"
    done = program("image", "commit", vectors / "sealed.config.v1.json", "-o", output)
    assert done.returncode == 0, done.stderr
    assert output.read_bytes() == (vectors / "sealed/from-sealed.lsmt").read_bytes()


def test_sparse_layer_commits_to_the_reference_bytes(vectors, tmp_path, program):
    output = tmp_path / "layer"
    done = program("image", "commit", vectors / "sparse.config.v1.json", "-o", output)
    assert done.returncode == 0, done.stderr
    assert output.read_bytes() == (vectors / "sparse/committed.lsmt").read_bytes()


def test_upper_of_a_stack_commits_alone_with_its_parent(vectors, tmp_path, program):
    output = tmp_path / "layer"
    done = program("image", "commit", vectors / "stack3-upper.config.v1.json", "-o", output)
    assert done.returncode == 0, done.stderr
    layer = read_layer(output)
    assert layer.parent == "00000003-1111-2222-3333-000000000003"
    lowers = [read_layer(vectors / f"stack/l{n}.lsmt") for n in (1, 2, 3)]
    with_upper = "image", "export", vectors / "stack3-upper.config.v1.json", "-o", tmp_path / "raw"
    assert program(*with_upper).returncode == 0
    assert stack([*lowers, layer]).digest() == hashlib.sha256((tmp_path / "raw").read_bytes()).hexdigest()


def test_merge_reads_as_the_stack_did(vectors, tmp_path, program):
    output = tmp_path / "layer"
    done = program("image", "merge", vectors / "stack3-mixed.config.v1.json", "-o", output, "--zfile", "zstd")
    assert done.returncode == 0, done.stderr
    layer = read_layer(output)
    assert stack([layer]).digest() == stack([read_layer(vectors / "stack/merged.lsmt")]).digest()
    assert {segment.tag for segment in layer.segments} == {0}


def test_zfile_header_of_a_commit_carries_a_digest(vectors, tmp_path, program):
    output = tmp_path / "layer"
    program("image", "commit", vectors / "rw.config.v1.json", "-o", output, "--zfile", "zstd")
    header = output.read_bytes()[:512]
    assert header[32] == 0x1B
    assert crc(header[:28] + bytes(4) + header[32:], 0) == int.from_bytes(header[28:32], "little")


def test_message_of_256_bytes_fills_the_field(vectors, tmp_path, program):
    output = tmp_path / "layer"
    message = "é" * 128
    done = program("image", "commit", vectors / "rw.config.v1.json", "-o", output, "--message", message)
    assert done.returncode == 0, done.stderr
    assert lsmt_block(output.read_bytes()[:4096])[6] == message.encode()
