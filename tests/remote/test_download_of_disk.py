"""A disk whose layers become local files under load, and which then needs no registry."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from tcmu_overlaybd.config.download_config import DownloadConfig
from tcmu_overlaybd.config.image_config import ImageConfig
from tcmu_overlaybd.config.service_config import DeviceConfig
from tcmu_overlaybd.daemon.served_image import ServedImage
from tcmu_overlaybd.image.lowers import whole_blobs
from tcmu_overlaybd.image.open import open_image
from tcmu_overlaybd.image.source import resolve_source
from tcmu_overlaybd.native.cache import CachedSource
from tcmu_overlaybd.native.core import Core
from tcmu_overlaybd.nbd.service import serve_image
from tcmu_overlaybd.remote.download import Downloads
from tcmu_overlaybd.remote.partial_file import COMMIT_NAME
from tests.registry.docker_registry import DockerRegistry
from tests.registry.images import push_image
from tests.remote.downloading import config, wait_for_state, wait_until
from tests.remote.image_store import make_stack, store_in

NR_LAYERS = 3
LAYER_BYTES = 12 << 20
SOAK = os.environ.get("OBD_SOAK") == "1"


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    return make_stack(tmp_path_factory.mktemp("stack"), NR_LAYERS, LAYER_BYTES)


@contextmanager
def registry_with(stack, folder: Path, client_of) -> Iterator[tuple[DockerRegistry, str]]:
    """One that may be stopped, and the name of the image in it."""
    with DockerRegistry(folder / "registry") as registry:
        push_image(client_of(registry.host), "t/disk", stack[0])
        yield registry, f"{registry.host}/t/disk:latest"


def with_folders(image: ImageConfig, folder: Path) -> ImageConfig:
    """As a snapshotter writes it: a ``dir`` for each lower."""
    lowers = [
        msgspec.structs.replace(lower, dir=str(folder / f"lower-{n}")) for n, lower in enumerate(image.layers)
    ]
    return msgspec.structs.replace(image, lowers=tuple(lowers))


def whole_sha256(opened) -> str:
    return hashlib.sha256(opened.image.read(opened.image.size, 0, 60_000)).hexdigest()


class FioOverNbd:
    """Random reads of the whole disk, until ``finish``; each is noted with its time."""

    def __init__(self, socket: Path, log: Path) -> None:
        fio = shutil.which("fio")
        if fio is None:
            pytest.skip("fio is not installed")
        if "nbd" not in subprocess.run([fio, "--enghelp"], capture_output=True, text=True, check=True).stdout:
            pytest.skip("this fio has no nbd engine")
        options = ["--name=job", "--ioengine=nbd", f"--uri=nbd+unix:///?socket={socket}", "--rw=randread"]
        options += ["--bs=4k", "--iodepth=8", "--time_based", "--runtime=600", "--output-format=json"]
        options += [f"--write_lat_log={log}", "--log_unix_epoch=1"]
        self._log = log
        self._process = subprocess.Popen([fio, *options], stdout=subprocess.PIPE, text=True)

    def finish(self) -> list[tuple[float, float]]:
        """Of every read the time when it ended, and how long it took; seconds."""
        self._process.terminate()
        text = self._process.communicate(timeout=60)[0]
        assert json.loads(text[text.index("{") :])["jobs"][0]["error"] == 0
        lines = self._log.with_name(f"{self._log.name}_clat.1.log").read_text().splitlines()
        return [(int(at) / 1e3, int(took) / 1e9) for at, took, *_ in (line.split(",") for line in lines)]


class SwitchTimes:
    """When each source was seen to be local, to a millisecond or two."""

    def __init__(self, sources: Sequence[CachedSource]) -> None:
        self.times: list[float] = []
        self._left = list(sources)
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def wait(self) -> list[float]:
        self._thread.join()
        return self.times

    def _watch(self) -> None:
        while self._left:
            time.sleep(0.001)
            gone = [source for source in self._left if source.stats().is_local]
            self.times += [time.time() for _ in gone]
            self._left = [source for source in self._left if source not in gone]


def longest_near(reads: list[tuple[float, float]], times: list[float]) -> float:
    """Seconds, of the reads that ran while a time passed, or within a tenth of a second of it."""
    near = [took for at, took in reads if any(at - took - 0.1 <= t <= at + 0.1 for t in times)]
    assert near, "fio has read nothing while the layers took over"
    return max(near)


def test_the_layers_take_over_under_fio_and_the_registry_may_go(stack, tmp_path, client_of, capsys):
    rate = 8 if SOAK else 16  # MiB a second
    downloads = Downloads(config(max_mbps=rate), free_floor=0)
    with registry_with(stack, tmp_path, client_of) as (registry, name), store_in(tmp_path / "store") as store:
        image = with_folders(resolve_source(name, store), tmp_path)
        opened = open_image(image, store=store)
        blobs = whole_blobs(opened.config, opened.layers, store)
        socket = tmp_path / "nbd.sock"
        with serve_image(opened, socket, io_timeout_ms=20_000) as server:
            fio = FioOverNbd(server.path, tmp_path / "fio")
            wait_until(lambda: opened.remote_blobs[0].stats().cached_bytes > 0, "a read of fio")
            switches = SwitchTimes([blob.source for blob in opened.remote_blobs])
            download = downloads.start("disk", blobs)
            assert download is not None
            wait_for_state(download, "local")
            switches.wait()
            registry.stop()
            assert whole_sha256(opened) == hashlib.sha256(stack[1]).hexdigest()
            reads = fio.finish()
        assert downloads.close(20)
    longest, at_switch = max(took for _, took in reads), longest_near(reads, switches.times)
    with capsys.disabled():
        text = f"the longest took {1e3 * longest:.1f} ms, {1e3 * at_switch:.1f} ms at a switch"
        print(f"\n  {len(reads)} reads by fio; {text}")
    assert at_switch < 1
    assert longest < 5, "generous: this machine does other things too"
    for number, blob in enumerate(stack[0]):
        file = tmp_path / f"lower-{number}" / COMMIT_NAME
        assert f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}" == blob.digest


def test_the_next_opening_finds_the_files_and_asks_no_registry(stack, tmp_path, client_of):
    """Those of lowers with a ``dir``, and of lowers that have none."""
    downloads = Downloads(config(), free_floor=0)
    with registry_with(stack, tmp_path, client_of) as (registry, name), store_in(tmp_path / "store") as store:
        plain = resolve_source(name, store)
        images = (with_folders(plain, tmp_path), plain)
        for image in images:
            with open_image(image, store=store) as opened:
                blobs = whole_blobs(opened.config, opened.layers, store)
                download = downloads.start("disk", blobs)
                assert download is not None
                wait_for_state(download, "local")
        registry.stop()
        for image in images:
            with open_image(image, store=store) as opened:
                assert opened.remote_blobs == []
                assert whole_sha256(opened) == hashlib.sha256(stack[1]).hexdigest()
        assert downloads.close(20)


def test_a_device_downloads_from_its_start_to_its_close(stack, tmp_path, client_of):
    downloads = Downloads(config(max_mbps=1), free_floor=0)
    with (
        registry_with(stack, tmp_path, client_of) as (_, name),
        store_in(tmp_path / "store") as store,
        Core.open() as core,
    ):
        served = ServedImage(open_image(name, store=store), core, "disk0", DeviceConfig())
        assert served.download_progress() is None
        served.start_download(downloads, store)
        progress = served.download_progress()
        assert progress is not None
        assert (progress.blobs, progress.local_blobs, progress.bytes) == (
            NR_LAYERS,
            0,
            sum(len(b.data) for b in stack[0]),
        )
        wait_until(lambda: served.download_progress().local_bytes > 0, "a byte")
        served.close(20)
        assert downloads.close(5)
        assert served.download_progress().state == "stopped"
        served.start_download(downloads, store)  # an attach that is late: nothing is begun
        assert served.download_progress().state == "stopped"


def test_the_image_has_the_last_word_on_whether_and_how(stack, tmp_path, client_of):
    downloads = Downloads(config(), free_floor=0)
    with (
        registry_with(stack, tmp_path, client_of) as (_, name),
        store_in(tmp_path / "store") as store,
        Core.open() as core,
    ):
        image = msgspec.structs.replace(resolve_source(name, store), download=DownloadConfig())
        served = ServedImage(open_image(image, store=store), core, "disk0", DeviceConfig())
        served.start_download(downloads, store)
        assert served.download_progress() is None
        served.close(20)
    assert downloads.close(5)
