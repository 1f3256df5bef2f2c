"""What targetcli is told of a config string before it makes a device of it."""

from __future__ import annotations

import os

import pytest

from tcmu_overlaybd.config.image_config import ImageConfig, Lower, Upper, save_image_config
from tcmu_overlaybd.daemon.config_check import DESCRIPTION, check_config
from tcmu_overlaybd.errors import OverlayBDError
from tcmu_overlaybd.image.create import create_layer
from tcmu_overlaybd.remote.settings import StoreSettings
from tcmu_overlaybd.remote.store import BlobStore

DIGEST = "sha256:" + "ab" * 32


@pytest.fixture
def verdict(tmp_path):
    """The sentence about a config string, "" when it would do."""
    with BlobStore(StoreSettings(folder=tmp_path / "cache")) as store:

        def judge(text: str) -> str:
            try:
                check_config(text, store)
            except OverlayBDError as error:
                return str(error)
            return ""

        yield judge


@pytest.fixture
def path(tmp_path):
    return tmp_path / "config.v1.json"


def of_upper(folder, **options: object) -> ImageConfig:
    create_layer(folder / "data", folder / "index", 1 << 20)
    return ImageConfig(upper=Upper(data=str(folder / "data"), index=str(folder / "index")), **options)


def test_image_whose_files_are_there_will_do(verdict, path, tmp_path):
    layer = tmp_path / "layer"
    layer.write_bytes(b"x")
    save_image_config(path, of_upper(tmp_path, lowers=(Lower(file=str(layer)),)))
    assert verdict(f"overlaybd/{path}") == ""
    assert verdict(f"overlaybd/{path};web") == ""


def test_blob_of_a_registry_is_not_asked_for(verdict, path):
    lower = Lower(digest=DIGEST, size=4096)
    save_image_config(path, ImageConfig(repo_blob_url="https://registry.example/v2/a/blobs", lowers=(lower,)))
    assert verdict(f"overlaybd/{path}") == ""


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("overlaybd/", "names no image; give PATH[;NAME]"),
        ("overlaybd", "names no image"),
        ("overlaybd/config.v1.json", "not an absolute path"),
        ("overlaybd//no/such/config.v1.json", "/no/such/config.v1.json: no such file"),
        ("overlaybd//a,b", "',' cannot stand in it"),
        ("overlaybd//a;b:c", "':' cannot stand in it"),
        ("overlaybd//" + "x" * 256, "longer than the kernel's 255 bytes"),
        ("overlaybd//tmp", "a folder; name the config.v1.json in it"),
    ],
)
def test_text_that_names_no_image_is_refused(verdict, text, sentence):
    assert sentence in verdict(text)


@pytest.mark.parametrize(
    ("json", "sentence"),
    [
        ("{", "not JSON"),
        ('{"lowers": [{"file": 7}]}', "lowers[0].file: Expected `str`, got `int`"),
        ("{}", "names neither layers nor an upper"),
        ('{"lowers": [{"file": "gone"}]}', "layer 1 of 1: {folder}/gone: no such layer file"),
        ('{"lowers": [{"file": "fifo"}]}', "layer 1 of 1: {folder}/fifo: not a regular file"),
        ('{"lowers": [{}]}', "layer 1 of 1: the configuration names neither a file, a dir nor a blob"),
        ('{"upper": {"data": "gone", "index": "gone"}}', "{folder}/gone: no such file"),
        ('{"upper": {"data": "config.v1.json", "index": "x"}}', "LSMT header is 51 bytes long"),
    ],
)
def test_configuration_that_is_no_image_is_refused_with_the_key_or_the_file(
    verdict, path, tmp_path, json, sentence
):
    os.mkfifo(tmp_path / "fifo")
    path.write_text(json)
    said = verdict(f"overlaybd/{path}")
    assert sentence.format(folder=tmp_path) in said
    assert str(path) in said or str(tmp_path) in said


def test_description_says_what_to_give_and_shows_one():
    assert DESCRIPTION.startswith("PATH[;NAME]")
    assert "Example: create " in DESCRIPTION
