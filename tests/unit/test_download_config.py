"""``download`` in the configuration of the service and of an image."""

from __future__ import annotations

import json

import pytest

from tcmu_overlaybd.config.download_config import MIB, DownloadConfig
from tcmu_overlaybd.config.image_config import ImageConfig, Lower, load_image_config, save_image_config
from tcmu_overlaybd.config.service_config import load_service_config
from tcmu_overlaybd.config.upper_dir import UpperDir
from tcmu_overlaybd.errors import FormatError


@pytest.fixture
def write(tmp_path):
    def write(value: object):
        path = tmp_path / "a.json"
        path.write_text(json.dumps(value))
        return path

    return write


def test_the_defaults_are_the_reference_s(write):
    config = load_service_config(write({})).download
    assert not config.enable
    assert (config.delay, config.delay_extra, config.tries, config.block_size) == (300, 30, 5, 262144)
    assert config.bytes_per_s == 100 * MIB


def test_every_key_is_heard(write):
    keys = {"enable": True, "delay": 7, "delayExtra": 2, "maxMBps": 3, "tryCnt": 4, "blockSize": 65536}
    config = load_service_config(write({"download": keys})).download
    assert (config.enable, config.tries, config.block_size, config.bytes_per_s) == (True, 4, 65536, 3 * MIB)
    assert (config.delay_s(0), config.delay_s(0.5)) == (7, 8)


def test_numbers_without_a_meaning_are_what_they_are_in_the_reference(write):
    keys = {"delayExtra": 0, "maxMBps": 0, "tryCnt": -1}
    config = load_service_config(write({"download": keys})).download
    assert config.bytes_per_s is None
    assert config.delay_s(0.5) == 300 + 15
    assert config.tries == 1


@pytest.mark.parametrize(
    ("keys", "key"), [({"delay": -1}, "delay"), ({"blockSize": 1}, "blockSize"), ({"enable": 1}, "enable")]
)
def test_a_wrong_value_is_named(write, keys, key):
    with pytest.raises(FormatError, match=f"download.{key}"):
        load_service_config(write({"download": keys}))


def test_an_image_without_a_download_of_its_own_has_none_and_writes_none(write, tmp_path):
    for text in ({}, {"download": None}):  # Go may write null
        assert load_image_config(write(text)).own_download is None
    save_image_config(tmp_path / "saved", ImageConfig())
    assert "download" not in json.loads((tmp_path / "saved").read_text())


def test_a_writable_disk_keeps_the_download_of_its_image(write, tmp_path):
    image = load_image_config(
        write({"lowers": [{"digest": "sha256:x"}], "download": {"enable": True, "delay": 1}})
    )
    folder = UpperDir(tmp_path)
    folder.save(image)
    assert folder.load().own_download == DownloadConfig(enable=True, delay=1)
    assert folder.load().layers == (Lower(digest="sha256:x"),)
