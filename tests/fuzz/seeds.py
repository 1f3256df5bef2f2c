"""Writes the seeds of the fuzz targets: one input for each thing that a target can do.

    python tests/fuzz/seeds.py tests/fuzz/corpus

What was found later, by fuzzing or by a bug, lies beside them under its own name.
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path

DISK_SECTORS = 4096


def cdb_10(opcode: int, lba: int, nr: int, flags: int = 0) -> bytes:
    return struct.pack(">BBIBH7x", opcode, flags, lba, 0, nr)


def cdb_16(opcode: int, lba: int, nr: int, flags: int = 0) -> bytes:
    return struct.pack(">BBQIBB", opcode, flags, lba, nr, 0, 0)


UNMAP_LIST = struct.pack(">HHI", 2 + 2 * 16, 2 * 16, 0) + struct.pack(">QII", 8, 8, 0) * 2
CDBS = {
    "read-6": (bytes([0x08, 0, 0, 4, 2]) + bytes(11), bytes(1024)),
    "read-10": (cdb_10(0x28, 8, 2), bytes(1024)),
    "read-past-the-end": (cdb_16(0x88, DISK_SECTORS - 1, 2), bytes(1024)),
    "write-16-fua": (cdb_16(0x8A, 8, 2, 8), b"w" * 1024),
    "write-with-too-few-bytes": (cdb_16(0x8A, 8, 4), b"w" * 1024),
    "verify-bytes": (cdb_16(0x8F, 8, 1, 2), b"v" * 512),
    "compare-and-write": (cdb_16(0x89, 8, 1), b"c" * 1024),
    "write-same-unmap": (cdb_16(0x93, 8, 64, 8), bytes(512)),
    "unmap": (cdb_10(0x42, 0, len(UNMAP_LIST)), UNMAP_LIST),
    "unmap-list-longer-than-its-buffer": (cdb_10(0x42, 0, len(UNMAP_LIST)), UNMAP_LIST[:20]),
    "synchronize-cache-with-a-stale-range": (cdb_16(0x91, 0, 0), b""),
    "inquiry": (bytes([0x12, 1, 0xB0, 0, 64]) + bytes(11), bytes(64)),
    "unknown-opcode": (bytes([0xC1]) + bytes(15), b""),
}


def cdb_seeds() -> dict[str, bytes]:
    return {name: struct.pack("<QB", DISK_SECTORS, 13) + cdb + data for name, (cdb, data) in CDBS.items()}


def mailbox_seeds() -> dict[str, bytes]:
    read = struct.pack("<BBH", 0, 1, 8192) + cdb_16(0x88, 0, 16)
    write = struct.pack("<BBH", 0, 2, 8192) + cdb_16(0x8A, 64, 16)
    flush = struct.pack("<BBH", 0, 3, 0) + cdb_10(0x35, 0, 0)
    inquiry = struct.pack("<BBH", 0, 4, 96) + CDBS["inquiry"][0]
    tell = bytes([4])

    def spoiled(where: int, *value: int) -> bytes:
        return b"\x01" + read[1:] + bytes([where, len(value), *value])

    return {
        "read-write-flush": read + write + flush + tell,
        "inquiry-and-an-image-that-goes": inquiry + bytes([5, 0]) + read + tell + bytes([5, 1]) + tell,
        "entry-of-no-length": spoiled(0, 0, 0, 0, 0) + tell,
        "entry-longer-than-the-ring": spoiled(0, 0xF9, 0xFF, 0xFF, 0x7F) + tell,
        "entry-of-an-unknown-operation": spoiled(0, 0x87, 0, 0, 0) + tell + read + tell,
        "more-buffers-than-fit": spoiled(8, 0xFF, 0xFF, 0xFF, 0xFF) + tell,
        "cdb-outside-the-map": spoiled(24, *[0xFF] * 8) + tell,
        "buffer-outside-the-data-area": spoiled(48, *[0xFF] * 16) + tell,
        "head-past-the-ring": read + tell + b"\x03\xff\xff\xff\x7f" + tell,
        "head-that-goes-back": read + read + tell + b"\x03\x00\x00\x00\x00" + tell,
        "tail-overwritten": read + b"\x02\x80\x00\x04\xff\xff\xff\xff" + tell + read + tell,
    }


def request(kind: int, flags: int, sector: int, length: int, payload: bytes = b"") -> bytes:
    data = bytes([len(payload)]) + payload if kind == 1 else b""
    return struct.pack("<BBHIH", 0, kind, flags, sector, length // 64) + data


def any_request(kind: int, flags: int, offset: int, length: int) -> bytes:
    return struct.pack("<BHHQI", 1, kind, flags, offset, length)


def nbd_seeds() -> dict[str, bytes]:
    """For each kind of connection that the first byte can ask for."""
    write, read, flush = request(1, 1, 8, 4096, b"abc"), request(0, 0, 8, 4096), request(3, 0, 0, 0)
    header = struct.pack(">IHHQQI", 0x25609513, 0, 0, 1, 0, 512)
    every_kind = b"".join(request(kind, 0, 16, 1024, b"x") for kind in range(9))
    return {
        "write-flush-read": b"\x00" + write + flush + read,
        "every-kind-simple": b"\x00" + every_kind,
        "every-kind-structured": b"\xff" + every_kind,
        "bad-flags": b"\x03" + request(0, 0xFFFF, 0, 512) + read,
        "odd-length": b"\x00" + request(0, 0, 1, 64) + request(1, 0, 1, 64, b"y"),
        "past-the-end": b"\x01" + any_request(0, 0, 1 << 63, 512) + any_request(4, 0, (1 << 64) - 512, 1024),
        "longest-read": b"\x01" + any_request(0, 0, 0, 32 << 20),
        "longer-than-the-longest-write": b"\x00" + any_request(1, 0, 0, 0xFFFFFFFF),
        "half-a-header": b"\x00" + b"\x02\x0e" + header[:14],
        "wrong-magic": b"\x00" + b"\x02\x1c" + b"?" + header[1:],
        "nothing-after-the-header-of-a-write": b"\x00" + any_request(1, 0, 0, 4096),
        "a-goodbye-in-the-middle": b"\x00" + write + request(2, 0, 0, 0) + read,
    }


def main(corpus: Path) -> None:
    for target, seeds in (("cdb", cdb_seeds()), ("mailbox", mailbox_seeds()), ("nbd", nbd_seeds())):
        (corpus / target).mkdir(parents=True, exist_ok=True)
        for name, content in seeds.items():
            (corpus / target / name).write_bytes(content)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
