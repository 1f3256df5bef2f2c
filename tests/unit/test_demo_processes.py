"""What the demo starts ends with it, however that ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from demo.processes import CommandError, run, running


def is_running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_failed_command_is_shown_with_what_it_said():
    with pytest.raises(CommandError, match=r"(?s)sh -c .*exit 3.*to stdout.*to stderr"):
        run("sh", "-c", "echo to stdout; echo to stderr >&2; exit 3")


def test_a_command_that_takes_too_long_is_a_failure_with_its_name():
    with pytest.raises(CommandError, match="sleep 60"):
        run("sleep", "60", timeout=0.1)


@pytest.mark.parametrize("how", [CommandError, KeyboardInterrupt])
def test_a_program_ends_with_the_block_that_fails(how):
    with pytest.raises(how), running("sleep", "60", output=subprocess.DEVNULL) as program:
        assert is_running(program.pid)
        raise how
    assert not is_running(program.pid)


def test_a_program_does_not_get_the_ctrl_c_of_our_terminal():
    with running("sleep", "60", output=subprocess.DEVNULL) as program:
        assert os.getpgid(program.pid) != os.getpgid(0)


def test_a_program_ends_when_the_demo_is_killed():
    demo = (
        "import subprocess, time; from demo.processes import running\n"
        "with running('sh', '-c', 'echo up; exec sleep 60', output=subprocess.PIPE) as program:\n"
        "    program.stdout.readline(); print(program.pid, flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", demo], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        assert is_running(pid)
        process.send_signal(signal.SIGKILL)
        process.wait()
    deadline = time.monotonic() + 20
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_running(pid)
