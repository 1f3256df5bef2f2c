"""The cache of a process that opens images: one owner, and what happens where it cannot be kept."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from tcmu_overlaybd.config.image_config import ImageConfig, Lower
from tcmu_overlaybd.errors import BusyError, FailedError
from tcmu_overlaybd.image.open import open_image
from tcmu_overlaybd.remote.engine import CLOSE_TIMEOUT_S
from tests.registry.http_faults import Delay
from tests.registry.images import push_image
from tests.registry.scripted_server import ScriptedServer
from tests.remote.image_store import make_stack, store_in
from tests.small_disk import mounted

READ_TIMEOUT_MS = 30_000


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    return make_stack(tmp_path_factory.mktemp("stack"), 2, 300_000)


@pytest.fixture
def reference(open_registry, client_of, repository, stack):
    push_image(client_of(open_registry.host), repository, stack[0])
    return f"{open_registry.host}/{repository}"


def assert_is_served(reference, store, disk: bytes) -> None:
    with open_image(reference, store=store) as opened:
        assert opened.image.read(opened.image.size, 0, READ_TIMEOUT_MS) == disk


def test_a_second_daemon_on_a_cache_is_told_who_has_it(reference, stack, tmp_path):
    with ExitStack() as stores:
        first, second = (stores.enter_context(store_in(tmp_path, has_stand_in=False)) for _ in range(2))
        assert_is_served(reference, first, stack[1])
        with pytest.raises(BusyError, match=rf"cache {tmp_path}/cache is in use by process \d+"):
            open_image(reference, store=second)
        assert_is_served(reference, first, stack[1])


def test_it_has_the_cache_when_the_first_one_has_gone(reference, stack, tmp_path):
    for _ in range(2):
        with store_in(tmp_path, has_stand_in=False) as store:
            assert_is_served(reference, store, stack[1])


def test_a_tool_beside_a_daemon_has_a_cache_that_goes_with_it(reference, stack, tmp_path, monkeypatch):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    with store_in(tmp_path, has_stand_in=False) as daemon, store_in(tmp_path) as tool:
        assert_is_served(reference, daemon, stack[1])
        assert_is_served(reference, tool, stack[1])
        assert len(list(temporary.iterdir())) == 1
    assert list(temporary.iterdir()) == []


def test_where_the_cache_is_read_only_nothing_is_kept(reference, stack, tmp_path):
    with mounted(tmp_path / "cache", "-t", "tmpfs", "-o", "ro", "none") as folder:
        with store_in(tmp_path, has_stand_in=False) as store:
            assert_is_served(reference, store, stack[1])
        assert list(folder.iterdir()) == []


def test_where_no_folder_can_be_made_a_daemon_says_so_and_a_tool_does_without(reference, stack, tmp_path):
    (tmp_path / "cache").write_text("a file is in the way")
    with store_in(tmp_path, has_stand_in=False) as daemon, pytest.raises(FailedError, match="cannot be made"):
        open_image(reference, store=daemon)
    with store_in(tmp_path) as tool:
        assert_is_served(reference, tool, stack[1])


def test_a_store_that_is_closed_while_an_image_opens_ends_that_at_once(stack, tmp_path):
    """A daemon is stopped while its registry does not answer; what is being opened gives up by itself."""
    with ScriptedServer() as server, store_in(tmp_path) as store:
        layer = stack[0][0]
        path = f"/v2/t/x/blobs/{layer.digest}"
        server.put(path, layer.data)
        server.fault(path, *[Delay(60)] * 8)
        config = ImageConfig(
            repo_blob_url=f"{server.url}/v2/t/x/blobs",
            lowers=(Lower(digest=layer.digest, size=len(layer.data)),),
        )
        with ThreadPoolExecutor(4) as pool:
            opening = [pool.submit(open_image, config, store=store) for _ in range(4)]
            while not server.count("GET", path):
                time.sleep(0.01)
            begun = time.monotonic()
            store.close()
            assert time.monotonic() - begun < CLOSE_TIMEOUT_S, "it was waited for in vain"
            for one in opening:
                with pytest.raises(FailedError):
                    one.result()
    with store_in(tmp_path, has_stand_in=False) as store, pytest.raises(FailedError, match="closed"):
        store.close()
        open_image(config, store=store)
