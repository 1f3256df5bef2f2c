"""Configuration files: defaults, paths, errors that name the key, writing."""

from __future__ import annotations

import json
import stat
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_disk import small_tmpfs

from tcmu_overlaybd.config.image_config import ImageConfig, Lower, Upper, load_image_config, save_image_config
from tcmu_overlaybd.config.service_config import load_service_config
from tcmu_overlaybd.config.upper_dir import same_lowers
from tcmu_overlaybd.errors import FormatError, MissingError, NoSpaceError, OverlayBDError


@pytest.fixture
def write(tmp_path):
    def write(text: str):
        path = tmp_path / "config.v1.json"
        path.write_text(text)
        return path

    return write


def test_missing_keys_are_defaults_and_unknown_ones_ignored(write):
    config = load_image_config(write('{"someThing": [1, {"x": null}], "upper": {"vsize": 20}}'))
    assert config == ImageConfig()
    assert config.writable is None


def test_null_reads_as_absent_as_go_writes_it(write):
    config = load_image_config(write('{"lowers": null, "upper": null}'))
    assert (config.layers, config.writable) == ((), None)


def test_relative_paths_are_taken_from_the_folder_of_the_file(write, tmp_path):
    config = load_image_config(
        write('{"lowers": [{"file": "a/b", "dir": "/c"}], "upper": {"data": "d", "index": "../i"}}')
    )
    assert config.layers == (Lower(file=str(tmp_path / "a/b"), dir="/c"),)
    assert config.writable == Upper(data=str(tmp_path / "d"), index=str(tmp_path / "../i"))


def test_an_upper_needs_both_paths(write):
    assert load_image_config(write('{"upper": {"data": "d", "index": ""}}')).writable is None


def test_the_trace_layer_on_top_is_no_data(write):
    config = load_image_config(
        write('{"accelerationLayer": true, "lowers": [{"file": "/a"}, {"file": "/t"}]}')
    )
    assert [lower.file for lower in config.layers] == ["/a"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"lowers": [{"file": "a"}, {"size": "x"}]}', "lowers[1].size: Expected `int`, got `str`"),
        ('{"lowers": 5}', "lowers: Expected `array | null`, got `int`"),
        ('{"upper": {"data": 1}}', "upper.data: Expected `str`, got `int`"),
        ('{"lowers": [{"size": -1}]}', "lowers[0].size: Expected `int` >= 0"),
        ("[]", "Expected `object`, got `array`"),
        ("{", "not JSON"),
        ("", "not JSON"),
        ("[" * 100_000, "config.v1.json: "),
    ],
)
def test_an_error_names_the_file_and_the_key(write, text, sentence):
    path = write(text)
    with pytest.raises(FormatError) as caught:
        load_image_config(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert sentence in str(caught.value)


@given(text=st.text(max_size=200))
def test_hostile_text_gives_errors_of_ours_only(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("config") / "x.json"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with suppress(OverlayBDError):
        load_image_config(path)


def test_a_file_that_is_not_there_is_missing(tmp_path):
    with pytest.raises(MissingError, match=r"x\.json: no such file"):
        load_image_config(tmp_path / "x.json")


def test_what_is_saved_is_private_and_reads_back(tmp_path):
    config = ImageConfig(
        lowers=(Lower(file="/a", digest="sha256:00", size=5),), upper=Upper(data="/d", index="/i")
    )
    path = tmp_path / "config.v1.json"
    save_image_config(path, config)
    assert load_image_config(path) == config
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_saved_keys_are_the_reference_s(tmp_path):
    save_image_config(tmp_path / "x.json", ImageConfig(lowers=(Lower(target_file="/t"),)))
    value = json.loads((tmp_path / "x.json").read_text())
    assert value["lowers"] == [{"targetFile": "/t"}]
    assert value["upper"] == {}
    assert {"repoBlobUrl", "resultFile"} <= value.keys()


def test_lowers_are_the_same_by_file_or_digest():
    assert same_lowers((Lower(file="/a/../b"),), (Lower(file="/b"),))
    assert not same_lowers((Lower(file="/a"), Lower(file="/b")), (Lower(file="/b"), Lower(file="/a")))
    assert same_lowers((Lower(digest="sha256:1", dir="/x"),), (Lower(digest="sha256:1", dir="/y"),))
    assert not same_lowers((Lower(digest="sha256:1"),), (Lower(digest="sha256:2"),))


def test_service_config_takes_the_new_log_keys_when_they_have_a_path(write):
    path = write('{"logLevel": 2, "logPath": "/old", "logConfig": {"logLevel": 0, "logPath": "/new"}}')
    assert load_service_config(path).log.log_path == "/new"
    assert load_service_config(write('{"logLevel": 2, "logPath": "/old"}')).log.log_level == 2


def test_service_config_names_the_wrong_key(write):
    with pytest.raises(FormatError, match=r"device\.onTimeout: Invalid enum value 'explode'"):
        load_service_config(write('{"device": {"onTimeout": "explode"}}'))


def test_what_lies_in_the_folder_is_saved_relative_and_read_absolute(tmp_path):
    config = ImageConfig(
        lowers=(Lower(file=str(tmp_path / "layers/a")), Lower(file="/elsewhere/b"), Lower(dir=str(tmp_path))),
        upper=Upper(data=str(tmp_path / "data"), index=str(tmp_path / "../index")),
    )
    save_image_config(tmp_path / "x.json", config)
    saved = json.loads((tmp_path / "x.json").read_text())
    assert saved["lowers"] == [{"file": "layers/a"}, {"file": "/elsewhere/b"}, {"dir": "."}]
    assert saved["upper"] == {"data": "data", "index": str(tmp_path / "../index")}
    assert load_image_config(tmp_path / "x.json") == config


def test_a_folder_whose_name_only_begins_alike_is_another_one(tmp_path):
    neighbour = Lower(file=f"{tmp_path}-2/a")
    save_image_config(tmp_path / "x.json", ImageConfig(lowers=(neighbour,)))
    assert load_image_config(tmp_path / "x.json").layers == (neighbour,)
    assert json.loads((tmp_path / "x.json").read_text())["lowers"] == [{"file": neighbour.file}]


def test_a_configuration_that_cannot_be_written_is_a_sentence_and_leaves_the_old_one(tmp_path):
    with small_tmpfs(tmp_path / "small", "16k") as folder:
        path = folder / "x.json"
        save_image_config(path, ImageConfig(result_file="/old"))
        with suppress(OSError):
            (folder / "filler").write_bytes(bytes(1 << 20))
        with pytest.raises(NoSpaceError, match=r"x\.json: cannot be written: No space left"):
            save_image_config(path, ImageConfig(result_file="/new"))
        assert load_image_config(path).result_file == "/old"
        assert {file.name for file in folder.iterdir()} == {"x.json", "filler"}
    with pytest.raises(MissingError, match="cannot be written"):
        save_image_config(tmp_path / "no/x.json", ImageConfig())
