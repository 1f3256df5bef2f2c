"""A full disk under the daemon's state folder: nothing new, and nothing that is there gets stuck."""

from __future__ import annotations

from contextlib import suppress

import pytest
from small_disk import small_tmpfs
from vm_daemon import leftovers


@pytest.fixture
def fill(tmp_path):
    """The state folder, on a small disk; calling it leaves no room there."""
    with small_tmpfs(tmp_path / "state", "256k") as folder:

        def fill() -> None:
            with suppress(OSError):
                (folder / "filler").write_bytes(bytes(1 << 20))

        yield fill


@pytest.fixture
def daemon(fill, make_daemon):  # the disk is there before the daemon, and goes after it
    return make_daemon()


def test_attach_on_a_full_state_disk_says_so_and_leaves_nothing(daemon, fill, plain_layer):
    fill()
    result = daemon.cli("attach", plain_layer, "--name", "d")
    assert (result.returncode, result.stdout) == (1, "")
    assert "No space left" in result.stderr
    assert "a fault in the daemon" not in result.stderr
    assert daemon.client.devices() == ()
    assert leftovers() == []


def test_detach_on_a_full_state_disk_works(daemon, fill, plain_layer):
    daemon.attach(plain_layer, name="d")
    fill()
    result = daemon.cli("detach", "d")
    assert result.returncode == 0, result.stderr
    assert daemon.client.devices() == ()
    assert leftovers() == []
    assert list((daemon.folder / "state/devices").iterdir()) == []
