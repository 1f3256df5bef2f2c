"""A pair sealed while it is in use is the file that ``overlaybd-commit --seal`` makes of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tcmu_overlaybd.formats import lsmt
from tcmu_overlaybd.image.open import open_image
from tcmu_overlaybd.image.snapshot import Snapshot

VECTORS = Path(__file__).parent / "vectors"


def without_padding(sealed: bytes) -> tuple[bytes, bytes]:
    """Log and index, and the trailer: what the reference puts between is whatever lay in its memory."""
    trailer = lsmt.parse_layer_trailer(sealed[-lsmt.BLOCK_SIZE :], len(sealed), "sealed")
    return sealed[: trailer.index_offset + trailer.index_bytes], sealed[-lsmt.BLOCK_SIZE :]


@pytest.fixture
def pair_config(tmp_path):
    for name in ("rw.data", "rw.index"):
        shutil.copy(VECTORS / "rw" / name, tmp_path / name)
    path = tmp_path / "config.v1.json"
    path.write_text(json.dumps({"upper": {"data": "rw.data", "index": "rw.index"}}))
    return path


def test_seal_of_a_pair_in_use_equals_the_reference_but_for_its_stray_bytes(pair_config):
    opened = open_image(pair_config, writable=True)
    snapshot = Snapshot(opened, [pair_config])
    snapshot.prepare()
    snapshot.seal()
    snapshot.finish_seal()
    following = snapshot.stack()
    snapshot.complete()
    opened.image.close()
    following.close()
    ours = pair_config.with_name("rw.data").read_bytes()
    theirs = (VECTORS / "sealed" / "overlaybd.sealed").read_bytes()
    assert without_padding(ours) == without_padding(theirs)
    assert len(ours) == len(theirs)
    padding = ours[len(without_padding(ours)[0]) : -lsmt.BLOCK_SIZE]
    assert padding == bytes(len(padding))
