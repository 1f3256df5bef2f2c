"""A machine that shuts down with a mounted, dirty disk of a daemon that is dead: it ends in seconds.

The machine is a User-Mode Linux.  ``sync`` and the power-off of its init come after what the
unit's stop does (packaging/tcmu-overlaybd-shutdown.service), and umlrun says so when it had
to end a guest that did not power off.
"""

from __future__ import annotations

import shutil
import time

import pytest
from power_machine import start_machine

STAYS = "the guest does not power off"

pytestmark = [
    pytest.mark.skipif(shutil.which("linux.uml") is None, reason="needs User-Mode Linux"),
    pytest.mark.timeout(300),
]


def shut_down(*last_words: str) -> tuple[str, float]:
    """What was said, and the seconds from the end of the guest's work to the end of the guest."""
    machine = start_machine("shutdown_guest.py", *last_words, disks=())
    said, begun = [], time.monotonic()
    for line in machine.stdout:
        said.append(line)
        if line == "shutting down\n":
            begun = time.monotonic()
    machine.wait(60)
    return "".join(said), time.monotonic() - begun


def test_with_a_dirty_disk_and_no_daemon_it_ends_in_seconds():
    said, took = shut_down("abandon")
    print(f"the machine was off after {took:.1f} s")
    assert "shutting down" in said
    assert "all I/O to our disks fails" in said
    assert STAYS not in said, said


def test_with_a_daemon_it_ends_in_seconds_too():
    said, took = shut_down("abandon", "alive")
    print(f"the machine was off after {took:.1f} s")
    assert "a daemon runs" in said
    assert STAYS not in said, said


def test_without_what_the_unit_does_it_would_hang():
    """So the first test tries something."""
    said, _ = shut_down("nothing")
    assert "shutting down" in said
    assert STAYS in said, said
