"""image verify: what is damaged, with layer and offset, and what nothing vouches for."""

import hashlib
import json


def test_verify_compares_the_digest_of_the_configuration(private_vectors, program):
    path = private_vectors / "stack/l1.lsmt"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    config = private_vectors / "x.json"
    lower = {"file": "stack/l1.lsmt", "digest": f"sha256:{digest}", "size": path.stat().st_size}
    config.write_text(json.dumps({"lowers": [lower]}))
    done = program("image", "verify", config)
    assert done.returncode == 0
    assert "nothing vouches" not in done.stdout
    data = bytearray(path.read_bytes())
    data[5000] ^= 1
    path.write_bytes(data)
    damaged = program("image", "verify", config)
    assert damaged.returncode == 5
    found = f"sha256:{hashlib.sha256(data).hexdigest()}"
    sentence = f"{path}: its digest is {found}, the configuration says sha256:{digest}"
    assert damaged.stderr == f"tcmu-overlaybd: {sentence}\n"
    assert damaged.stdout.splitlines() == [
        f"layer 1 of 1: {path}: DAMAGED, 1 checksums checked",
        f"  problem: {sentence}",
    ]
    assert program("image", "verify", path).returncode == 0  # plain LSMT has no checksum of its own


def test_verify_says_what_nothing_vouches_for(vectors, program):
    done = program("image", "verify", vectors / "stack/l1.lsmt")
    assert "nothing vouches for 221184 bytes of data" in done.stdout
    done = program("image", "verify", vectors / "commit/raw-nocrc.zfile")
    assert "nothing vouches for 37 blocks" in done.stdout


def test_verify_keeps_a_bad_block_when_the_index_cannot_be_read_either(private_vectors, program):
    """The LSMT index lies in block 34, so opening it fails after the blocks were looked at."""
    path = private_vectors / "commit/lz4-4k.zfile"
    data = bytearray(path.read_bytes())
    table = int.from_bytes(data[40:48], "little")
    lengths = [int.from_bytes(data[at : at + 4], "little") for at in range(table, table + 4 * 37, 4)]
    for block in (1, 34):
        data[512 + sum(lengths[:block]) + 5] ^= 1
    path.write_bytes(data)
    done = program("image", "verify", path, "--json")
    assert done.returncode == 5
    problems = json.loads(done.stdout)["layers"][0]["problems"]
    assert [problem.split("block ")[1].split()[0] for problem in problems] == ["1", "34"]


def test_verify_names_every_damaged_layer_and_the_offset(private_vectors, program):
    for name, at in (("stack/l1.lz4", 600), ("stack/l2.zstd16k", 600)):
        data = bytearray((private_vectors / name).read_bytes())
        data[at] ^= 1
        (private_vectors / name).write_bytes(data)
    done = program("image", "verify", private_vectors / "stack3-mixed.config.v1.json", "--json")
    assert done.returncode == 5
    report = json.loads(done.stdout)
    assert [bool(layer["problems"]) for layer in report["layers"]] == [True, True, False]
    assert report["sound"] is False
    assert "(and 1 more)" in done.stderr
