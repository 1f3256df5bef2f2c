"""READ CAPACITY, 10 and 16 (SBC-3, 5.15 and 5.16)."""

from __future__ import annotations

from tcmu_overlaybd.scsi.cdb import be32, be64
from tcmu_overlaybd.scsi.disk import BLOCK_SIZE, DiskDescription
from tcmu_overlaybd.scsi.reply import Reply
from tcmu_overlaybd.scsi.sense import INVALID_FIELD_IN_CDB, NOT_READY

BLOCKS_PER_PHYSICAL_EXPONENT = 3  # 4 KiB, the unit in which layers are compressed
LBPME = 0x80  # blocks can be unmapped
LBPRZ = 0x40  # and read as zeros then
PMI = 0x01  # obsolete; without it the LBA must be 0


def _last_lba(disk: DiskDescription) -> int | None:
    """None while there is no capacity to speak of."""
    return disk.nr_blocks - 1 if disk.is_ready and disk.nr_blocks > 0 else None


def answer_read_capacity_10(disk: DiskDescription, cdb: bytes) -> Reply:
    if not cdb[8] & PMI and be32(cdb, 2) != 0:
        return Reply.check(INVALID_FIELD_IN_CDB)
    last = _last_lba(disk)
    if last is None:
        return Reply.check(NOT_READY)
    # FFFFFFFFh: too large for this command, use READ CAPACITY(16).
    return Reply.good(min(last, 0xFFFFFFFF).to_bytes(4, "big") + BLOCK_SIZE.to_bytes(4, "big"))


def answer_read_capacity_16(disk: DiskDescription, cdb: bytes) -> Reply:
    if not cdb[14] & PMI and be64(cdb, 2) != 0:
        return Reply.check(INVALID_FIELD_IN_CDB)
    last = _last_lba(disk)
    if last is None:
        return Reply.check(NOT_READY)
    data = bytearray(32)
    data[0:8] = last.to_bytes(8, "big")
    data[8:12] = BLOCK_SIZE.to_bytes(4, "big")
    data[13] = BLOCKS_PER_PHYSICAL_EXPONENT
    data[14] = LBPME | LBPRZ
    return Reply.good(bytes(data), be32(cdb, 10))
