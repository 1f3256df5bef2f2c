"""MODE SENSE and MODE SELECT, 6 and 10 (SPC-4, 6.9 to 6.12; SBC-3, 6.5).

Nothing can be changed: the mask of changeable values is all zeros, and MODE
SELECT accepts exactly what MODE SENSE shows.  In particular WCE stays 1, and is
meant: what was not flushed does not survive a loss of power.
"""

from __future__ import annotations

from tcmu_overlaybd.scsi.cdb import Opcode, be16
from tcmu_overlaybd.scsi.disk import DiskDescription
from tcmu_overlaybd.scsi.reply import Reply
from tcmu_overlaybd.scsi.sense import (
    INVALID_FIELD_IN_CDB,
    INVALID_FIELD_IN_PARAMETER_LIST,
    PARAMETER_LIST_LENGTH_ERROR,
    SAVING_NOT_SUPPORTED,
    Sense,
)

ALL_PAGES = 0x3F
PC_CHANGEABLE = 1
PC_SAVED = 3
WRITE_PROTECT = 0x80
DPOFUA = 0x10


def _page(code: int, length: int, **values: int) -> bytes:
    """A mode page; values are given as ``byte2=...``, offsets in the whole page."""
    page = bytearray(2 + length)
    page[0], page[1] = code, length
    for name, value in values.items():
        page[int(name.removeprefix("byte"))] = value
    return bytes(page)


# By page code.  08h: WCE.  0Ah: GLTSD, unrestricted reordering, TAS, busy time unlimited.
PAGES: dict[int, bytes] = {
    0x01: _page(0x01, 10),
    0x08: _page(0x08, 18, byte2=0x04),
    0x0A: _page(0x0A, 10, byte2=0x02, byte3=0x10, byte5=0x40, byte8=0xFF, byte9=0xFF),
}


def answer_mode_sense(disk: DiskDescription, cdb: bytes) -> Reply:
    is_6 = cdb[0] == Opcode.MODE_SENSE_6
    page_control, page_code, subpage = cdb[2] >> 6, cdb[2] & 0x3F, cdb[3]
    if page_control == PC_SAVED:
        return Reply.check(SAVING_NOT_SUPPORTED)
    pages = _pages(page_code, subpage)
    if not pages:
        return Reply.check(INVALID_FIELD_IN_CDB)
    if page_control == PC_CHANGEABLE:
        pages = [page[:2] + bytes(len(page) - 2) for page in pages]
    return Reply.good(_with_header(disk, b"".join(pages), is_6=is_6), cdb[4] if is_6 else be16(cdb, 7))


def _pages(page_code: int, subpage: int) -> list[bytes]:
    """Those asked for; no page here has subpages, of which 00h is none and FFh all."""
    if subpage not in (0x00, 0xFF):
        return []
    if page_code == ALL_PAGES:
        return [PAGES[code] for code in sorted(PAGES)]
    return [PAGES[page_code]] if page_code in PAGES else []


def _with_header(disk: DiskDescription, pages: bytes, *, is_6: bool) -> bytes:
    """Mode parameter header without block descriptors, then the pages."""
    specific = DPOFUA | (WRITE_PROTECT if disk.read_only else 0)
    if is_6:
        return bytes([3 + len(pages), 0, specific, 0]) + pages
    return (6 + len(pages)).to_bytes(2, "big") + bytes([0, specific, 0, 0, 0, 0]) + pages


def answer_mode_select(cdb: bytes, data_out: bytes) -> Reply:
    is_6 = cdb[0] == Opcode.MODE_SELECT_6
    has_page_format, wants_saving = bool(cdb[1] & 0x10), bool(cdb[1] & 0x01)
    if not has_page_format or wants_saving:
        return Reply.check(INVALID_FIELD_IN_CDB)
    length = cdb[4] if is_6 else be16(cdb, 7)
    if length == 0:
        return Reply.good()
    header = 4 if is_6 else 8
    if length > len(data_out) or length < header:
        return Reply.check(PARAMETER_LIST_LENGTH_ERROR)
    descriptor_length = data_out[3] if is_6 else be16(data_out, 6)
    if descriptor_length != 0:
        return Reply.check(INVALID_FIELD_IN_PARAMETER_LIST)
    sense = _refusal(data_out[header:length])
    return Reply.good() if sense is None else Reply.check(sense)


def _refusal(pages: bytes) -> Sense | None:
    """Why these pages cannot be selected; None when each is what it is already."""
    while pages:
        if len(pages) < 2 or len(pages) < 2 + pages[1]:
            return PARAMETER_LIST_LENGTH_ERROR
        page, pages = pages[: 2 + pages[1]], pages[2 + pages[1] :]
        if PAGES.get(page[0]) != page:
            return INVALID_FIELD_IN_PARAMETER_LIST
    return None
