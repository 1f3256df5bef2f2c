"""Commands that need the daemon, where there is none; and what doctor says then."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tcmu_overlaybd.cli.device import device_name, print_columns
from tcmu_overlaybd.daemon.lock import take_lock
from tcmu_overlaybd.errors import BusyError

HAS_TCMU = Path("/sys/module/target_core_user").exists()


@pytest.fixture
def folders(tmp_path):
    return {"STATE_DIRECTORY": str(tmp_path / "state"), "RUNTIME_DIRECTORY": str(tmp_path / "run")}


@pytest.mark.parametrize(
    "command",
    [
        ["attach", "/"],
        ["attach", "--new", "--size", "1M"],
        ["detach", "d"],
        ["list"],
        ["status"],
        ["status", "d"],
        ["image", "commit", "d", "-o", "/nowhere/out"],
    ],
)
def test_command_without_a_daemon_says_how_to_start_one(program, folders, command):
    result = program(*command, env=folders)
    assert (result.returncode, result.stdout) == (4, "")
    assert result.stderr.count("\n") == 1
    assert "start it with: tcmu-overlaybd serve" in result.stderr


def test_commit_of_a_name_that_is_neither_file_nor_disk_says_both(fails, folders):
    sentence = fails(4, "image", "commit", "web", "-o", "out", env=folders)
    assert sentence.startswith("there is no file web; as a disk: ")


def test_socket_option_and_variable_choose_the_daemon(program, tmp_path):
    for more in ({"env": {"TCMU_OVERLAYBD_SOCKET": str(tmp_path / "s")}}, {}):
        options = [] if more else ["--socket", tmp_path / "s"]
        assert f"{tmp_path}/s: no daemon runs" in program("list", *options, **more).stderr


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["--size", "much"], 2, "not a size"),
        (["/x", "--mount", "/no/such/folder"], 3, "no such folder"),
        (["/x", "--mount", "/", "--fabric", "none"], 2, "no disk to mount"),
        (["/x", "--fabric", "carrier pigeon"], 2, "one of loopback"),
        ([], 2, "no image is named"),
        (["--new"], 2, "needs a size"),
        (["/x", "--new", "--size", "1G"], 2, "exclude each other"),
        (["--timeout", "0"], 2, "timeout"),
        (["/x"], 3, "/x: no such file"),
        (["/", "/etc/passwd/layer"], 3, "/etc/passwd/layer: no such file"),
    ],
)
def test_attach_that_makes_no_sense_needs_no_daemon_to_be_told(program, folders, arguments, code, sentence):
    result = program("attach", *arguments, env=folders)
    assert result.returncode == code
    assert sentence in result.stderr


@pytest.mark.skipif(HAS_TCMU, reason="this kernel has TCMU, so nothing is missing")
def test_serve_without_the_kernel_module_names_it(program, folders):
    result = program("serve", env=folders)
    assert result.returncode == 4
    assert "target_core_mod" in result.stderr
    assert "Traceback" not in result.stderr


def test_doctor_says_what_is_missing_and_the_command_that_mends_it(program, folders):
    result = program("doctor", "--json", env=folders)
    facts = {fact["name"]: fact for fact in json.loads(result.stdout)}
    assert {"root", "module target_core_user", "module tcm_loop", "configfs", "libtcmu", "daemon"} <= set(
        facts
    )
    assert result.returncode == 4
    assert not facts["daemon"]["ok"]
    assert facts["daemon"]["remedy"] == "tcmu-overlaybd serve"
    for fact in facts.values():
        assert fact["ok"] == (fact["remedy"] == "")
    text = program("doctor", env=folders).stdout
    assert "MISSING daemon" in text
    assert "mend it with: tcmu-overlaybd serve" in text


def test_device_can_be_named_by_its_disk_or_a_link_to_it():
    names = ("web", "/dev/sda", "/dev/overlaybd/web")
    assert [device_name(text) for text in names] == ["web", "sda", "web"]


def test_device_can_be_named_by_a_link_in_dev():
    link = Path(f"/dev/shm/obd-test-{os.getpid()}")
    link.symlink_to("/dev/sdq")
    try:
        assert device_name(str(link)) == "sdq"
    finally:
        link.unlink()


@pytest.mark.parametrize("command", ["detach", "status"])
def test_help_says_how_a_device_may_be_named(program, command):
    text = " ".join(program(command, "--help").stdout.split())
    for form in ("NAME", "/dev/sdX", "/dev/overlaybd/NAME"):
        assert form in text


def test_columns_are_as_wide_as_their_widest_cell(capsys):
    print_columns([("A", "B"), ("long", "x")])
    assert capsys.readouterr().out == "A     B\nlong  x\n"


def test_lock_keeps_a_second_daemon_out_and_names_the_first(tmp_path):
    us = rf"another daemon runs \(pid {os.getpid()}\)"
    with take_lock(tmp_path / "run/lock"), pytest.raises(BusyError, match=us):
        take_lock(tmp_path / "run/lock")
    take_lock(tmp_path / "run/lock").close()


def test_lock_ends_with_the_process_that_is_killed(tmp_path):
    code = f"""
import pathlib, time
from tcmu_overlaybd.daemon.lock import take_lock
lock = take_lock(pathlib.Path({str(tmp_path / "lock")!r}))
print("held", flush=True)
time.sleep(1000)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(BusyError, match=str(holder.pid)):
            take_lock(tmp_path / "lock")
        holder.send_signal(signal.SIGKILL)
    take_lock(tmp_path / "lock").close()
