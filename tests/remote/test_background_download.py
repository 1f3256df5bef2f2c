"""Background download from a real registry: what comes of it, what it leaves alone, and its ends."""

from __future__ import annotations

import hashlib
import logging
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_disk import small_tmpfs

from tcmu_overlaybd.remote import download_task
from tcmu_overlaybd.remote.download import Downloads
from tcmu_overlaybd.remote.partial_file import COMMIT_NAME, PARTIAL_NAME, PartialFile
from tests.registry.docker_registry import DockerRegistry
from tests.registry.fixtures import Clients
from tests.registry.http_faults import OtherBytes, Stall
from tests.registry.images import random_blob
from tests.registry.narrow_line import NarrowLine
from tests.registry.scripted_server import ScriptedServer
from tests.remote.cached_blob import CHUNK_SIZE, READ_TIMEOUT_MS, Blobs
from tests.remote.downloading import MIB, config, length_of, start, wait_for_state, wait_until, wanted
from tests.remote.test_cached_reads import pushed

BLOB = random_blob(8 * MIB + 77, 31)


@pytest.fixture(scope="module")
def url(open_registry) -> Iterator[str]:
    clients = Clients()
    yield pushed(clients, open_registry, "t/download", BLOB)
    clients.close()


@pytest.fixture
def downloads() -> Iterator[Downloads]:
    running = Downloads(config(), free_floor=0)
    yield running
    assert running.close(20)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download_task, "FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr(download_task, "BUSY_PAUSE_S", 0.05)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The ``dir`` of the lower."""
    return tmp_path / "layer"


# ---- what comes of it -------------------------------------------------------------------


def test_after_the_download_the_registry_may_go(tmp_path, folder, client_of, downloads):
    with DockerRegistry(tmp_path / "registry") as registry, Blobs(tmp_path / "cache") as blobs:
        source = blobs.open(pushed(client_of, registry, "t/gone", BLOB), BLOB.data)
        download = start(downloads, wanted(source, BLOB.data, folder))
        wait_for_state(download, "local")
        registry.stop()
        assert source.stats().is_local
        assert source.read(len(BLOB.data), 0, READ_TIMEOUT_MS) == BLOB.data
        assert source.stats().fetched_bytes == len(BLOB.data)
        assert download.progress().local_bytes == download.progress().bytes == len(BLOB.data)
    file = folder / COMMIT_NAME
    assert f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}" == BLOB.digest
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in folder.iterdir()] == [COMMIT_NAME]


