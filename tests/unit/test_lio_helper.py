"""The helper program and the module that runs it, as far as no kernel module is needed."""

import os
import stat
import time

import pytest

from tcmu_overlaybd.errors import BusyError, FailedError, TimeoutExpiredError, UnavailableError
from tcmu_overlaybd.lio import helper


@pytest.fixture
def play(tmp_path, monkeypatch):
    """Puts a shell script in the helper's place."""

    def put(script):
        program = tmp_path / "obd-lio-helper"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setattr(helper, "PROGRAM", program)

    return put


def test_helper_without_configfs_says_what_is_missing():
    with pytest.raises(UnavailableError, match=r"^/nowhere/core/user_1: make: No such file or directory$"):
        helper.run("attach", {"configfs": "/nowhere", "hba": "user_1", "name": "x"}, 5)


def test_helper_whose_folder_exists_is_busy_and_removes_nothing(tmp_path):
    (tmp_path / "core/user_1/x").mkdir(parents=True)
    with pytest.raises(BusyError, match="a backstore named x is in use"):
        helper.run("attach", {"configfs": str(tmp_path), "hba": "user_1", "name": "x"}, 5)
    assert (tmp_path / "core/user_1/x").is_dir()


def test_helper_takes_back_what_it_made_when_a_step_fails(tmp_path):
    (tmp_path / "core").mkdir()
    with pytest.raises(UnavailableError, match="control: write"):
        helper.run("attach", {"configfs": str(tmp_path), "hba": "user_1", "name": "x"}, 5)
    assert list((tmp_path / "core").iterdir()) == []


def test_helper_detach_of_what_is_not_there_is_done(tmp_path):
    helper.run("detach", {"configfs": str(tmp_path), "hba": "user_1", "name": "x", "port": "naa.1"}, 5)


def test_helper_with_an_unknown_option_fails():
    with pytest.raises(FailedError, match="no such option"):
        helper.run("attach", {"colour": "red"}, 5)


def test_helper_rescan_of_no_disk_says_so():
    with pytest.raises(UnavailableError, match="sdxyz"):
        helper.run("rescan", {"disk": "sdxyz"}, 5)


def test_report_lists_steps_and_what_was_found():
    report = helper.parse_report("done link 12\nfound disk sda\nfailed x 5\nnonsense\nfound\ndone half")
    assert report.steps == [("link", 12)]
    assert report.disk == "sda"


@pytest.mark.parametrize(
    ("code", "kind"), [(1, FailedError), (3, BusyError), (4, UnavailableError), (77, FailedError)]
)
def test_exit_code_becomes_an_exception_with_the_first_sentence(play, code, kind):
    play(f"echo first >&2; echo second >&2; exit {code}")
    with pytest.raises(kind, match=r"^first$"):
        helper.run("attach", {}, 5)


def test_late_helper_gets_a_grace_in_which_it_can_take_back(play, tmp_path):
    play(f"while [ ! -e {tmp_path}/go ]; do sleep 0.02; done; echo late >&2; exit 5")
    with pytest.raises(TimeoutExpiredError, match="late"):
        helper.run("attach", {}, 0.1, on_late=(tmp_path / "go").touch)


def test_helper_that_does_not_end_is_killed_and_named(play, monkeypatch):
    monkeypatch.setattr(helper, "GRACE_S", 0.2)
    play("exec sleep 1000")
    begun = time.monotonic()
    with pytest.raises(TimeoutExpiredError, match=r"still in the kernel .*pid (\d+)") as caught:
        helper.run("attach", {}, 0.1)
    assert time.monotonic() - begun < 60
    pid = int(str(caught.value).rpartition("pid ")[2].rstrip(")"))
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_missing_program_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr(helper, "PROGRAM", tmp_path / "absent")
    with pytest.raises(UnavailableError, match="cannot be run"):
        helper.run("attach", {}, 1)
