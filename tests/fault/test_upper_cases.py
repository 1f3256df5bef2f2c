"""Uppers as they are met in life: held, copied, torn, on a full disk. With real files and processes."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from image_process import SECTOR, ImageProcess, make_pair
from small_disk import small_ext4, small_tmpfs

from tcmu_overlaybd.errors import (
    BusyError,
    CorruptError,
    JournalError,
    MissingError,
    NoSpaceError,
    ReadOnlyError,
)
from tcmu_overlaybd.native.source import crc32c

SIZE = 64 << 20
GARBAGE = random.Random(1).randbytes(100)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "upper"
    folder.mkdir()
    make_pair(folder, SIZE)
    return folder


def leave_unflushed(folder: Path) -> None:
    """One flushed write, one that was only acknowledged, and no process any more."""
    with ImageProcess(folder) as process:
        process.write(0, b"a" * SECTOR)
        process.flush()
        process.write(SECTOR, b"b" * SECTOR)
        process.kill()


def test_held_upper_names_who_holds_it(folder):
    with ImageProcess(folder, holder="the daemon") as first:
        for read_only in (False, True):
            with pytest.raises(BusyError, match=rf"held by the daemon, pid {first.pid}"):
                ImageProcess(folder, read_only=read_only)
    with ImageProcess(folder) as second:  # a killed process holds nothing
        second.close()


def test_tools_read_together_and_keep_writers_out(folder):
    with ImageProcess(folder, read_only=True) as first, ImageProcess(folder, read_only=True):
        with pytest.raises(BusyError, match="while another process reads it"):
            ImageProcess(folder)
        first.close()


def test_copied_upper_is_refused_until_its_journal_is_dropped(folder, tmp_path):
    leave_unflushed(folder)
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    for read_only in (False, True):
        with pytest.raises(JournalError, match=r"is .* a copy"):
            ImageProcess(copy, read_only=read_only)
    with ImageProcess(copy, drop_unflushed=True) as process:
        assert process.read(0, 2 * SECTOR) == b"a" * SECTOR + bytes(SECTOR)
        process.close()
    with ImageProcess(folder) as process:  # and the original has it all
        assert process.read(0, 2 * SECTOR) == b"a" * SECTOR + b"b" * SECTOR
        process.close()


def test_upper_that_is_moved_keeps_its_journal(folder, tmp_path):
    leave_unflushed(folder)
    moved = folder.rename(tmp_path / "moved")
    with ImageProcess(moved) as process:
        assert process.read(SECTOR, SECTOR) == b"b" * SECTOR
        process.close()


def test_cleanly_closed_upper_can_be_copied(folder, tmp_path):
    with ImageProcess(folder) as process:
        process.write(0, b"a" * SECTOR)
        process.close()
    copy = shutil.copytree(folder, tmp_path / "copy")
    assert sorted(path.name for path in copy.iterdir()) == ["data", "index"]
    with ImageProcess(copy) as process:
        assert process.read(0, SECTOR) == b"a" * SECTOR
        process.close()


def test_journal_of_another_upper_is_refused_and_kept(folder, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    make_pair(other, SIZE)
    leave_unflushed(other)
    shutil.copy(other / "index.journal", folder / "index.journal")
    before = (folder / "index.journal").read_bytes()
    with pytest.raises(JournalError, match="another UUID"):
        ImageProcess(folder)
    assert (folder / "index.journal").read_bytes() == before
    with ImageProcess(folder, drop_unflushed=True) as process:
        assert process.read(0, 2 * SECTOR) == bytes(2 * SECTOR)
        process.close()


@pytest.mark.parametrize("length", [0, 100, 4096, 4096 + 64 * 64 - 1])
def test_torn_journal_is_laid_aside_and_what_was_flushed_is_there(folder, length):
    leave_unflushed(folder)
    os.truncate(folder / "index.journal", length)
    with ImageProcess(folder) as process:
        assert process.read(0, SECTOR) == b"a" * SECTOR
        process.close()
    assert (folder / "index.journal.damaged").stat().st_size == length


def test_torn_journal_is_refused_and_kept_where_nothing_may_be_lost(folder):
    """As the daemon opens a disk that it takes up again: a file system is mounted on it."""
    leave_unflushed(folder)
    os.truncate(folder / "index.journal", 4096)
    with pytest.raises(JournalError, match="shorter than its slots"):
        ImageProcess(folder, lose_nothing=True)
    assert (folder / "index.journal").stat().st_size == 4096
    with ImageProcess(folder, lose_nothing=True, drop_unflushed=True) as process:
        assert process.read(0, 2 * SECTOR) == b"a" * SECTOR + bytes(SECTOR)
        process.close()


def test_replay_stops_at_a_torn_record_and_says_how_many_were_behind_it(folder):
    with ImageProcess(folder) as process:
        for number in range(5):
            process.write(number * SECTOR, bytes([number + 1]) * SECTOR)
        process.kill()
    with (folder / "index.journal").open("r+b") as file:
        file.seek(4096 + 4 * 64 + 10)  # record 4
        file.write(b"\xff")
    with ImageProcess(folder) as process:
        assert process.read(0, 5 * SECTOR) == b"".join(bytes([byte]) * SECTOR for byte in (1, 2, 3, 0, 0))
        assert (process.stats().replayed, process.stats().dropped_writes) == (3, 1)
        process.close()


def test_journal_before_a_reboot_is_empty(folder):
    leave_unflushed(folder)
    path = folder / "index.journal"
    header = bytearray(path.read_bytes()[:180])
    header[16] ^= 1
    header[176:] = crc32c(bytes(header[:176]), 0).to_bytes(4, "little")
    with path.open("r+b") as file:
        file.write(header)
    with ImageProcess(folder) as process:
        assert process.read(0, 2 * SECTOR) == b"a" * SECTOR + bytes(SECTOR)
        process.close()


def test_full_journal_makes_writers_wait_for_a_flush_and_no_longer(folder):
    with ImageProcess(folder, journal_slots=2) as process:
        for number in range(100):
            process.write(number * SECTOR, bytes([number + 1]) * SECTOR)
        assert process.stats().nr_flushes > 10
        process.kill()
    with ImageProcess(folder) as process:
        assert process.read(99 * SECTOR, SECTOR) == bytes([100]) * SECTOR
        process.close()


@pytest.mark.parametrize("tail", [b"torn", bytes(40), GARBAGE], ids=["torn", "zeros", "garbage"])
def test_what_cannot_be_an_entry_at_the_end_of_the_index_is_dropped(folder, tail):
    with ImageProcess(folder) as process:
        process.write(0, b"a" * SECTOR)
        process.close()
    with (folder / "index").open("ab") as file:
        file.write(tail)
    with ImageProcess(folder) as process:
        assert process.read(0, SECTOR) == b"a" * SECTOR
        assert process.stats().dropped_bytes == len(tail)
        process.close()
    assert (folder / "index").stat().st_size == 4096 + 16


def test_entry_whose_data_was_cut_off_is_corrupt_when_it_was_flushed(folder):
    with ImageProcess(folder) as process:
        process.write(0, b"a" * SECTOR)
        process.write(SECTOR, b"b" * SECTOR)
        process.close()
    os.truncate(folder / "data", 4096 + SECTOR + 100)
    with pytest.raises(CorruptError, match=r"entry 1: its data is at sectors 9 to 10.*--drop-unflushed"):
        ImageProcess(folder)
    with ImageProcess(folder, drop_unflushed=True) as process:
        assert process.read(0, 2 * SECTOR) == b"a" * SECTOR + bytes(SECTOR)
        process.close()


def test_missing_index_is_an_error_that_says_what_was_lost_and_is_not_made_anew(folder):
    with ImageProcess(folder) as process:
        process.write(0, b"a" * SECTOR)
        process.close()
    (folder / "index").unlink()
    for options in ({}, {"read_only": True}, {"drop_unflushed": True}):
        with pytest.raises(
            MissingError, match=rf"/index: no such file; where .* the {SECTOR} bytes in .*/data"
        ):
            ImageProcess(folder, **options)
    assert not (folder / "index").exists()


def test_missing_index_of_an_upper_that_was_never_written_is_no_loss(folder):
    (folder / "index").unlink()
    with pytest.raises(MissingError, match="/data holds nothing: remove it, and make a new upper"):
        ImageProcess(folder)


def test_failed_sync_is_remembered_at_the_next_start(folder):
    with ImageProcess(folder) as process:
        process.write(0, b"a" * SECTOR)
        process.flush()
        process.write(0, b"b" * SECTOR)
        process.fault("/data", "sync", 1, 5)
        with pytest.raises(Exception, match="Input/output error"):
            process.flush()
        with pytest.raises(ReadOnlyError, match="Input/output error"):
            process.write(0, b"c" * SECTOR)
        assert process.read(0, SECTOR) == b"a" * SECTOR
        process.kill()
    with ImageProcess(folder) as process:
        with pytest.raises(ReadOnlyError, match="failed earlier"):
            process.write(0, b"c" * SECTOR)
        assert process.read(0, SECTOR) == b"a" * SECTOR
        process.close()


# ---- a disk that is really full ----


@pytest.fixture(params=["tmpfs", "ext4"])
def small_disk(request, tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB, on which a whole step of 16 MiB is soon no longer to be had."""
    folder = tmp_path / "small"
    disk = small_tmpfs(folder, "24m") if request.param == "tmpfs" else small_ext4(folder, 24 << 20)
    with disk:
        yield folder


def fill(process: ImageProcess, written: dict[int, int]) -> None:
    """Writes 256 KiB each until the disk is full."""
    for number in range(SIZE >> 18):
        process.write(number << 18, bytes([number + 1]) * (256 << 10))
        written[number] = number + 1


def test_full_disk_fails_the_write_that_met_it_and_loses_nothing(small_disk):
    make_pair(small_disk, SIZE)
    written: dict[int, int] = {}
    with ImageProcess(small_disk, journal_slots=1024) as process:
        with pytest.raises(NoSpaceError, match="No space left on device"):
            fill(process, written)
        assert len(written) > 60  # it went on in small steps to the very end
        process.discard(0, 256 << 10)  # still possible: its place in the index is small
        written[0] = 0
        process.flush()
        for number, byte in written.items():
            assert process.read(number << 18, 256 << 10) == bytes([byte]) * (256 << 10)
        process.kill()
    with ImageProcess(small_disk, journal_slots=16) as process:
        assert not process.stats().is_failed
        for number, byte in written.items():
            assert process.read(number << 18, 256 << 10) == bytes([byte]) * (256 << 10)
        process.close()