def test_what_is_cached_is_not_fetched_again(tmp_path, folder, url, downloads):
    with Blobs(tmp_path / "cache") as blobs:
        source = blobs.open(url, BLOB.data)
        for offset in range(0, len(BLOB.data), 3 * MIB):
            source.read(MIB // 2, offset, READ_TIMEOUT_MS)
        wait_for_state(start(downloads, wanted(source, BLOB.data, folder)), "local")
        assert source.stats().fetched_bytes == len(BLOB.data)


def test_a_cache_smaller_than_the_blob_does_not_matter(tmp_path, folder, url, downloads):
    with Blobs(tmp_path / "cache", limit_bytes=MIB) as blobs:
        source = blobs.open(url, BLOB.data)
        wait_for_state(start(downloads, wanted(source, BLOB.data, folder)), "local")
        assert source.stats().fetched_bytes == len(BLOB.data)
        assert blobs.cache.stats().evicted == 0, "what nobody reads drove out what somebody had read"


def test_a_blob_that_two_images_want_comes_once(tmp_path, folder, url, downloads):
    with Blobs(tmp_path / "cache") as blobs:
        sources = [blobs.open(url, BLOB.data), blobs.open(url, BLOB.data)]
        both = [start(downloads, wanted(source, BLOB.data, folder)) for source in sources]
        for download in both:
            wait_for_state(download, "local")
        assert all(source.stats().is_local for source in sources)
        assert sum(source.stats().fetched_bytes for source in sources) == len(BLOB.data)


def test_each_of_two_folders_gets_the_blob_that_two_images_share(tmp_path, url, downloads, caplog):
    folders = [tmp_path / "one", tmp_path / "two"]
    with Blobs(tmp_path / "cache", limit_bytes=MIB) as blobs:
        source = blobs.open(url, BLOB.data)
        both = [start(downloads, wanted(source, BLOB.data, folder)) for folder in folders]
        for download in both:
            wait_for_state(download, "local")
    assert all((folder / COMMIT_NAME).read_bytes() == BLOB.data for folder in folders)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_file_that_somebody_else_has_put_there_is_checked_and_used(tmp_path, folder, url, downloads):
    folder.mkdir()
    (folder / COMMIT_NAME).write_bytes(BLOB.data)
    with Blobs(tmp_path / "cache") as blobs:
        source = blobs.open(url, BLOB.data)
        wait_for_state(start(downloads, wanted(source, BLOB.data, folder)), "local")
        assert source.stats().fetched_bytes == 0


def test_a_wrong_file_in_the_way_is_left_alone_and_not_used(tmp_path, folder, url, downloads):
    folder.mkdir()
    wrong = bytes(len(BLOB.data))
    (folder / COMMIT_NAME).write_bytes(wrong)
    with Blobs(tmp_path / "cache") as blobs:
        source = blobs.open(url, BLOB.data)
        download = start(downloads, wanted(source, BLOB.data, folder))
        wait_for_state(download, "failed")
        assert "in the way" in download.progress().reason
        assert source.read(100, 0, READ_TIMEOUT_MS) == BLOB.data[:100]
    assert (folder / COMMIT_NAME).read_bytes() == wrong


def test_nothing_is_downloaded_unless_that_is_enabled(tmp_path, folder, url):
    disabled = Downloads(config(enable=False), free_floor=0)
    with Blobs(tmp_path / "cache") as blobs:
        blob = wanted(blobs.open(url, BLOB.data), BLOB.data, folder)
        assert disabled.start("image", [blob]) is None
        own = disabled.start("image", [blob], config())  # the image's own configuration
        assert own is not None
        wait_for_state(own, "local")
        assert disabled.close(20)


# ---- who goes first, and how fast ----------------------------------------------------------


def test_the_limit_is_kept(tmp_path, folder, url, capsys):
    limited = Downloads(config(max_mbps=4), free_floor=0)
    with Blobs(tmp_path / "cache") as blobs:
        source = blobs.open(url, BLOB.data)
        download = start(limited, wanted(source, BLOB.data, folder))
        wait_until(lambda: source.stats().fetched_bytes > 0, "a byte")
        began = time.monotonic()
        wait_for_state(download, "local")
        elapsed = time.monotonic() - began
        with capsys.disabled():
            print(f"\n  8 MiB at 4 MiB/s: {elapsed:.2f} s")
        assert elapsed >= 1.4, "all but the first step of 1 MiB, and a margin"
        assert limited.close(20)


def test_a_reader_is_not_queued_behind_the_download_of_a_narrow_line(
    tmp_path, folder, url, open_registry, downloads, capsys
):
    with NarrowLine(open_registry.port, 2 * MIB) as line, Blobs(tmp_path / "cache") as blobs:
        source = blobs.open(url.replace(open_registry.host, line.host), BLOB.data)
        download = start(downloads, wanted(source, BLOB.data, folder))
        wait_until(lambda: source.stats().fetched_bytes > 0, "a byte")
        waits = []
        for chunk in (100, 70, 120, 90, 110):
            began = time.monotonic()
            assert (
                source.read(4096, chunk * CHUNK_SIZE, READ_TIMEOUT_MS)
                == BLOB.data[chunk * CHUNK_SIZE :][:4096]
            )
            waits.append(time.monotonic() - began)
        is_over = download.progress().state == "local"
        with capsys.disabled():
            print("\n  reads during a download, ms:", *(f"{1000 * wait:.0f}" for wait in waits))
        assert not is_over, "the download was over before the reads, so they tell nothing"
        assert max(waits) < 2, "the download takes 4 s on this line"
        wait_for_state(download, "local")
        assert source.stats().fetched_bytes == len(BLOB.data)


# ---- ends and failures -------------------------------------------------------------------------


def test_what_a_killed_process_has_fetched_is_not_fetched_again(tmp_path, folder, url, downloads):
    same = tmp_path / "same"
    same.write_bytes(BLOB.data)
    command = [sys.executable, "-m", "tests.remote.download_process", url, str(same), str(tmp_path)]
    with subprocess.Popen(command) as process:
        wait_until(lambda: length_of(folder / PARTIAL_NAME) >= 3 * MIB, "3 MiB")
        process.send_signal(signal.SIGKILL)
    had = length_of(folder / PARTIAL_NAME)
    assert 3 * MIB <= had < len(BLOB.data)
    with Blobs(tmp_path / "another-cache") as blobs:
        source = blobs.open(url, BLOB.data)
        wait_for_state(start(downloads, wanted(source, BLOB.data, folder)), "local")
        assert source.stats().fetched_bytes <= len(BLOB.data) - had + 256 * 1024
        assert source.read(len(BLOB.data), 0, READ_TIMEOUT_MS) == BLOB.data


def test_damage_in_what_was_resumed_is_found_and_all_comes_again(tmp_path, folder, url, downloads, caplog):
    folder.mkdir()
    (folder / PARTIAL_NAME).write_bytes(bytes(4 * MIB))  # as after a power cut
    with Blobs(tmp_path / "cache") as blobs:
        source = blobs.open(url, BLOB.data)
        wait_for_state(start(downloads, wanted(source, BLOB.data, folder)), "local")
    assert (folder / COMMIT_NAME).read_bytes() == BLOB.data
    assert "try 1 of 5 failed" in caplog.text


def test_a_blob_with_another_digest_never_takes_over(tmp_path, folder, url, caplog):
    other = bytes(len(BLOB.data))
    tries = Downloads(config(try_cnt=3), free_floor=0)
    with Blobs(tmp_path / "cache") as blobs:
        source = blobs.open(url, other)  # whoever pushed it says so
        download = start(tries, wanted(source, other, folder))
        wait_for_state(download, "failed")
        assert not source.stats().is_local
        assert "has the digest sha256:" in download.progress().reason
        assert tries.close(20)
    assert not list(folder.iterdir())
    texts = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(texts) == 3, "one sentence for each try"
    assert "try 2 of 3 failed" in texts[1]
    assert "given up" in texts[2]


def test_wrong_bytes_in_the_cache_are_fetched_again(tmp_path, folder, url, downloads, server: ScriptedServer):
    """A registry that once sent others: they are in the cache, with a right CRC."""
    server.put("/blob", BLOB.data)
    server.fault("/blob", OtherBytes())
    with Blobs(tmp_path / "cache") as blobs:
        source = blobs.open(f"http://{server.host}/blob", BLOB.data)
        assert source.read(100, 0, READ_TIMEOUT_MS) != BLOB.data[:100]
        wait_for_state(start(downloads, wanted(source, BLOB.data, folder)), "local")
        assert source.read(len(BLOB.data), 0, READ_TIMEOUT_MS) == BLOB.data


def test_a_disk_that_is_full_ends_it_with_a_sentence_and_the_image_goes_on(tmp_path, url):
    limited = Downloads(config(max_mbps=4), free_floor=0)
    with small_tmpfs(tmp_path / "small", "12m") as small, Blobs(tmp_path / "cache") as blobs:
        source = blobs.open(url, BLOB.data)
        download = start(limited, wanted(source, BLOB.data, small))
        wait_until(lambda: length_of(small / PARTIAL_NAME) > 0, "a byte")
        with (small / "of-others").open("wb") as file, pytest.raises(OSError, match="No space"):
            while True:
                file.write(bytes(64 << 10))
                file.flush()
        wait_for_state(download, "failed")
        assert "space" in download.progress().reason
        assert not (small / PARTIAL_NAME).exists(), "others need the disk"
        assert source.read(len(BLOB.data), 0, READ_TIMEOUT_MS) == BLOB.data
        assert limited.close(20)


def test_a_disk_without_the_space_is_not_begun_to_be_filled(tmp_path, folder, url):
    polite = Downloads(config(), free_floor=1 << 60)
    with Blobs(tmp_path / "cache") as blobs:
        source = blobs.open(url, BLOB.data)
        download = start(polite, wanted(source, BLOB.data, folder))
        wait_for_state(download, "failed")
        assert f"no space for {len(BLOB.data)} bytes" in download.progress().reason
        assert source.stats().fetched_bytes == 0
        assert polite.close(20)


def test_a_registry_that_is_away_for_a_while_costs_tries_but_no_bytes(tmp_path, folder, client_of, downloads):
    with DockerRegistry(tmp_path / "registry") as registry, Blobs(tmp_path / "cache") as blobs:
        source = blobs.open(pushed(client_of, registry, "t/away", BLOB), BLOB.data)
        registry.stop()
        download = start(downloads, wanted(source, BLOB.data, folder))
        wait_for_state(download, "downloading")
        registry.start()
        wait_for_state(download, "local")
        assert source.stats().fetched_bytes == len(BLOB.data)


def test_it_stops_at_once_whatever_it_does(tmp_path, url, server: ScriptedServer):
    """Waiting for its time, for the limit, for a server that hangs."""
    other = random_blob(MIB, 32)  # or the limited one would bring its chunks, too
    server.put("/blob", other.data)
    server.fault("/blob", *[Stall(0)] * 20)
    slow = Downloads(config(max_mbps=1), free_floor=0, nr_threads=3)
    with Blobs(tmp_path / "cache") as blobs:
        hanging = blobs.open(f"http://{server.host}/blob", other.data)
        later = slow.start("image", [wanted(hanging, other.data, tmp_path / "a")], config(delay=1000))
        hangs = slow.start("image", [wanted(hanging, other.data, tmp_path / "b")], config())
        limited = start(slow, wanted(blobs.open(url, BLOB.data), BLOB.data, tmp_path / "c"))
        wait_for_state(limited, "downloading")
        assert later is not None
        assert hangs is not None
        wait_until(lambda: server.count("GET", "/blob") > 0, "a request of it")
        began = time.monotonic()
        later.stop()
        hangs.stop()
        wait_for_state(later, "stopped")
        wait_for_state(hangs, "stopped")
        assert slow.close(10)
        assert limited.progress().state == "stopped"
        assert time.monotonic() - began < 5


def test_an_image_that_is_closed_before_its_download_has_ended_may_come_again(tmp_path, folder, url):
    downloads = Downloads(config(max_mbps=4), free_floor=0)
    with Blobs(tmp_path / "cache") as blobs:
        source = blobs.open(url, BLOB.data)
        first = start(downloads, wanted(source, BLOB.data, folder))
        wait_until(lambda: length_of(folder / PARTIAL_NAME) > MIB, "a part")
        first.stop()
        source.close()
        again = blobs.open(url, BLOB.data)
        wait_for_state(start(downloads, wanted(again, BLOB.data, folder)), "local")
        assert again.read(len(BLOB.data), 0, READ_TIMEOUT_MS) == BLOB.data
        assert downloads.close(20)


def test_the_partial_file_is_longer_than_the_blob_or_a_link(tmp_path):
    (tmp_path / PARTIAL_NAME).write_bytes(bytes(100))
    with PartialFile(tmp_path, 50) as file:
        file.keep_whole_units(10)
        assert file.length == 0
    (tmp_path / PARTIAL_NAME).unlink()
    (tmp_path / PARTIAL_NAME).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Exception, match="cannot be opened"):
        PartialFile(tmp_path, 50)
    assert not (tmp_path / "elsewhere").exists()


def test_hashing_ends_when_it_is_stopped(tmp_path):
    stop = threading.Event()
    stop.set()
    with PartialFile(tmp_path, 50) as file:
        file.append(memoryview(bytes(50)))
        with pytest.raises(Exception, match="stopped"):
            file.digest(stop)
