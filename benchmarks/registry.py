"""Layers in a registry, read through the cache: how fast they come, and what it costs when they are there.

``curl`` fetches the same blob to files, over as many connections.  Both sides write to
the same disk and remove what they wrote before the next turn.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import tempfile
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import images
from benchmarks.pairs import Result, compare
from benchmarks.reads import NR_READS, device_on, random_offsets
from tcmu_overlaybd.image.layer_file import read_layer_file
from tcmu_overlaybd.image.layer_place import FilePlace
from tcmu_overlaybd.native import mem
from tcmu_overlaybd.native.core import Core, Device
from tcmu_overlaybd.native.image import Image, Layer
from tcmu_overlaybd.native.source import Source
from tcmu_overlaybd.registry.blob_sources import BytesBlob
from tcmu_overlaybd.registry.client import RegistryClient
from tcmu_overlaybd.registry.deadline import Deadline
from tcmu_overlaybd.registry.transport import Transport
from tcmu_overlaybd.registry.upload import Uploader
from tcmu_overlaybd.remote.settings import DEFAULT_CHUNK_SIZE
from tests.registry.docker_registry import DockerRegistry
from tests.registry.images import Blob
from tests.remote.cached_blob import Blobs

COLD_GOAL = 0.8
MIB = 1 << 20
COLD_BYTES = 256 * MIB  # long enough that the first steps of read-ahead do not count for much
WARM_GOAL = 0.9
REPOSITORY = "bench/layer"
PIECE = MIB  # the largest transfer of our disks
TIMEOUT_MS = 60_000

# curl has two.  Half of ours may carry read-ahead, and a sequential reader has little else.
CURL_CONNECTIONS = 2
TRANSPORT = Transport(proxy="", connections_per_host=2 * CURL_CONNECTIONS)


@dataclass(frozen=True)
class Remote:
    """A plain layer, and where it is to be had."""

    path: Path
    blob: Blob
    url: str


def random_layer(folder: Path) -> Path:
    path = folder / "layer-cold"
    if not path.exists():
        raw = folder / "cold.raw"
        raw.write_bytes(b"".join(random.Random(i).randbytes(MIB) for i in range(COLD_BYTES // MIB)))
        images.layer_of(raw, path, None)
        raw.unlink()
    return path


@contextmanager
def pushed(path: Path) -> Iterator[Remote]:
    """The layer in a registry on loopback, gone again afterwards."""
    blob = Blob(path.read_bytes())
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(dir=path.parent))
        registry = stack.enter_context(DockerRegistry(Path(folder).resolve()))
        client = RegistryClient(registry.host, Transport(proxy=""))
        stack.callback(client.close)
        Uploader(client, REPOSITORY).upload(blob.digest, BytesBlob(blob.data), Deadline.after(60))
        yield Remote(path, blob, f"http://{registry.host}/v2/{REPOSITORY}/blobs/{blob.digest}")


@contextmanager
def cached_device(remote: Remote, folder: Path) -> Iterator[Device]:
    """A disk whose one layer comes from the registry, by way of a cache in folder."""
    layer_file = read_layer_file(FilePlace(remote.path))
    trailer, size = layer_file.trailer, layer_file.trailer.virtual_size
    with ExitStack() as stack:
        blobs = stack.enter_context(Blobs(folder, chunk_size=DEFAULT_CHUNK_SIZE, transport=TRANSPORT))
        source: Source = blobs.open(remote.url, remote.blob.data)
        layer = stack.enter_context(
            Layer.open(
                source,
                index_offset=trailer.index_offset,
                nr_entries=trailer.index_size,
                virtual_size=size,
                timeout_ms=TIMEOUT_MS,
            )
        )
        image = Image.open([layer], None, virtual_size=size, name="cached")
        core = stack.enter_context(Core.open())
        yield stack.enter_context(Device.open(core, stack.enter_context(image), name="cached"))


# ---- cold --------------------------------------------------------------------------


def cold(folder: Path, nr_pairs: int) -> Result:
    """Bytes of blob a second, from an empty cache to the last byte read and written."""
    with pushed(random_layer(folder)) as remote, tempfile.TemporaryDirectory(dir=folder) as name:
        return compare(
            f"cold layer from a registry, {PIECE >> 10} KiB sequential reads",
            lambda: _fetch(remote, Path(name), _read_all),
            lambda: _fetch(remote, Path(name), _curl),
            unit="bytes/s",
            at_least=COLD_GOAL,
            nr_pairs=nr_pairs,
        )


def _fetch(remote: Remote, folder: Path, fetch: Callable[[Remote, Path], float]) -> float:
    place = folder / "place"
    place.mkdir()
    try:
        return len(remote.blob.data) / fetch(remote, place)
    finally:
        shutil.rmtree(place)


def _read_all(remote: Remote, folder: Path) -> float:
    """Seconds; opening is not counted, because it is a handful of round trips."""
    with cached_device(remote, folder) as device:
        return _read_through(device, COLD_BYTES) / 1e9


def _read_through(device: Device, size: int) -> int:
    return mem.read_loop(device, array("Q", range(0, size, PIECE)), PIECE, 1)


def _curl(remote: Remote, folder: Path) -> float:
    """Seconds for the whole program, which starts in 10 ms; each connection has its part of the blob."""
    size = len(remote.blob.data)
    command = ["curl", "--parallel", "--no-progress-meter"]
    for i in range(CURL_CONNECTIONS):
        begin, end = size * i // CURL_CONNECTIONS, size * (i + 1) // CURL_CONNECTIONS
        command += ["--next"] * (i > 0)
        command += ["--fail", "--range", f"{begin}-{end - 1}", "--output", f"{folder}/part-{i}", remote.url]
    begin_s = time.perf_counter()
    subprocess.run(command, check=True)
    return time.perf_counter() - begin_s


# ---- warm --------------------------------------------------------------------------


def warm(folder: Path, nr_pairs: int) -> Result:
    """4 KiB random reads of a layer that is all in the cache, and of the same layer as a local file."""
    path = images.layer(folder, None)
    offsets = random_offsets()
    with (
        pushed(path) as remote,
        tempfile.TemporaryDirectory(dir=folder) as name,
        cached_device(remote, Path(name)) as cached,
        device_on(path) as local,
    ):
        _read_through(cached, images.DISK_BYTES)
        return compare(
            "warm layer in the cache, 4 KiB random reads",
            lambda: NR_READS / mem.read_loop(cached, offsets, images.BLOCK, 1) * 1e9,
            lambda: NR_READS / mem.read_loop(local, offsets, images.BLOCK, 1) * 1e9,
            unit="reads/s",
            at_least=WARM_GOAL,
            nr_pairs=nr_pairs,
            is_in_process=True,
        )
