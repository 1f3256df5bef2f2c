"""The demo with disks of the kernel, on a few files: it leaves neither disk nor daemon behind."""

from __future__ import annotations

import signal
import subprocess

from small_demo import command, make_work, processes_about
from vm_daemon import leftovers


def test_the_demo_goes_through_and_leaves_nothing(tmp_path):
    work = make_work(tmp_path)
    done = subprocess.run(command(work, "kernel"), capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("files equal the source") == 2
    assert leftovers() == []
    assert processes_about(work) == []


def test_a_signal_while_its_disk_is_mounted_takes_all_of_it_down(tmp_path):
    work = make_work(tmp_path)
    with subprocess.Popen(command(work, "kernel"), stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if "is a disk" in line:
                demo.send_signal(signal.SIGTERM)
                break
        demo.stdout.read()
    assert demo.returncode == 130
    assert leftovers() == []
    assert processes_about(work) == []
