"""One SCSI command to a disk, by the SG_IO ioctl: any opcode, and the sense as it came."""

from __future__ import annotations

import ctypes
import fcntl
import os
from dataclasses import dataclass

SG_IO = 0x2285
FROM_DEVICE, TO_DEVICE, NO_DATA = -3, -2, -1
TIMEOUT_MS = 20_000


class SgIoHeader(ctypes.Structure):
    """sg_io_hdr_t of <scsi/sg.h>."""

    _fields_ = [
        ("interface_id", ctypes.c_int),
        ("dxfer_direction", ctypes.c_int),
        ("cmd_len", ctypes.c_ubyte),
        ("mx_sb_len", ctypes.c_ubyte),
        ("iovec_count", ctypes.c_ushort),
        ("dxfer_len", ctypes.c_uint),
        ("dxferp", ctypes.c_void_p),
        ("cmdp", ctypes.c_void_p),
        ("sbp", ctypes.c_void_p),
        ("timeout", ctypes.c_uint),
        ("flags", ctypes.c_uint),
        ("pack_id", ctypes.c_int),
        ("usr_ptr", ctypes.c_void_p),
        ("status", ctypes.c_ubyte),
        ("masked_status", ctypes.c_ubyte),
        ("msg_status", ctypes.c_ubyte),
        ("sb_len_wr", ctypes.c_ubyte),
        ("host_status", ctypes.c_ushort),
        ("driver_status", ctypes.c_ushort),
        ("resid", ctypes.c_int),
        ("duration", ctypes.c_uint),
        ("info", ctypes.c_uint),
    ]


@dataclass(frozen=True)
class ScsiAnswer:
    """``sense`` is (key, asc, ascq); None when the status is GOOD."""

    status: int
    sense: tuple[int, int, int] | None
    data: bytes


def scsi(disk: str, cdb: bytes, *, read: int = 0, write: bytes = b"") -> ScsiAnswer:
    """Sends cdb, with room for read bytes of an answer, or with the bytes write."""
    data = ctypes.create_string_buffer(write or bytes(read), max(len(write) or read, 1))
    command = ctypes.create_string_buffer(cdb, len(cdb))
    sense = ctypes.create_string_buffer(64)
    header = SgIoHeader(
        interface_id=ord("S"),
        dxfer_direction=TO_DEVICE if write else FROM_DEVICE if read else NO_DATA,
        cmd_len=len(cdb),
        mx_sb_len=len(sense),
        dxfer_len=len(write) or read,
        dxferp=ctypes.addressof(data),
        cmdp=ctypes.addressof(command),
        sbp=ctypes.addressof(sense),
        timeout=TIMEOUT_MS,
    )
    fd = os.open(disk, os.O_RDWR | os.O_NONBLOCK)
    try:
        fcntl.ioctl(fd, SG_IO, header)
    finally:
        os.close(fd)
    assert header.host_status == 0, f"CDB {cdb.hex()}: host status {header.host_status:#x}"
    got = data.raw[: read - header.resid] if read else b""
    return ScsiAnswer(header.status, sense_of(sense.raw[: header.sb_len_wr]), got)


def sense_of(sense: bytes) -> tuple[int, int, int] | None:
    """Fixed format (70h): key, code, qualifier."""
    return (sense[2] & 0x0F, sense[12], sense[13]) if sense else None
