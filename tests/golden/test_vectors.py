"""Every reference vector: exported, verified, and read by the oracle."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from golden.manifest import ALL, CHUNK, READABLE, Vector, by_name, differing_chunks
from oracle.reader import read_image


def nonzero_chunks(raw: Path) -> dict[int, str]:
    chunks = {}
    with raw.open("rb") as file:
        for number in range(-(-raw.stat().st_size // CHUNK)):
            chunk = file.read(CHUNK)
            if chunk.count(0) != len(chunk):
                chunks[number] = hashlib.sha256(chunk).hexdigest()
    return chunks


def test_vectors_are_the_ones_the_manifest_lists(vectors):
    for vector in ALL:
        for entry in vector["files"]:
            data = (vectors / entry["path"]).read_bytes()
            assert (len(data), hashlib.sha256(data).hexdigest()) == (entry["size"], entry["sha256"]), entry[
                "path"
            ]


@pytest.mark.parametrize("vector", READABLE, ids=by_name)
def test_export_gives_the_expected_image(vector: Vector, vectors, tmp_path, program):
    raw = tmp_path / "raw"
    done = program("image", "export", vectors / vector["config"], "-o", raw)
    assert done.returncode == 0, done.stderr
    assert raw.stat().st_size == vector["expected"]["vsize"]
    assert differing_chunks(vector, nonzero_chunks(raw)) == []
    with raw.open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == vector["expected"]["sha256"]
    # Sparse: what is on disk is not much more than what is not zero.
    assert raw.stat().st_blocks * 512 <= (len(vector["expected"]["nonzero_chunks"]) + 1) * CHUNK


@pytest.mark.parametrize("vector", READABLE, ids=by_name)
def test_verify_accepts(vector: Vector, vectors, program):
    done = program("image", "verify", vectors / vector["config"])
    assert (done.returncode, done.stderr) == (0, "")
    assert "DAMAGED" not in done.stdout


@pytest.mark.parametrize("vector", READABLE, ids=by_name)
def test_oracle_agrees(vector: Vector, vectors):
    image = read_image(vectors / vector["config"])
    assert (image.size, image.digest()) == (vector["expected"]["vsize"], vector["expected"]["sha256"])


@pytest.mark.parametrize("vector", READABLE, ids=by_name)
def test_info_reads_the_headers(vector: Vector, vectors, program):
    done = program("image", "info", vectors / vector["config"], "--json")
    assert done.returncode == 0, done.stderr
    assert f'"virtual_size": {vector["expected"]["vsize"]}' in done.stdout


def test_turbo_layer_is_refused_with_a_sentence(vectors, fails):
    sentence = fails(4, "image", "export", vectors / "turbo-ext4.config.v1.json", "-o", "/nowhere")
    assert "TurboOCI" in sentence
