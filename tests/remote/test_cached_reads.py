"""Blobs of a real registry, read through the cache: what comes, and by how many requests."""

from __future__ import annotations

import base64
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from small_disk import small_tmpfs

from tcmu_overlaybd.errors import UsageError
from tcmu_overlaybd.registry.blob_sources import BytesBlob
from tcmu_overlaybd.registry.deadline import Deadline
from tcmu_overlaybd.registry.upload import Uploader
from tests.registry.fixtures import ANNA, USERS
from tests.registry.images import Blob, random_blob
from tests.remote.cached_blob import CHUNK_SIZE, READ_TIMEOUT_MS, Blobs

MIB = 1 << 20


def pushed(client_of, registry, repository: str, blob: Blob, *credential: object) -> str:
    """The URL of blob, which is in the registry from now on."""
    client = client_of(registry.host, *credential)
    Uploader(client, repository).upload(blob.digest, BytesBlob(blob.data), Deadline.after(60))
    return f"http://{registry.host}/v2/{repository}/blobs/{blob.digest}"


def test_a_blob_reads_right_from_a_registry_with_a_password(
    password_registry, client_of, repository, tmp_path
):
    blob = random_blob(3 * MIB + 77, 1)
    url = pushed(client_of, password_registry, repository, blob, ANNA)
    token = base64.b64encode(f"anna:{USERS['anna']}".encode()).decode()
    with Blobs(tmp_path) as blobs:
        source = blobs.open(url, blob.data, (("Authorization", f"Basic {token}"),))
        assert source.size == len(blob.data)
        assert source.read(len(blob.data), 0, READ_TIMEOUT_MS) == blob.data
        assert source.stats().fetched_bytes == len(blob.data)


def test_sixty_four_readers_of_a_cold_chunk_are_one_request(open_registry, client_of, repository, tmp_path):
    blob = random_blob(MIB, 2)
    url = pushed(client_of, open_registry, repository, blob)
    with Blobs(tmp_path) as blobs, ThreadPoolExecutor(64) as pool:
        source = blobs.open(url, blob.data)
        together = threading.Barrier(64)

        def read(_: int) -> bytes:
            together.wait()
            return source.read(4096, 5 * CHUNK_SIZE + 4096, READ_TIMEOUT_MS)

        wanted = blob.data[5 * CHUNK_SIZE + 4096 :][:4096]
        assert all(got == wanted for got in pool.map(read, range(64)))
        assert source.stats().requests == 1
        assert open_registry.nr_gets(repository, blob.digest) == 1


@pytest.mark.parametrize("chunk_size", [64 << 10, 256 << 10])
@pytest.mark.parametrize("length", [128 << 10, MIB])
def test_a_sequential_cold_read_of_64_mib_takes_at_most_64_requests(
    open_registry, client_of, tmp_path, chunk_size, length
):
    blob = random_blob(64 * MIB, 3)
    url = pushed(client_of, open_registry, "t/sequential", blob)
    before = open_registry.nr_gets("t/sequential", blob.digest)
    with Blobs(tmp_path, chunk_size=chunk_size) as blobs:
        source = blobs.open(url, blob.data)
        for offset in range(0, 64 * MIB, length):
            assert source.read(length, offset, READ_TIMEOUT_MS) == blob.data[offset : offset + length]
        stats = source.stats()
        assert stats.requests <= 64
        assert open_registry.nr_gets("t/sequential", blob.digest) - before == stats.requests
        assert stats.fetched_bytes == 64 * MIB, "a chunk was fetched twice"


def test_two_sources_of_one_blob_share_its_chunks_and_fetches(open_registry, client_of, repository, tmp_path):
    blob = random_blob(MIB, 4)
    url = pushed(client_of, open_registry, repository, blob)
    with Blobs(tmp_path) as blobs:
        first, second = blobs.open(url, blob.data), blobs.open(url, blob.data)
        assert first.read(MIB, 0, READ_TIMEOUT_MS) == blob.data
        assert second.read(MIB, 0, READ_TIMEOUT_MS) == blob.data
        assert second.stats().requests == 0
        assert second.stats().cached_bytes == MIB


def test_a_warm_cache_needs_no_registry_after_it_was_closed(open_registry, client_of, repository, tmp_path):
    blob = random_blob(2 * MIB + 5, 5)
    url = pushed(client_of, open_registry, repository, blob)
    with Blobs(tmp_path) as blobs:
        assert blobs.open(url, blob.data).read(len(blob.data), 0, READ_TIMEOUT_MS) == blob.data
    before = open_registry.nr_gets(repository, blob.digest)
    with Blobs(tmp_path) as blobs:
        assert blobs.open(url, blob.data).read(len(blob.data), 0, READ_TIMEOUT_MS) == blob.data
        assert open_registry.nr_gets(repository, blob.digest) == before > 0
    with Blobs(tmp_path) as blobs:
        source = blobs.open("http://127.0.0.1:1/", blob.data)
        assert source.read(len(blob.data), 0, READ_TIMEOUT_MS) == blob.data
        assert source.stats().requests == 0
        assert not blobs.questions, "nobody had to know where it is"


def test_a_prefetched_blob_comes_without_a_reader(open_registry, client_of, repository, tmp_path):
    blob = random_blob(2 * MIB, 6)
    url = pushed(client_of, open_registry, repository, blob)
    with Blobs(tmp_path) as blobs:
        source = blobs.open(url, blob.data)
        source.prefetch(0, 2 * MIB)
        assert source.read(2 * MIB, 0, READ_TIMEOUT_MS) == blob.data
        assert source.stats().requests == 1
        with pytest.raises(UsageError, match="outside"):
            source.prefetch(2 * MIB, 1)


@pytest.mark.parametrize("limit", [MIB, 0], ids=["a cache of 1 MiB", "a cache without room"])
def test_thirty_two_long_readers_of_a_tiny_cache_all_end_with_right_bytes(
    open_registry, client_of, tmp_path, limit
):
    blob = random_blob(64 * MIB, 3)
    url = pushed(client_of, open_registry, "t/sequential", blob)
    with Blobs(tmp_path, limit_bytes=limit) as blobs, ThreadPoolExecutor(32) as pool:
        source = blobs.open(url, blob.data)

        def read(number: int) -> bool:
            offset = number * 7 % 63 * MIB + 4096 * number
            return source.read(MIB, offset, READ_TIMEOUT_MS) == blob.data[offset : offset + MIB]

        assert all(pool.map(read, range(96)))
        assert blobs.cache.stats().used_bytes <= limit


def test_a_full_disk_under_the_cache_fails_no_read(open_registry, client_of, tmp_path):
    blob = random_blob(64 * MIB, 3)
    url = pushed(client_of, open_registry, "t/sequential", blob)
    with (
        small_tmpfs(tmp_path / "small", "3m") as folder,
        Blobs(folder) as blobs,
        ThreadPoolExecutor(32) as pool,
    ):
        source = blobs.open(url, blob.data)

        def read(number: int) -> bool:
            offset = number * 11 % 63 * MIB + 4096 * number
            return source.read(MIB, offset, READ_TIMEOUT_MS) == blob.data[offset : offset + MIB]

        assert all(pool.map(read, range(96)))
        assert blobs.cache.stats().not_kept > 0
