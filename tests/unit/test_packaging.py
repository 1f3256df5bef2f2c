"""What packaging/ makes of the command line, and where it puts it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGING = Path(__file__).parents[2] / "packaging"
FILES = {
    "usr/share/bash-completion/completions/tcmu-overlaybd",
    "usr/share/zsh/vendor-completions/_tcmu-overlaybd",
    "usr/share/fish/vendor_completions.d/tcmu-overlaybd.fish",
    "usr/share/man/man1/tcmu-overlaybd.1",
    "usr/share/man/man1/tcmu-overlaybd-image-commit.1",
    "etc/systemd/system/tcmu-overlaybd.service",
    "etc/systemd/system/tcmu-overlaybd-shutdown.service",
    "etc/systemd/system/tcmu-overlaybd.socket",
    "etc/udev/rules.d/60-tcmu-overlaybd.rules",
    "etc/dbus-1/system.d/tcmu-overlaybd.conf",
    "etc/modules-load.d/tcmu-overlaybd.conf",
}


def run(*command: object, **environment: str) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    build, destination = tmp_path_factory.mktemp("build"), tmp_path_factory.mktemp("root")
    run(sys.executable, PACKAGING / "make-man.py", build / "man")
    run(sys.executable, PACKAGING / "make-completion.py", build / "completion")
    run(
        "bash",
        PACKAGING / "install-files.sh",
        destination,
        BUILD=str(build),
        PROGRAM="/opt/tcmu/bin/tcmu-overlaybd",
    )
    return destination


def test_everything_that_pip_does_not_install_is_installed(installed):
    found = {str(path.relative_to(installed)) for path in installed.rglob("*") if path.is_file()}
    assert found >= FILES
    assert all(path.startswith("usr/share/man/man1/") for path in found - FILES)


def test_service_runs_the_program_that_is_installed(installed):
    text = (installed / "etc/systemd/system/tcmu-overlaybd.service").read_text()
    assert "ExecStart=/opt/tcmu/bin/tcmu-overlaybd serve\n" in text


def test_shutdown_unit_abandons_the_disks_after_the_daemon_has_stopped(installed):
    text = (installed / "etc/systemd/system/tcmu-overlaybd-shutdown.service").read_text()
    assert "ExecStop=/opt/tcmu/bin/tcmu-overlaybd abandon\n" in text
    assert "Before=tcmu-overlaybd.service\n" in text


@pytest.mark.parametrize("name", ["tcmu-overlaybd", "tcmu-overlaybd-nbd", "tcmu-overlaybd-image-verify"])
def test_man_page_lists_the_exit_codes(installed, name):
    page = (installed / f"usr/share/man/man1/{name}.1").read_text()
    status = page.partition(".SH EXIT STATUS\n")[2]
    for code in ("0", "1", "2", "3", "4", "5", "130", "141"):
        assert f".B {code}\n" in status
    assert ("that of the command" in status) == name.endswith("nbd")


@pytest.fixture
def complete(installed, tmp_path):
    """What bash offers after the words of a line, the last of which is not finished."""
    program = tmp_path / "bin/tcmu-overlaybd"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m tcmu_overlaybd "$@"\n')
    program.chmod(0o755)
    script = installed / "usr/share/bash-completion/completions/tcmu-overlaybd"

    def complete(*words: str) -> set[str]:
        line = f"""
            source {script}
            compopt() {{ echo "$2"; }}
            COMP_WORDS=(tcmu-overlaybd {" ".join(words)}) COMP_CWORD={len(words)}
            _tcmu_overlaybd_completion tcmu-overlaybd
            printf '%s\\n' "${{COMPREPLY[@]}}"
        """
        path = f"{program.parent}:{os.environ['PATH']}"
        return set(run("bash", "-c", line, PATH=path).split("\n")) - {""}

    return complete


def test_bash_completes_commands_and_options(complete):
    assert complete("im") == {"image"}
    assert {"info", "export", "import", "commit", "merge", "verify"} <= complete("image", "''")
    assert complete("attach", "--drop") == {"--drop-unflushed"}
    assert complete("image", "commit", "x", "--zfile", "''") == {"lz4", "zstd"}


@pytest.mark.parametrize(
    "words",
    [("attach", "la"), ("nbd", "la"), ("image", "verify", "la"), ("image", "commit", "x", "-o", "la")],
)
def test_bash_completes_file_names_where_a_file_is_meant(complete, words):
    assert complete(*words) == {"default"}
