"""The demo with disks of the kernel, on a few files: interrupted, it leaves neither disk nor daemon.

That it goes through is what ``make demo`` shows.
"""

from __future__ import annotations

import signal
import subprocess

from small_demo import command, make_work, processes_about
from vm_daemon import leftovers


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
