"""The command line itself: exit codes, one sentence, no traceback, help without the extension."""

from __future__ import annotations

import errno
import json
import subprocess
import sys

import pytest

from tcmu_overlaybd import cli, errors
from tcmu_overlaybd.cli import COMMANDS, os_error_sentence, report

CODES = {
    errors.UsageError: 2,
    errors.FailedError: 1,
    errors.BusyError: 1,
    errors.NoSpaceError: 1,
    errors.ReadOnlyError: 1,
    errors.JournalError: 1,
    errors.LimitError: 1,
    errors.RefusedError: 1,
    errors.AuthenticationError: 1,
    errors.MissingError: 3,
    errors.UnavailableError: 4,
    errors.TimeoutExpiredError: 4,
    errors.TransientError: 4,
    errors.KilledError: 4,
    errors.CorruptError: 5,
    errors.FormatError: 5,
}


def all_errors() -> set[type[errors.OverlayBDError]]:
    found, queue = set(), [errors.OverlayBDError]
    while queue:
        kinds = queue.pop().__subclasses__()
        queue += kinds
        found |= {kind for kind in kinds if kind.__module__ == "tcmu_overlaybd.errors"}
    return found


def test_every_error_has_its_exit_code():
    assert all_errors() == set(CODES)


@pytest.mark.parametrize(("kind", "code"), CODES.items(), ids=lambda value: getattr(value, "__name__", value))
def test_an_error_becomes_one_sentence_and_its_code(kind, code, capsys):
    assert report(kind("the thing: went\nwrong")) == code
    assert capsys.readouterr().err == "tcmu-overlaybd: the thing: went wrong\n"


@pytest.mark.parametrize(
    ("number", "code"), [(errno.ENOSPC, 1), (errno.EACCES, 1), (errno.ENOENT, 3), (errno.ENOTDIR, 3)]
)
def test_an_error_of_the_system_names_the_file(number, code, capsys):
    error = OSError(number, "why", "/some/file")
    assert report(error) == code
    assert capsys.readouterr().err == "tcmu-overlaybd: /some/file: why\n"
    assert os_error_sentence(OSError(number, "why")) == "why"


def test_a_fault_of_ours_is_a_sentence_too(capsys):
    assert report(KeyError("x")) == 1
    assert "a fault in tcmu-overlaybd itself: KeyError" in capsys.readouterr().err


def test_help_lists_every_command_and_needs_no_extension():
    code = "import sys; from tcmu_overlaybd.cli import main; main(['--help']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for name in COMMANDS:
        assert f"\n  {name} " in done.stdout
    loaded = set(done.stdout.splitlines()[-1].split())
    assert not loaded & {"tcmu_overlaybd.native._binding", "msgspec", "rich", "tcmu_overlaybd.cli.image"}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name, program):
    done = program(name, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: tcmu-overlaybd")


def test_version(program):
    done = program("--version")
    assert done.stdout.split()[-1] == cli.__version__


@pytest.mark.parametrize(
    "arguments",
    [[], ["nonsense"], ["image"], ["image", "export"], ["layer", "info"], ["image", "info", "--nope", "x"]],
)
def test_wrong_usage_is_2(arguments, program):
    done = program(*arguments)
    assert done.returncode == 2
    assert "Usage: tcmu-overlaybd" in done.stderr + done.stdout


def test_nobody_reading_stdout_is_no_traceback(vectors):
    command = f"{sys.executable} -m tcmu_overlaybd image info {vectors}/stack3-raw.config.v1.json | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stderr == ""


def test_shell_completion_knows_the_commands(program):
    env = {"_TCMU_OVERLAYBD_COMPLETE": "bash_complete", "COMP_WORDS": "tcmu-overlaybd im", "COMP_CWORD": "1"}
    code = "import sys; from tcmu_overlaybd.cli import main; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=env)
    assert done.stdout.split() == ["plain,image"]


def test_verbose_shows_where_a_failure_came_from(program):
    done = program("-vv", "image", "info", "/nowhere/x")
    assert done.returncode == 3
    assert "MissingError" in done.stderr


def test_json_is_json(vectors, program):
    value = json.loads(program("layer", "info", "--json", vectors / "stack/l3.lz4.tar").stdout)
    assert (value["kind"], value["tar"]["form"], value["zfile"]["codec"]) == ("committed", "pax", "lz4")
