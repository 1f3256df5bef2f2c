"""What a crash leaves of a snapshot, and who deals with it."""

from __future__ import annotations

import fcntl
from pathlib import Path

import msgspec
import pytest
from live_disks import LiveDisks

from tcmu_overlaybd.config.image_config import Upper, load_image_config, save_image_config
from tcmu_overlaybd.errors import BusyError
from tcmu_overlaybd.image.open import open_image
from tcmu_overlaybd.image.snapshot_intent import SnapshotIntent, intent_path, next_upper, write_intent

SIZE = 1 << 20


@pytest.fixture
def disks(tmp_path):
    with LiveDisks(tmp_path / "state") as disks:
        yield disks


def forget_the_end(disk) -> SnapshotIntent:
    """As if the daemon had died after the seal: configurations of before, and the intent."""
    after = load_image_config(disk.config)
    upper = after.writable
    assert upper is not None
    sealed = Upper(data=str(disk.upper / "data"), index=str(disk.upper / "index"))
    configs = (str(disk.config), str(disk.upper / "config.v1.json"))
    intent = SnapshotIntent(sealed, Upper(data=upper.data, index=upper.index), configs)
    for path in map(Path, configs):
        save_image_config(path, msgspec.structs.replace(after, lowers=after.layers[:-1], upper=sealed))
    write_intent(intent)
    return intent


def test_opening_for_writing_ends_the_snapshot(disks):
    disk = disks.open("a", SIZE)
    disk.write(b"1" * 4096, 0)
    disks.snapshot("a")
    disk.write(b"2" * 4096, 4096)
    before = disk.read_all()
    disks.close("a")
    intent = forget_the_end(disk)
    assert disks.reopen("a").read_all() == before
    assert not intent.path.exists()
    assert load_image_config(disk.upper / "config.v1.json").writable.data == intent.upper.data


def test_reader_sees_the_sealed_state_and_changes_nothing(disks):
    disk = disks.open("a", SIZE)
    disk.write(b"1" * 4096, 0)
    disks.snapshot("a")
    disks.close("a")
    intent = forget_the_end(disk)
    with open_image(disk.config) as opened:
        assert opened.image.read(4096, 0, 5000) == b"1" * 4096
    assert intent.path.exists()


def test_fork_leaves_the_snapshot_to_the_disk_it_is_of(disks):
    disk = disks.open("a", SIZE)
    disks.snapshot("a")
    disks.open("b", base=msgspec.structs.replace(load_image_config(disk.config), upper=None))
    disks.close("a")
    disks.close("b")
    intent = forget_the_end(disk)
    disks.reopen("b")
    assert intent.path.exists()
    disks.reopen("a")
    assert not intent.path.exists()


def test_upper_that_somebody_has_open_is_left_to_him(disks):
    disk = disks.open("a", SIZE)
    disks.snapshot("a")
    disks.close("a")
    intent = forget_the_end(disk)
    with Path(intent.sealed.data).open("rb") as owner:
        fcntl.flock(owner, fcntl.LOCK_EX)
        with pytest.raises(BusyError, match="makes a snapshot of it"):
            disks.reopen("a")
    assert intent.path.exists()
    disks.reopen("a")


def test_intent_that_came_with_a_copied_folder_is_about_the_original(disks):
    disk = disks.open("a", SIZE)
    disks.snapshot("a")
    disks.close("a")
    original = forget_the_end(disk)
    other = disks.open("b", SIZE)
    disks.close("b")
    copied = intent_path(other.upper / "data")
    copied.write_bytes(original.path.read_bytes())
    disks.reopen("b").write(b"2" * 4096, 0)
    assert original.path.exists()
    assert load_image_config(disk.config).writable.data == original.sealed.data


def test_next_upper_is_numbered_after_those_that_are_there(tmp_path):
    upper = Upper(data=str(tmp_path / "data"), index=str(tmp_path / "index"))
    first = next_upper(upper)
    assert (first.data, first.index) == (str(tmp_path / "data.1"), str(tmp_path / "index.1"))
    Path(first.index).touch()
    second = next_upper(first)
    assert (second.data, second.index) == (str(tmp_path / "data.2"), str(tmp_path / "index.2"))
    assert intent_path(Path(second.data)).name == "data.2.snapshot"
