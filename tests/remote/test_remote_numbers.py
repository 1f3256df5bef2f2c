"""What ``status`` says of layers that come from a registry, held against the registry's log."""

from __future__ import annotations

import msgspec
import pytest

from tcmu_overlaybd.cli.device import cached_part, show
from tcmu_overlaybd.daemon.messages import CacheStatus, DeviceStatus, RemoteLayer
from tcmu_overlaybd.daemon.remote_numbers import cache_numbers, remote_numbers
from tcmu_overlaybd.errors import OverlayBDError
from tcmu_overlaybd.image.open import open_image
from tcmu_overlaybd.registry.docker_config import DockerConfig
from tcmu_overlaybd.registry.transport import Transport
from tcmu_overlaybd.remote.settings import StoreSettings
from tcmu_overlaybd.remote.store import BlobStore
from tests.registry.docker_registry import DockerRegistry
from tests.registry.images import Blob, push_image
from tests.remote.transfer import MIB, make_layer


@pytest.fixture
def registry(tmp_path):
    with DockerRegistry(tmp_path / "registry") as running:
        yield running


@pytest.fixture
def blobs(tmp_path):
    return [Blob(make_layer(tmp_path, name, 4 * MIB).read_bytes()) for name in ("one", "two")]


@pytest.fixture
def store(tmp_path):
    settings = StoreSettings(
        folder=tmp_path / "cache",
        free_floor_bytes=0,
        transport=Transport(proxy="", connect_timeout_s=1.0),
        credentials=DockerConfig(tmp_path / "config.json"),
    )
    with BlobStore(settings) as store:
        yield store


@pytest.fixture
def opened(registry, client_of, blobs, store):
    push_image(client_of(registry.host), "r", blobs)
    with open_image(f"{registry.host}/r", store=store) as image:
        yield image


def numbers(opened) -> DeviceStatus:
    return DeviceStatus("x", "ready", **remote_numbers(opened.remote_blobs, None))


def test_a_cold_image_has_fetched_what_opening_took_and_a_read_one_all(opened, registry, blobs):
    size = sum(len(blob.data) for blob in blobs)
    cold = numbers(opened)
    assert cold.registry == (f"{registry.host}/r",)
    assert 0 < cold.bytes_cached <= cold.bytes_fetched < size
    opened.image.read(opened.image.size, 0, 30_000)
    warm = numbers(opened)
    assert [layer.digest for layer in warm.remote_layers] == [blob.digest for blob in blobs]
    assert warm.remote_layers[1].cached > cold.remote_layers[1].cached
    log = registry.log.read_text()
    in_log = sum('"GET /v2/r/blobs/' in line and '" 206 ' in line for line in log.splitlines())
    assert warm.requests == in_log
    assert warm.fetch_errors == {}


def test_chunks_that_do_not_come_are_counted_by_kind(opened, registry):
    registry.stop()
    with pytest.raises(OverlayBDError):
        opened.image.read(opened.image.size, 0, 1_000)
    failed = numbers(opened)
    assert sum(failed.fetch_errors.values()) > 0
    assert set(failed.fetch_errors) <= {"timeout", "unreachable"}


def test_the_text_of_status_says_it_and_is_silent_of_it_for_a_local_disk(opened, capsys):
    show(msgspec.to_builtins(numbers(opened)), as_json=False)
    text = capsys.readouterr().out
    assert "bytes fetched: " in text
    assert "remote layer 2 of 2:" in text
    show(msgspec.to_builtins(DeviceStatus("x", "ready")), as_json=False)
    text = capsys.readouterr().out
    assert "fetched" not in text
    assert "registry" not in text


def test_the_cache_is_closed_at_first_and_then_holds_what_the_layers_say_is_cached(store, request):
    limit = store.settings.limit_bytes
    assert cache_numbers(store) == CacheStatus(str(store.settings.folder), False, limit)
    device = numbers(request.getfixturevalue("opened"))
    cache = cache_numbers(store)
    assert (cache.is_open, cache.blobs, cache.limit_bytes) == (True, 2, limit)
    assert device.bytes_cached <= cache.used_bytes  # maps take room, too
    assert (cache.evicted, cache.damaged, cache.not_kept) == (0, 0, 0)


def test_list_says_how_much_of_the_layers_is_here():
    layer = RemoteLayer("h/r", "sha256:1", size=1000, cached=379, fetched=0, requests=0)
    local = RemoteLayer("h/r", "sha256:2", size=1000, cached=0, fetched=0, requests=0, is_local=True)
    assert cached_part(DeviceStatus("d", "ready", remote_layers=(layer,))) == "37%"
    assert cached_part(DeviceStatus("d", "ready", remote_layers=(layer, local))) == "68%"
    assert cached_part(DeviceStatus("d", "ready", remote_layers=(local,))) == "local"
    assert cached_part(DeviceStatus("d", "ready")) == "local"
