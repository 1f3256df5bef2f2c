"""The demo's reader of one file, against file systems that mke2fs made."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from demo.ext4_file import Ext4, Read, in_whole_blocks


def tree(folder: Path) -> Path:
    (folder / "usr/share/deep").mkdir(parents=True)
    (folder / "usr/share/deep/file").write_bytes(os.urandom(300_001))
    (folder / "usr/empty").touch()
    with (folder / "usr/holes").open("wb") as file:
        for place in range(0, 64 << 20, 1 << 20):  # more extents than an inode has room for
            file.seek(place)
            file.write(b"%d" % place)
    for number in range(2000):  # more names than fit into one block of a folder
        (folder / f"usr/share/name-{number}").write_bytes(b"%d" % number)
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return tree(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module", params=["1024", "4096"])
def disk(request, source, tmp_path_factory) -> Path:
    raw = tmp_path_factory.mktemp("disk") / f"{request.param}.raw"
    command = ["mke2fs", "-q", "-t", "ext4", "-b", request.param, "-d", source, raw, "300M"]
    subprocess.run(command, check=True)
    return raw


def reader(disk: Path, sizes: list[int] | None = None) -> Read:
    def read(size: int, at: int) -> bytes:
        assert size % 4096 == at % 4096 == 0
        if sizes is not None:
            sizes.append(size)
        with disk.open("rb") as file:
            return os.pread(file.fileno(), size, at)

    return in_whole_blocks(read)


@pytest.mark.parametrize("path", ["usr/share/deep/file", "usr/empty", "usr/holes", "usr/share/name-1999"])
def test_a_file_reads_as_it_was_written(disk, source, path):
    assert Ext4(reader(disk)).read_file(path) == (source / path).read_bytes()


def test_no_more_is_read_than_leads_to_the_file(disk):
    sizes: list[int] = []
    Ext4(reader(disk, sizes)).read_file("usr/share/deep/file")
    assert sum(sizes) < 600_000


def test_a_path_that_is_not_there_is_named(disk):
    with pytest.raises(FileNotFoundError, match="usr/share/nothing"):
        Ext4(reader(disk)).read_file("usr/share/nothing")


def test_what_is_no_file_system_is_refused():
    with pytest.raises(ValueError, match="no ext4"):
        Ext4(lambda size, _at: bytes(size))
