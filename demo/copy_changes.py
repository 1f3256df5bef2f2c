"""Writes to an NBD server the blocks in which it differs from a raw file.

Run by the system's Python, which has Debian's libnbd binding:
    python3 copy_changes.py URI RAW
"""

import sys

import nbd

BLOCK = 65536


def main(uri: str, raw: str) -> None:
    handle = nbd.NBD()
    handle.connect_uri(uri)
    size, offset = handle.get_size(), 0
    with open(raw, "rb") as file:  # noqa: PTH123 - plain on purpose
        while offset < size:
            wanted = file.read(min(BLOCK, size - offset)).ljust(min(BLOCK, size - offset), b"\0")
            if bytes(handle.pread(len(wanted), offset)) != wanted:
                handle.pwrite(wanted, offset)
            offset += len(wanted)
    handle.flush()
    handle.shutdown()


main(*sys.argv[1:])
