"""The tar wrapper that makes a layer blob a legal OCI layer (spec/tar.md).

A wrapped layer is a tar with the one file ``overlaybd.commit``.  Two forms are read:

    pax    block 0  header of type 'x', its records in
           block 1  "<length> size=<payload bytes>\\n", zero-filled
           block 2  header of the file
           byte 1536  the payload, zeros up to 512, two zero blocks
    ustar  block 0  header of the file, as Go's archive/tar writes it
           byte 512   the payload, zeros up to 512, zero blocks

More zero blocks may follow: some writers leave them.
The pax form is written, the same bytes as the reference's.  Fields of a header:

    offset  size  field
         0   100  name
       100     8  mode          octal text, in the pax form with the file type bits
       108     8  uid, then gid
       124    12  size          0 in the pax form's file header
       136    12  mtime
       148     8  checksum      octal sum of all 512 bytes, itself taken as 8 spaces
       156     1  type          '0' or NUL a file, 'x' pax records
       257     6  magic         "ustar" NUL
       263     2  version       "00"
       265    32  owner's name, then the group's
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tcmu_overlaybd.errors import CorruptError, FormatError

BLOCK_SIZE = 512
PAX_PAYLOAD_OFFSET = 3 * BLOCK_SIZE
END_SIZE = 2 * BLOCK_SIZE
# What has to be read of a file for detect().
START_SIZE = PAX_PAYLOAD_OFFSET

PAX_NAME = b"overlaybd.pax"
FILE_NAME = b"overlaybd.commit"
UNFINISHED_NAME = b"overlaybd.new"
FILE_MODE = 0o100644

_MAGIC = slice(257, 262)
_VERSION = slice(263, 265)
_CHECKSUM = slice(148, 156)
_SIZE = slice(124, 136)
_TYPE = 156
_RECORD = re.compile(rb"(\d+) ([^=\n]+)=([^\n]*)\n")


@dataclass(frozen=True)
class Payload:
    """Where the layer lies in its wrapper, bytes."""

    offset: int
    size: int
    form: str  # "pax" or "ustar"


def is_tar(start: bytes) -> bool:
    """Whether the first block calls itself a ustar header; its checksum may be wrong."""
    return len(start) >= BLOCK_SIZE and start[_MAGIC] == b"ustar" and start[_VERSION] == b"00"


def detect(start: bytes, file_size: int, name: str) -> Payload | None:
    """The payload of a file that begins with start (its first START_SIZE bytes or all of it).

    None when it is no tar.  CorruptError when it is one, but damaged or cut short; the
    reference does not miss the end mark, but a file without one has lost its end.
    """
    if not is_tar(start):
        _refuse_unfinished(start, name)
        return None
    where = f"{name}: tar header"
    _check_header(start[:BLOCK_SIZE], where)
    if start[_TYPE : _TYPE + 1] == b"x":
        payload = Payload(PAX_PAYLOAD_OFFSET, _pax_size(start, name), "pax")
    else:
        payload = Payload(BLOCK_SIZE, _file_size(start[:BLOCK_SIZE], where), "ustar")
    end = end_offset(payload) + END_SIZE
    if file_size < end:
        raise CorruptError(
            f"{where}: {payload.size} bytes of payload at {payload.offset} and its end mark"
            f" make {end} bytes, the file has {file_size}: it is cut short"
        )
    return payload


def build_start(payload_size: int) -> bytes:
    """The 1536 bytes in front of a payload of payload_size bytes."""
    record = _pax_record(payload_size)
    pax = _header({0: PAX_NAME, 124: b"%11o " % len(record), _TYPE: b"x"})
    file = _header(
        {
            0: FILE_NAME,
            100: b"%6o \0" % FILE_MODE,
            108: b"%6o \0" % 0,
            116: b"%6o \0" % 0,
            124: b"%11o " % 0,
            136: b"%11o " % 0,
            _TYPE: b"0",
            265: b"root",
            297: b"root",
        }
    )
    return pax + record.ljust(BLOCK_SIZE, b"\0") + file


def end_offset(payload: Payload) -> int:
    """Where the two zero blocks behind a payload begin; ours end END_SIZE later."""
    return -(-(payload.offset + payload.size) // BLOCK_SIZE) * BLOCK_SIZE


def _header(fields: dict[int, bytes]) -> bytes:
    block = bytearray(BLOCK_SIZE)
    for offset, value in {**fields, 257: b"ustar\0", 263: b"00", 148: b" " * 8}.items():
        block[offset : offset + len(value)] = value
    block[_CHECKSUM] = b"%6o \0" % sum(block)
    return bytes(block)


def _pax_record(payload_size: int) -> bytes:
    """``15 size=336464\\n``: the length counts the whole record, its own digits too."""
    body = b" size=%d\n" % payload_size
    length = len(body) + 1
    while len(b"%d" % length) + len(body) != length:
        length += 1
    return b"%d" % length + body


def _check_header(block: bytes, where: str) -> None:
    stated = _octal(block[_CHECKSUM], f"{where}: checksum")
    blank = block[:148] + b" " * 8 + block[156:]
    unsigned = sum(blank)
    signed = unsigned - 256 * sum(byte > 127 for byte in blank)
    if stated not in (unsigned, signed):
        raise CorruptError(f"{where}: its checksum is {stated}, its bytes give {unsigned}")


def _pax_size(start: bytes, name: str) -> int:
    where = f"{name}: tar pax header"
    if len(start) < PAX_PAYLOAD_OFFSET:
        raise CorruptError(f"{where}: the file ends at {len(start)}, its headers at {PAX_PAYLOAD_OFFSET}")
    length = _octal(start[_SIZE], f"{where}: size")
    if length > BLOCK_SIZE:
        raise FormatError(f"{where}: {length} bytes of records, only one block of {BLOCK_SIZE} is read")
    size = _size_record(start[BLOCK_SIZE : BLOCK_SIZE + length], where)
    file_header = start[2 * BLOCK_SIZE : PAX_PAYLOAD_OFFSET]
    if not is_tar(file_header):
        raise CorruptError(f"{where}: no file header follows it")
    _check_header(file_header, f"{name}: tar file header")
    return size or _file_size(file_header, f"{name}: tar file header")


def _size_record(records: bytes, where: str) -> int:
    """The value of the ``size`` record; 0 when there is none."""
    size = position = 0
    while position < len(records):
        match = _RECORD.match(records, position)
        if match is None or int(match[1]) != len(match[0]):
            raise CorruptError(f"{where}: the record at byte {position} is not '<length> <key>=<value>'")
        if match[2] == b"size":
            if not match[3].isdigit() or len(match[3]) > 19:  # more than 2**63
                raise CorruptError(
                    f"{where}: size is {match[3].decode(errors='replace')!r}, not a number of bytes"
                )
            size = int(match[3])
        position = match.end()
    return size


def _file_size(header: bytes, where: str) -> int:
    if header[_TYPE : _TYPE + 1] not in (b"0", b"\0"):
        raise FormatError(
            f"{where}: entry type is {header[_TYPE : _TYPE + 1]!r}, a layer is wrapped as one plain file"
        )
    return _octal(header[_SIZE], f"{where}: size")


def _octal(field: bytes, where: str) -> int:
    text = field.split(b"\0")[0].strip(b" ")
    if not re.fullmatch(rb"[0-7]+", text):
        raise CorruptError(f"{where} is {field!r}, not an octal number")
    return int(text, 8)


def _refuse_unfinished(start: bytes, name: str) -> None:
    """The reference leaves this mark while it writes, so it means a crash in a commit."""
    if start.startswith(PAX_NAME + b"\0") and start[2 * BLOCK_SIZE :].startswith(UNFINISHED_NAME + b"\0"):
        raise CorruptError(f"{name}: an unfinished tar wrapper: the commit that wrote it was interrupted")
