"""What opening an image reads of a blob may come wrong, or be damaged in the cache: it is fetched again."""

from __future__ import annotations

import pytest

from tcmu_overlaybd.config.image_config import ImageConfig, Lower
from tcmu_overlaybd.errors import CorruptError
from tcmu_overlaybd.formats.zfile import Codec
from tcmu_overlaybd.image.layer_writer import LayerOptions
from tcmu_overlaybd.image.open import open_image
from tests.registry.http_faults import OtherBytes
from tests.registry.images import Blob
from tests.remote.image_store import store_in
from tests.remote.remote_disk import make_layer, random_disk

SIZE = 4 << 20
PLAIN = random_disk(SIZE, 61)
READ_TIMEOUT_MS = 60_000
LIE = OtherBytes(3, step=500)  # in every header, and in every block
KINDS = {"lz4": LayerOptions(codec=Codec.LZ4, tar=True), "plain": LayerOptions()}

# Data of a plain layer has no checksums of its own: what comes wrong of it cannot be told.
HAS_CHECKSUMS = pytest.mark.parametrize("blob", [KINDS["lz4"]], ids=["lz4"], indirect=True)


@pytest.fixture(params=KINDS.values(), ids=KINDS.keys())
def blob(request, tmp_path) -> Blob:
    (tmp_path / "made").mkdir()
    return Blob(make_layer(tmp_path / "made", PLAIN, request.param).read_bytes())


@pytest.fixture
def path(blob, server) -> str:
    path = f"/v2/t/x/blobs/{blob.digest}"
    server.put(path, blob.data)
    return path


@pytest.fixture
def config(blob, server, path) -> ImageConfig:
    lower = Lower(digest=blob.digest, size=len(blob.data))
    return ImageConfig(repo_blob_url=f"{server.url}/v2/t/x/blobs", lowers=(lower,))


@HAS_CHECKSUMS
def test_an_image_opens_although_its_ends_came_wrong_once(config, server, path, tmp_path):
    server.fault(path, LIE, LIE)
    with store_in(tmp_path) as store, open_image(config, store=store) as opened:
        assert opened.image.read(SIZE, 0, READ_TIMEOUT_MS) == PLAIN


@HAS_CHECKSUMS
def test_what_always_comes_wrong_is_an_error_and_not_kept(config, server, path, tmp_path):
    server.always(path, LIE)
    with store_in(tmp_path) as store:
        with pytest.raises(CorruptError):
            open_image(config, store=store)
        server.always(path, None)
        with open_image(config, store=store) as opened:
            assert opened.image.read(SIZE, 0, READ_TIMEOUT_MS) == PLAIN


def test_an_image_opens_although_its_ends_were_damaged_since_they_came(config, blob, tmp_path):
    """By the process that has the cache open, so that it has checked them already."""
    with store_in(tmp_path) as store:
        open_image(config, store=store).close()
        damage(tmp_path / "cache/blobs" / blob.digest.removeprefix("sha256:"))
        with open_image(config, store=store) as opened:
            assert opened.image.read(SIZE, 0, READ_TIMEOUT_MS) == PLAIN


def damage(data) -> None:
    """The first and the last block of it."""
    with data.open("r+b") as file:
        for offset in (0, data.stat().st_size - 512):
            file.seek(offset)
            file.write(b"\xff" * 512)
