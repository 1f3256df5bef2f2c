"""The state folder: found again, replaced as a whole, refused when newer."""

import json
from pathlib import Path

import pytest

from tcmu_overlaybd.config.image_config import ImageConfig, Lower
from tcmu_overlaybd.daemon.folders import Folders
from tcmu_overlaybd.daemon.state import Record, State
from tcmu_overlaybd.errors import FailedError, FormatError
from tcmu_overlaybd.lio.fabric import FabricKind


def record(name: str = "disk0", **changes: object) -> Record:
    values = {
        "backstore": "disk0",
        "config_path": "/c",
        "size": 512,
        "serial": "ab",
        "hba": "user_1",
        "phase": "attached",
    }
    return Record(name=name, **{**values, **changes})


def test_records_are_found_again_by_the_next_daemon(tmp_path):
    saved = [record("a", fabric=FabricKind.NONE), record("b", source=("/x", "/y"), upper="/u")]
    state = State(tmp_path / "new/folder")
    for each in saved:
        state.save(each)
    assert State(tmp_path / "new/folder").load() == saved


def test_identity_is_made_once(tmp_path):
    assert State(tmp_path).identity == State(tmp_path).identity
    assert State(tmp_path).identity != State(tmp_path / "other").identity


def test_remove_forgets_record_and_configuration_and_keeps_the_upper(tmp_path):
    state = State(tmp_path)
    state.save(record())
    state.save_config("disk0", ImageConfig(lowers=(Lower(file="/l"),)))
    (state.uppers / "disk0").mkdir()
    state.remove("disk0")
    assert state.load() == []
    assert not state.config_path("disk0").exists()
    assert (state.uppers / "disk0").is_dir()


def test_remove_of_an_unknown_device_is_fine(tmp_path):
    State(tmp_path).remove("never")


def test_damaged_record_is_left_out_and_left_alone(tmp_path, caplog):
    state = State(tmp_path)
    state.save(record("good"))
    (state.devices / "bad.json").write_text('{"name": 5}')
    assert [each.name for each in state.load()] == ["good"]
    assert "bad.json" in caplog.text
    assert (state.devices / "bad.json").exists()


def test_folder_of_a_newer_version_is_refused(tmp_path):
    State(tmp_path)
    version = tmp_path / "version"
    version.write_text(json.dumps({**json.loads(version.read_text()), "format": 99}))
    with pytest.raises(FormatError, match="newer version"):
        State(tmp_path)


def test_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FailedError, match="state folder cannot be made"):
        State(tmp_path / "file/below")


def test_folders_of_root_are_the_systems():
    folders = Folders.choose({}, uid=0)
    assert (folders.state, folders.run) == (Path("/var/lib/tcmu-overlaybd"), Path("/run/tcmu-overlaybd"))


def test_folders_of_a_user_follow_xdg():
    folders = Folders.choose({"XDG_STATE_HOME": "/s", "XDG_RUNTIME_DIR": "/r"}, uid=1000)
    assert (folders.state, folders.run) == (Path("/s/tcmu-overlaybd"), Path("/r/tcmu-overlaybd"))


def test_folders_of_systemd_come_first():
    folders = Folders.choose({"STATE_DIRECTORY": "/a", "RUNTIME_DIRECTORY": "/b"}, uid=0)
    assert (folders.state, folders.run) == (Path("/a"), Path("/b"))
    assert folders.socket == Path("/b/control.socket")
