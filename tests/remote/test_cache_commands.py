"""``cache list|gc|verify``: beside a daemon, and without one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tcmu_overlaybd.native.cache import Cache
from tcmu_overlaybd.remote.cache_folder import default_folder
from tests.registry.images import random_blob
from tests.remote.cached_blob import CHUNK_SIZE, READ_TIMEOUT_MS, Blobs
from tests.remote.test_cached_reads import pushed

MIB = 1 << 20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def blob():
    return random_blob(MIB + 10, 77)


@pytest.fixture
def cached(folder, blob, open_registry, client_of, repository):
    """A cache with the whole of blob, still owned."""
    url = pushed(client_of, open_registry, repository, blob)
    with Blobs(folder) as blobs:
        source = blobs.open(url, blob.data)
        assert source.read(len(blob.data), 0, READ_TIMEOUT_MS) == blob.data
        yield blobs


@pytest.fixture
def left(cached):
    """The same when its owner has gone."""
    cached.close()
    return cached


def data_file(folder: Path, blob) -> Path:
    return folder / "blobs" / blob.digest.removeprefix("sha256:")


def damage(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


def test_what_is_cached_is_for_its_owner_only(cached, folder):
    kept = [path for path in (folder, *folder.rglob("*")) if path.stat().st_mode & 0o077]
    assert kept == []
    assert len(list(folder.rglob("*"))) >= 5, "lock, version, blobs, and the two files of one"


def test_list_and_verify_look_while_the_cache_is_in_use(cached, folder, blob, program):
    listed = json.loads(program("cache", "list", "--folder", folder, "--json").stdout)
    assert listed["folder"] == str(folder)
    (facts,) = listed["blobs"]
    assert facts.pop("used_at") > 0
    assert facts == {
        "digest": blob.digest,
        "size": MIB + 10,
        "cached": MIB + 10,
        "chunk_size": CHUNK_SIZE,
        "chunks": 17,
        "chunks_present": 17,
    }
    verified = program("cache", "verify", "--folder", folder)
    assert (verified.returncode, verified.stdout) == (0, "17 chunks checked, 0 damaged\n")


def test_list_prints_a_row_for_each_blob(left, folder, blob, program):
    rows = program("cache", "list", "--folder", folder).stdout.splitlines()
    assert rows[0].split() == ["DIGEST", "SIZE", "CACHED", "PERCENT", "CHUNK", "USED"]
    assert rows[1].split()[:5] == [blob.digest, str(MIB + 10), str(MIB + 10), "100", str(CHUNK_SIZE)]
    assert len(rows) == 2


def test_verify_says_which_chunk_is_damaged(left, folder, blob, program, fails):
    damage(data_file(folder, blob), 3 * CHUNK_SIZE + 9)
    damage(data_file(folder, blob), MIB + 2)
    sentence = fails(5, "cache", "verify", "--folder", folder)
    assert sentence == f"{folder}: {blob.digest}: chunk 3, 65536 bytes at 196608, is damaged, and 1 more are"
    done = program("cache", "verify", "--folder", folder, "--json")
    assert done.returncode == 5
    found = json.loads(done.stdout)
    assert found["chunks"] == 17
    assert [(damage["chunk"], damage["length"]) for damage in found["damaged"]] == [(3, CHUNK_SIZE), (16, 10)]


def test_verify_says_that_data_is_missing_or_a_map_is_none(left, folder, blob, fails):
    data_file(folder, blob).unlink()
    assert "chunk 0, 65536 bytes at 0, is damaged, and 16 more are" in fails(
        5, "cache", "verify", "--folder", folder
    )
    data_file(folder, blob).with_suffix(".map").write_bytes(b"x" * 5000)
    assert "does not begin as a chunk map" in fails(5, "cache", "verify", "--folder", folder)


def test_gc_keeps_so_many_bytes_and_all_keeps_none(left, folder, blob, program):
    done = program("cache", "gc", "--folder", folder, "--limit", "500K", "--json")
    assert done.returncode == 0
    result = json.loads(done.stdout)
    assert result["used_before"] >= MIB + 10
    assert 400 << 10 < result["used_after"] <= 500 << 10
    assert (result["blobs_before"], result["blobs_after"]) == (1, 1)
    assert data_file(folder, blob).stat().st_blocks * 512 <= 500 << 10
    assert program("cache", "verify", "--folder", folder).returncode == 0
    done = program("cache", "gc", "--folder", folder, "--all")
    assert done.stdout.endswith(" 0 left in 0 blobs\n")
    assert list((folder / "blobs").iterdir()) == []


def test_gc_is_refused_while_the_cache_has_an_owner(cached, folder, fails):
    assert f"cache {folder} is in use by process " in fails(1, "cache", "gc", "--folder", folder, "--all")


def test_gc_wants_to_know_how_much(folder, fails):
    for options in ([], ["--all", "--limit", "1M"]):
        assert "either --limit BYTES or --all" in fails(2, "cache", "gc", "--folder", folder, *options)


@pytest.mark.parametrize("command", [["list"], ["verify"], ["gc", "--all"]])
def test_a_folder_that_is_no_cache_is_not_made_one(tmp_path, fails, command):
    assert "there is no cache" in fails(3, "cache", *command, "--folder", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_damage_that_verify_would_find_is_fetched_again(left, folder, blob, open_registry, repository):
    damage(data_file(folder, blob), 3 * CHUNK_SIZE + 9)
    with Blobs(folder) as again:
        source = again.open(f"http://{open_registry.host}/v2/{repository}/blobs/{blob.digest}", blob.data)
        assert source.read(len(blob.data), 0, READ_TIMEOUT_MS) == blob.data
        assert again.cache.stats().damaged == 1


def test_an_owner_that_is_gone_is_no_owner(folder):
    for _ in range(2):
        Cache.open(str(folder), limit_bytes=MIB, free_floor_bytes=0, chunk_size=CHUNK_SIZE).close()


def test_the_default_folder_is_that_of_the_daemon_or_of_the_user(monkeypatch):
    assert default_folder({}, 0) == Path("/var/lib/tcmu-overlaybd/cache/v1")
    assert default_folder({"STATE_DIRECTORY": "/s"}, 0) == Path("/s/cache/v1")
    assert default_folder({"XDG_CACHE_HOME": "/c"}, 1000) == Path("/c/tcmu-overlaybd/cache/v1")
