"""Reads one file out of an ext4 file system: the blocks that lead to it, and its own.

Where nothing can be mounted this is how a first file is read from a disk of which
nothing has been fetched yet.  No more than ``mke2fs -t ext4`` makes and the demo needs:
extents, linear walks through folders, regular files; the checksums are not looked at.

As a program, run by the system's Python, which has Debian's libnbd binding:
    python3 ext4_file.py URI PATH >FILE
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Iterator

Read = Callable[[int, int], bytes]  # how many bytes, from which offset

ROOT_INODE = 2
MAGIC = 0xEF53
EXTENT_MAGIC = 0xF30A
INCOMPAT_64BIT = 0x80
FLAG_EXTENTS = 0x80000
UNWRITTEN = 0x8000  # in the length of an extent: reads as zeros


class Ext4:
    """A file system behind a function that reads."""

    def __init__(self, read: Read) -> None:
        self._read = read
        block = read(1024, 1024)
        if struct.unpack_from("<H", block, 0x38)[0] != MAGIC:
            raise ValueError("there is no ext4 file system on this disk")
        self._block_size = 1024 << struct.unpack_from("<I", block, 0x18)[0]
        self._inodes_per_group = struct.unpack_from("<I", block, 0x28)[0]
        self._inode_size = struct.unpack_from("<H", block, 0x58)[0]
        is_64bit = struct.unpack_from("<I", block, 0x60)[0] & INCOMPAT_64BIT
        self._descriptor_size = struct.unpack_from("<H", block, 0xFE)[0] if is_64bit else 32
        first_data_block = struct.unpack_from("<I", block, 0x14)[0]
        self._descriptors = (first_data_block + 1) * self._block_size

    def read_file(self, path: str) -> bytes:
        """FileNotFoundError when there is no such path."""
        number = ROOT_INODE
        for name in path.strip("/").split("/"):
            number = self._look_up(number, name, path)
        return self._content(number)

    def _look_up(self, folder: int, name: str, path: str) -> int:
        for entry, number in entries(self._content(folder)):
            if entry == name.encode():
                return number
        raise FileNotFoundError(path)

    def _content(self, number: int) -> bytes:
        inode = self._inode(number)
        low, high = struct.unpack_from("<I", inode, 0x04)[0], struct.unpack_from("<I", inode, 0x6C)[0]
        size = low | high << 32
        if not struct.unpack_from("<I", inode, 0x20)[0] & FLAG_EXTENTS:
            raise ValueError(f"inode {number} has no extents")
        content = bytearray(size)
        for first, count, start in self._extents(inode[0x28:0x64]):
            at = first * self._block_size
            length = min(count * self._block_size, size - at)
            content[at : at + length] = self._read(length, start * self._block_size)
        return bytes(content)

    def _inode(self, number: int) -> bytes:
        group, index = divmod(number - 1, self._inodes_per_group)
        descriptor = self._read(self._descriptor_size, self._descriptors + group * self._descriptor_size)
        table = struct.unpack_from("<I", descriptor, 0x08)[0]
        if self._descriptor_size >= 64:
            table |= struct.unpack_from("<I", descriptor, 0x28)[0] << 32
        return self._read(self._inode_size, table * self._block_size + index * self._inode_size)

    def _extents(self, node: bytes) -> Iterator[tuple[int, int, int]]:
        """First block within the file, how many, and where they lie; of a node and those below."""
        magic, count, _, depth = struct.unpack_from("<HHHH", node)
        if magic != EXTENT_MAGIC:
            raise ValueError("an extent node is damaged")
        for place in range(12, 12 + 12 * count, 12):
            if depth:
                low, high = struct.unpack_from("<4xIH", node, place)
                yield from self._extents(self._read(self._block_size, (low | high << 32) * self._block_size))
                continue
            first, length, high, low = struct.unpack_from("<IHHI", node, place)
            if length <= UNWRITTEN:
                yield first, length, low | high << 32


def entries(folder: bytes) -> Iterator[tuple[bytes, int]]:
    """Names and inode numbers; the blocks of a folder's hash tree look like empty entries."""
    place = 0
    while place + 8 <= len(folder):
        number, length, name_length = struct.unpack_from("<IHB", folder, place)
        if number:
            yield folder[place + 8 : place + 8 + name_length], number
        place += max(length, 8)


def in_whole_blocks(read: Read, block: int = 4096) -> Read:
    """Of a disk that is read in no smaller pieces."""

    def read_any(size: int, at: int) -> bytes:
        begin, end = at - at % block, -(-(at + size) // block) * block
        return read(end - begin, begin)[at - begin : at - begin + size]

    return read_any


def main(uri: str, path: str) -> None:
    import nbd

    handle = nbd.NBD()
    handle.connect_uri(uri)
    read = in_whole_blocks(lambda size, at: bytes(handle.pread(size, at)))
    sys.stdout.buffer.write(Ext4(read).read_file(path))
    handle.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
