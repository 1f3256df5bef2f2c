"""INQUIRY: standard data and vital product data pages (SPC-4, 6.6 and 7.8; SBC-3, 6.6)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from functools import lru_cache

from tcmu_overlaybd.scsi.cdb import be16
from tcmu_overlaybd.scsi.disk import DiskDescription
from tcmu_overlaybd.scsi.reply import Reply
from tcmu_overlaybd.scsi.sense import INVALID_FIELD_IN_CDB

# The two limits that C enforces, too (OBD_MAX_TRANSFER_SECTORS, OBD_MAX_UNMAP_DESCRIPTORS).
MAX_TRANSFER_BLOCKS = 2048  # what the disk really uses as its largest transfer: 1 MiB
MAX_UNMAP_DESCRIPTORS = 32
MAX_BLOCKS_PER_DISCARD = 0xFFFFFFFF
PHYSICAL_BLOCK = 8  # in blocks: 4 KiB, the unit in which layers are compressed

# SAM-5, SPC-4, SBC-3: the standards claimed, by their version descriptors.
VERSION_DESCRIPTORS = (0x00A0, 0x0460, 0x04C0)
PRINTABLE = bytes(c if 0x20 <= c <= 0x7E else ord("?") for c in range(256))
NAA_COMPANY_ID = "001405"  # LIO's, as all its backstores use


def answer_inquiry(disk: DiskDescription, cdb: bytes) -> Reply:
    page_code, allocation_length = cdb[2], be16(cdb, 3)
    if cdb[1] & 0x02:  # CMDDT, obsolete
        return Reply.check(INVALID_FIELD_IN_CDB)
    if cdb[1] & 0x01:
        payload = vpd_payloads(disk).get(page_code)
        if payload is None:
            return Reply.check(INVALID_FIELD_IN_CDB)
        return Reply.good(vpd_page(page_code, payload), allocation_length)
    if page_code != 0:
        return Reply.check(INVALID_FIELD_IN_CDB)
    return Reply.good(standard_data(disk), allocation_length)


def standard_data(disk: DiskDescription) -> bytes:
    data = bytearray(96)
    data[2] = 0x06  # SPC-4
    data[3] = 0x02  # response data format
    data[4] = len(data) - 5
    data[7] = 0x02  # CMDQUE
    data[8:16] = padded(disk.vendor, 8)
    data[16:32] = padded(disk.product, 16)
    data[32:36] = padded(disk.revision, 4)
    for i, version in enumerate(VERSION_DESCRIPTORS):
        data[58 + 2 * i : 60 + 2 * i] = version.to_bytes(2, "big")
    return bytes(data)


def vpd_page(code: int, payload: bytes) -> bytes:
    return bytes([0, code]) + len(payload).to_bytes(2, "big") + payload


@lru_cache(maxsize=64)
def vpd_payloads(disk: DiskDescription) -> Mapping[int, bytes]:
    """Every VPD page by its code, without the page header.

    Kept, because Linux asks for 20 pages when it scans a disk, one after the other.
    """
    pages = {
        0x80: ascii_text(disk.serial),
        0x83: device_identification(disk),
        0xB0: block_limits(),
        0xB1: block_device_characteristics(),
        0xB2: logical_block_provisioning(),
    }
    return {0x00: bytes([0x00, *pages]), **pages}


def device_identification(disk: DiskDescription) -> bytes:
    """Two designators of the logical unit: T10 vendor identification and NAA 6h."""
    t10 = padded(disk.vendor, 8) + ascii_text(disk.serial)
    return designator(code_set=2, kind=1, value=t10[:255]) + designator(
        code_set=1, kind=3, value=naa(disk.serial)
    )


def designator(*, code_set: int, kind: int, value: bytes) -> bytes:
    return bytes([code_set, kind, 0, len(value)]) + value


def naa(serial: str) -> bytes:
    """NAA 6h from the serial number's first 25 hexadecimal digits, as LIO makes it.

    A serial number with fewer of them is hashed, so that two names that differ in
    other letters only do not become one disk to multipath.
    """
    digits = re.sub("[^0-9a-fA-F]", "", serial)
    if len(digits) < 25:
        digits = hashlib.sha256(serial.encode()).hexdigest()
    return bytes.fromhex("6" + NAA_COMPANY_ID + digits[:25])


def block_limits() -> bytes:
    data = bytearray(64)  # the whole page, so that the offsets are the standard's
    data[4] = 0x01  # WSNZ: WRITE SAME of 0 blocks does not mean "to the end"
    data[6:8] = PHYSICAL_BLOCK.to_bytes(2, "big")  # optimal transfer length granularity
    data[8:12] = MAX_TRANSFER_BLOCKS.to_bytes(4, "big")
    data[12:16] = MAX_TRANSFER_BLOCKS.to_bytes(4, "big")  # optimal
    data[20:24] = MAX_BLOCKS_PER_DISCARD.to_bytes(4, "big")
    data[24:28] = MAX_UNMAP_DESCRIPTORS.to_bytes(4, "big")
    data[28:32] = PHYSICAL_BLOCK.to_bytes(4, "big")  # optimal unmap granularity
    data[32:36] = (0x80000000).to_bytes(4, "big")  # UGAVALID, aligned at block 0
    data[36:44] = MAX_BLOCKS_PER_DISCARD.to_bytes(8, "big")  # WRITE SAME
    return bytes(data[4:])


def block_device_characteristics() -> bytes:
    return (1).to_bytes(2, "big") + bytes(58)  # medium rotation rate: does not rotate


def logical_block_provisioning() -> bytes:
    """LBPU, LBPWS, LBPWS10, LBPRZ = 1 (unmapped blocks read as zeros); thin provisioned."""
    return bytes([0, 0x80 | 0x40 | 0x20 | 0x04, 0x02, 0])


def ascii_text(text: str) -> bytes:
    """Printable ASCII, at most 252 bytes: what fits any page."""
    return text.encode("ascii", "replace")[:252].translate(PRINTABLE)


def padded(text: str, length: int) -> bytes:
    return ascii_text(text)[:length].ljust(length)
