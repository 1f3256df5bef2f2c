"""A disk that becomes local while it is used: through a killed daemon, and until the registry is gone."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

import pytest
from vm_daemon import run, wait_until
from vm_fio import Fio
from vm_images import MIB, make_layer

from tests.registry.docker_registry import DockerRegistry
from tests.registry.fixtures import Clients
from tests.registry.images import Blob, push_image
from tests.remote.downloading import length_of

SIZE = 24 * MIB
SMALL_DISK = {"cache": {"freeFloor": 0}}  # of the VM


@pytest.fixture
def registry(tmp_path):
    run("ip", "link", "set", "lo", "up")
    with DockerRegistry(tmp_path / "registry") as registry:
        yield registry


@pytest.fixture
def disk(tmp_path) -> Path:
    raw = tmp_path / "disk.raw"
    raw.write_bytes(random.Random(5).randbytes(SIZE))
    return raw


def configuration(folder: Path, registry: DockerRegistry, layer: Path) -> Path:
    """As a snapshotter writes it, with a ``dir`` for the lower."""
    blob = Blob(layer.read_bytes())
    clients = Clients()
    push_image(clients(registry.host), "t/disk", [blob])
    clients.close()
    path = folder / "config.v1.json"
    lower = {"dir": str(folder / "lower"), "digest": blob.digest, "size": len(blob.data)}
    download = {"enable": True, "delay": 0, "delayExtra": 1, "maxMBps": 4}
    url = f"http://{registry.host}/v2/t/disk/blobs"
    path.write_text(json.dumps({"repoBlobUrl": url, "lowers": [lower], "download": download}))
    return path


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def test_a_download_goes_on_in_the_next_daemon_and_ends_under_load(make_daemon, registry, disk, tmp_path):
    layer = make_layer(disk)
    config = configuration(tmp_path, registry, layer)
    daemon = make_daemon(config=SMALL_DISK)
    status = daemon.attach(config, name="d")
    partial, whole = tmp_path / "lower/.download", tmp_path / "lower/overlaybd.commit"
    wait_until(lambda: length_of(partial) >= 2 * MIB, 120)
    with Fio(f"--filename={status.disk}", "--rw=randread", "--iodepth=4") as fio:
        daemon.kill()
        had = length_of(partial)
        assert 2 * MIB <= had < layer.stat().st_size
        daemon.start()
        wait_until(whole.exists, 120)
        wait_until(lambda: "is a local file now" in daemon.log(), 120)
        registry.stop()
        job = fio.finish()
    assert job["error"] == 0
    print(f"the longest read took {job['read']['clat_ns']['max'] / 1e6:.0f} ms, a restart included")
    assert whole.read_bytes() == layer.read_bytes()
    assert sha256(Path(status.disk)) == sha256(disk)
    daemon.detach("d")
    again = daemon.attach(config, name="d")
    assert sha256(Path(again.disk)) == sha256(disk)


def test_detach_ends_a_download_at_once(make_daemon, registry, disk, tmp_path):
    layer = make_layer(disk)
    config = configuration(tmp_path, registry, layer)
    daemon = make_daemon(config=SMALL_DISK)
    daemon.attach(config, name="d")
    wait_until(lambda: length_of(tmp_path / "lower/.download") > 0, 120)
    daemon.detach("d")
    assert daemon.stop() < 10
    had = length_of(tmp_path / "lower/.download")
    assert 0 < had < layer.stat().st_size
