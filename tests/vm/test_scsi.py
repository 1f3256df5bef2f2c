"""The disk as a SCSI initiator sees it."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest
from vm_daemon import run
from vm_fio import Fio
from vm_images import MIB
from vm_sgio import scsi

CHECK_CONDITION = 2
INVALID_OPCODE = (5, 0x20, 0)
LBA_OUT_OF_RANGE = (5, 0x21, 0)
WRITE_PROTECTED = (7, 0x27, 0)


@pytest.fixture
def disk(daemon):
    return daemon.attach(new=True, size=64 * MIB, name="d").disk


@pytest.fixture
def read_only_disk(daemon, plain_layer):
    return daemon.attach(plain_layer, name="ro").disk


def length_of(opcode: int) -> int:
    """Groups 0 to 5 have fixed lengths; the others are the vendor's, or not standard."""
    return {0: 6, 1: 10, 2: 10, 3: 16, 4: 16, 5: 12}.get(opcode >> 5, 10)


def test_every_reserved_and_vendor_opcode_is_refused_and_the_disk_goes_on(disk):
    with Fio(f"--filename={disk}", "--rw=randrw", "--iodepth=4") as load:
        for opcode in [*range(0x60, 0x80), *range(0xC0, 0x100)]:
            for room in (0, 512):
                answer = scsi(disk, bytes([opcode]).ljust(length_of(opcode), b"\0"), read=room)
                assert (opcode, answer.status, answer.sense) == (opcode, CHECK_CONDITION, INVALID_OPCODE)
        assert load.finish()["error"] == 0


@pytest.mark.parametrize(
    ("cdb", "size"),
    [
        (struct.pack(">BBIBHB", 0x28, 0, 0xFFFFFFFF, 0, 1, 0), 512),
        (struct.pack(">BBIBHB", 0x28, 0, 64 * MIB // 512 - 1, 0, 2, 0), 1024),
        (struct.pack(">BBQIBB", 0x88, 0, 0xFFFFFFFFFFFFFFFF, 1, 0, 0), 512),
        (struct.pack(">BBQIBB", 0x88, 0, 64 * MIB // 512, 1, 0, 0), 512),
    ],
)
def test_read_outside_the_disk_is_refused(disk, cdb, size):
    answer = scsi(disk, cdb, read=size)
    assert (answer.status, answer.sense) == (CHECK_CONDITION, LBA_OUT_OF_RANGE)


def test_write_6_10_12_16_are_read_back_by_each_other(disk):
    writes = {
        struct.pack(">BBBBBB", 0x0A, 0, 0, 8, 1, 0): 8,
        struct.pack(">BBIBHB", 0x2A, 0, 9, 0, 1, 0): 9,
        struct.pack(">BBIIBB", 0xAA, 0, 10, 1, 0, 0): 10,
        struct.pack(">BBQIBB", 0x8A, 0, 11, 1, 0, 0): 11,
    }
    for cdb, lba in writes.items():
        assert scsi(disk, cdb, write=bytes([lba]) * 512).status == 0
    wanted = b"".join(bytes([lba]) * 512 for lba in writes.values())
    reads = [
        struct.pack(">BBBBBB", 0x08, 0, 0, 8, 4, 0),
        struct.pack(">BBIBHB", 0x28, 0, 8, 0, 4, 0),
        struct.pack(">BBIIBB", 0xA8, 0, 8, 4, 0, 0),
        struct.pack(">BBQIBB", 0x88, 0, 8, 4, 0, 0),
    ]
    assert [scsi(disk, cdb, read=2048).data for cdb in reads] == [wanted] * 4


def test_unmap_and_write_same_with_unmap_leave_zeros(disk):
    whole = struct.pack(">BBIBHB", 0x2A, 0, 0, 0, 16, 0)
    assert scsi(disk, whole, write=b"x" * 8192).status == 0
    descriptor = struct.pack(">HHIQII", 22, 16, 0, 2, 3, 0)
    assert scsi(disk, struct.pack(">BBIBHB", 0x42, 0, 0, 0, len(descriptor), 0), write=descriptor).status == 0
    assert scsi(disk, struct.pack(">BBQIBB", 0x93, 0x08, 8, 4, 0, 0), write=bytes(512)).status == 0
    data = scsi(disk, struct.pack(">BBIBHB", 0x28, 0, 0, 0, 16, 0), read=8192).data
    assert [data[i * 512] for i in range(16)] == [120] * 2 + [0] * 3 + [120] * 3 + [0] * 4 + [120] * 4


def test_write_to_a_read_only_disk_is_write_protected(read_only_disk):
    """Through /dev/sgN: the kernel lets nobody open a read-only disk for writing."""
    cdb = struct.pack(">BBIBHB", 0x2A, 0, 0, 0, 1, 0)
    answer = scsi(generic_node(read_only_disk), cdb, write=bytes(512))
    assert (answer.status, answer.sense) == (CHECK_CONDITION, WRITE_PROTECTED)


def generic_node(disk: str) -> str:
    (entry,) = Path("/sys/block", Path(disk).name, "device/scsi_generic").iterdir()
    return f"/dev/{entry.name}"


def test_sg_inq_names_vendor_and_product(disk):
    text = run("sg_inq", disk)
    assert re.search(r"Vendor identification: OVERLYBD", text)
    assert re.search(r"version=0x06", text)


@pytest.mark.parametrize("page", ["sv", "sn", "di", "bl", "bdc", "lbpv"])
def test_sg_vpd_decodes_every_page(disk, page):
    assert "invalid" not in run("sg_vpd", f"--page={page}", disk).lower()


def test_vpd_pages_say_what_the_device_is(daemon, disk):
    assert daemon.client.status("d").serial in run("sg_vpd", "--page=sn", disk)
    limits = run("sg_vpd", "--page=bl", disk)
    assert re.search(r"Maximum transfer length: 2048 blocks", limits)
    provisioning = run("sg_vpd", "--page=lbpv", disk)
    assert re.search(r"Unmap command supported \(LBPU\): 1", provisioning)


def test_sg_readcap_gives_the_size_both_ways(disk):
    for options in (["--brief"], ["--brief", "--16"]):
        blocks, size = run("sg_readcap", *options, disk).split()
        assert (int(blocks, 16), int(size, 16)) == (64 * MIB // 512, 512)


def test_sg_opcodes_lists_what_is_supported_and_nothing_that_is_refused(disk):
    listed = {int(line.split()[0], 16) for line in run("sg_opcodes", disk).splitlines() if opcode_line(line)}
    assert {0x00, 0x12, 0x28, 0x2A, 0x35, 0x42, 0x88, 0x8A} <= listed
    for opcode in sorted(listed - {0x08, 0x28, 0xA8, 0x88}):
        answer = scsi(disk, bytes([opcode]).ljust(length_of(opcode), b"\0"))
        assert answer.sense != INVALID_OPCODE, f"{opcode:#x} is listed and refused"


def opcode_line(line: str) -> bool:
    return re.match(r"\s*[0-9a-f]{2}\s", line) is not None


def test_sg_modes_shows_a_write_back_cache(disk, read_only_disk):
    name = Path(disk).name
    (cache,) = Path("/sys/block", name, "device/scsi_disk").glob("*/cache_type")
    assert cache.read_text().strip() == "write back"
    assert run("sg_modes", "--page=8", disk)
    assert "WP=1" in run("sg_modes", "--page=8", read_only_disk)
