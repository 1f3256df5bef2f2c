"""What a disk says about itself: INQUIRY, capacity, mode pages, opcodes (SPC-4, SBC-3)."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcmu_overlaybd.native._binding import lib
from tcmu_overlaybd.native.tcmu import status_sense
from tcmu_overlaybd.scsi import inquiry, sense
from tcmu_overlaybd.scsi.cdb import CDB_SIZE, Opcode
from tcmu_overlaybd.scsi.disk import DiskDescription
from tcmu_overlaybd.scsi.dispatch import HANDLERS, answer
from tcmu_overlaybd.scsi.opcodes import COMMANDS
from tcmu_overlaybd.scsi.reply import Reply

DISK = DiskDescription(size=1 << 30, serial="0f8fad5b-d9cb-469f-a165-70867728950e")
OPENING = dataclasses.replace(DISK, is_ready=False)
READ_ONLY = dataclasses.replace(DISK, read_only=True)


def cdb(*values: int) -> bytes:
    return bytes(values).ljust(CDB_SIZE, b"\0")


def ask(*values: int, disk: DiskDescription = DISK, data_out: bytes = b"") -> Reply:
    return answer(disk, cdb(*values), data_out)


def good(*values: int, disk: DiskDescription = DISK, data_out: bytes = b"") -> bytes:
    reply = ask(*values, disk=disk, data_out=data_out)
    assert reply.sense is None
    return reply.data


def vpd(page: int, length: int = 255, disk: DiskDescription = DISK) -> bytes:
    return good(Opcode.INQUIRY, 1, page, length >> 8, length & 255, disk=disk)


# ---- anything at all -------------------------------------------------------------


@given(
    st.binary(min_size=CDB_SIZE, max_size=CDB_SIZE),
    st.binary(max_size=512),
    st.sampled_from([DISK, OPENING, READ_ONLY, DiskDescription(0, ""), DiskDescription(1 << 60, "ü" * 500)]),
)
def test_any_cdb_gets_an_answer(raw: bytes, data_out: bytes, disk: DiskDescription) -> None:
    reply = answer(disk, raw, data_out)
    assert reply.sense is None or (reply.sense.key != 0 and reply.data == b"")


@given(st.sampled_from(sorted(HANDLERS)), st.binary(min_size=15, max_size=15), st.binary(max_size=512))
def test_any_cdb_of_a_known_opcode_gets_an_answer(opcode: int, rest: bytes, data_out: bytes) -> None:
    answer(DISK, bytes([opcode]) + rest, data_out)


@given(st.sampled_from([0x00, 0x80, 0x83, 0xB0, 0xB1, 0xB2]), st.integers(0, 0xFFFF))
def test_data_is_cut_to_the_allocation_length_and_says_its_whole_length(page: int, length: int) -> None:
    whole, cut = vpd(page, 0xFFFF), vpd(page, length)
    assert cut == whole[:length]
    assert len(whole) == 4 + int.from_bytes(whole[2:4], "big")


def test_opcodes_that_nobody_knows_are_refused() -> None:
    for opcode in range(256):
        if opcode not in HANDLERS:
            assert ask(opcode).sense == sense.INVALID_OPCODE


# ---- the two halves of the target agree ------------------------------------------


def test_c_and_python_have_the_same_table_of_opcodes() -> None:
    reported = {command.opcode for command in COMMANDS}
    for opcode in range(256):
        kind = lib.obd_scsi_class(opcode)
        assert (opcode in HANDLERS) == (kind == lib.OBD_SCSI_CONTROL), hex(opcode)
        assert (opcode in reported) == (kind != lib.OBD_SCSI_UNKNOWN), hex(opcode)


def test_limits_of_page_b0_are_those_that_c_enforces() -> None:
    assert inquiry.MAX_TRANSFER_BLOCKS == lib.OBD_MAX_TRANSFER_SECTORS
    assert inquiry.MAX_UNMAP_DESCRIPTORS == lib.OBD_MAX_UNMAP_DESCRIPTORS


def test_every_status_has_a_sense() -> None:
    for status in range(1, lib.OBD_NR_STATUS):
        for is_write in (False, True):
            assert status_sense(status, is_write=is_write) >> 16 in (0x2, 0x3, 0x4, 0x5, 0x7, 0xE)
    assert status_sense(lib.OBD_OK, is_write=False) == 0


# ---- INQUIRY ---------------------------------------------------------------------


def test_standard_data_is_a_fixed_disk_with_queueing() -> None:
    data = good(Opcode.INQUIRY, 0, 0, 0, 255)
    assert data[0] == 0
    assert data[1] == 0
    assert data[2] == 6
    assert data[3] & 0x0F == 2
    assert len(data) == data[4] + 5
    assert data[7] & 0x02
    assert data[8:16] == b"OVERLYBD"
    assert data[16:32] == b"overlaybd disk  "
    assert data[32:36] == b"0001"


def test_a_page_code_without_evpd_and_an_unknown_page_are_refused() -> None:
    assert ask(Opcode.INQUIRY, 0, 0x80, 0, 255).sense == sense.INVALID_FIELD_IN_CDB
    assert ask(Opcode.INQUIRY, 1, 0xC0, 0, 255).sense == sense.INVALID_FIELD_IN_CDB
    assert ask(Opcode.INQUIRY, 2, 0, 0, 255).sense == sense.INVALID_FIELD_IN_CDB


def test_page_00_lists_the_pages_that_are_there_in_order() -> None:
    pages = list(vpd(0)[4:])
    assert pages == sorted(pages) == [0x00, 0x80, 0x83, 0xB0, 0xB1, 0xB2]
    for page in pages:
        assert vpd(page)[1] == page


def test_page_80_is_the_serial_number() -> None:
    assert vpd(0x80)[4:] == DISK.serial.encode()


def test_page_83_has_a_vendor_and_an_naa_designator() -> None:
    data = vpd(0x83)[4:]
    assert data[:4] == bytes([2, 1, 0, 8 + 36])
    assert data[4 : 4 + data[3]] == b"OVERLYBD" + DISK.serial.encode()
    second = data[4 + data[3] :]
    assert second[:4] == bytes([1, 3, 0, 16])
    assert second[4:].hex() == "6001405" + "0f8fad5bd9cb469fa1657086772895"[:25]


@given(st.text(max_size=60), st.text(max_size=60))
def test_different_serials_are_different_disks(one: str, other: str) -> None:
    has_digits = [sum(c in "0123456789abcdefABCDEF" for c in text) >= 25 for text in (one, other)]
    if one != other and not any(has_digits):
        assert inquiry.naa(one) != inquiry.naa(other)
    assert len(inquiry.naa(one)) == 16
    assert inquiry.naa(one)[0] >> 4 == 6


def test_page_b0_promises_1_mib_transfers_and_unmap() -> None:
    data = vpd(0xB0)
    assert len(data) == 64
    assert data[4] == 1  # WSNZ
    assert int.from_bytes(data[8:12], "big") == int.from_bytes(data[12:16], "big") == 2048
    assert int.from_bytes(data[20:24], "big") == 0xFFFFFFFF
    assert int.from_bytes(data[24:28], "big") == 32
    assert int.from_bytes(data[28:32], "big") in range(1, 9)
    assert int.from_bytes(data[32:36], "big") == 0x80000000
    assert int.from_bytes(data[36:44], "big") == 0xFFFFFFFF


def test_page_b1_does_not_rotate_and_b2_unmaps_to_zeros() -> None:
    assert vpd(0xB1)[4:6] == b"\0\1"
    assert len(vpd(0xB1)) == 64
    assert vpd(0xB2)[5] == 0xE4
    assert vpd(0xB2)[6] & 0x07 == 2


# ---- readiness and capacity ------------------------------------------------------

CAPACITY_10 = (Opcode.READ_CAPACITY_10,)
CAPACITY_16 = (Opcode.SERVICE_ACTION_IN_16, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32)


def test_capacity_is_the_last_block_and_says_that_unmapped_reads_zeros() -> None:
    assert good(*CAPACITY_10) == (0x1FFFFF).to_bytes(4, "big") + (512).to_bytes(4, "big")
    data = good(*CAPACITY_16)
    assert len(data) == 32
    assert data[:12] == (0x1FFFFF).to_bytes(8, "big") + (512).to_bytes(4, "big")
    assert data[13] == 3
    assert data[14] == 0xC0


@pytest.mark.parametrize(
    ("blocks", "told"), [(1 << 32, 0xFFFFFFFF), (1 << 40, 0xFFFFFFFF), ((1 << 32) - 1, 0xFFFFFFFE)]
)
def test_a_capacity_that_does_not_fit_sends_to_the_16_byte_command(blocks: int, told: int) -> None:
    disk = dataclasses.replace(DISK, size=blocks * 512)
    assert int.from_bytes(good(*CAPACITY_10, disk=disk)[:4], "big") == told
    assert int.from_bytes(good(*CAPACITY_16, disk=disk)[:8], "big") == blocks - 1


def test_while_opening_only_readiness_and_capacity_are_refused() -> None:
    for command in ((Opcode.TEST_UNIT_READY,), CAPACITY_10, CAPACITY_16):
        assert ask(*command, disk=OPENING).sense == sense.Sense(2, 4, 3)
        assert ask(*command).sense is None
    assert good(Opcode.INQUIRY, 0, 0, 0, 36, disk=OPENING)
    assert good(Opcode.MODE_SENSE_6, 0, 0x3F, 0, 255, disk=OPENING)


def test_an_lba_in_read_capacity_is_refused() -> None:
    assert ask(Opcode.READ_CAPACITY_10, 0, 0, 0, 0, 1).sense == sense.INVALID_FIELD_IN_CDB
    assert ask(Opcode.SERVICE_ACTION_IN_16, 0x10, 1).sense == sense.INVALID_FIELD_IN_CDB


def test_other_service_actions_are_refused() -> None:
    assert ask(Opcode.SERVICE_ACTION_IN_16, 0x12).sense == sense.INVALID_FIELD_IN_CDB
    assert ask(Opcode.MAINTENANCE_IN, 0x0A).sense == sense.INVALID_FIELD_IN_CDB


def test_request_sense_tells_the_state_in_both_formats() -> None:
    assert good(Opcode.REQUEST_SENSE, 0, 0, 0, 252) == sense.NO_SENSE.fixed()
    assert good(Opcode.REQUEST_SENSE, 1, 0, 0, 252) == sense.NO_SENSE.descriptor()
    assert good(Opcode.REQUEST_SENSE, 0, 0, 0, 252, disk=OPENING)[2] == 2


def test_start_and_stop_are_good_and_power_conditions_are_not() -> None:
    assert ask(Opcode.START_STOP_UNIT, 0, 0, 0, 1).sense is None
    assert ask(Opcode.START_STOP_UNIT, 1, 0, 0, 0).sense is None
    assert ask(Opcode.START_STOP_UNIT, 0, 0, 0, 0x10).sense == sense.INVALID_FIELD_IN_CDB
    assert ask(Opcode.START_STOP_UNIT, 0, 0, 0, 2).sense == sense.INVALID_FIELD_IN_CDB


# ---- mode pages ------------------------------------------------------------------


def test_the_write_cache_is_on_and_fua_is_understood() -> None:
    data = good(Opcode.MODE_SENSE_6, 0, 0x08, 0, 255)
    assert data[0] == len(data) - 1
    assert data[2] == 0x10
    assert data[3] == 0
    assert data[4:7] == bytes([0x08, 0x12, 0x04])
    data = good(Opcode.MODE_SENSE_10, 0, 0x08, 0, 0, 0, 0, 0, 255)
    assert int.from_bytes(data[:2], "big") == len(data) - 2
    assert data[3] == 0x10
    assert data[8:11] == bytes([0x08, 0x12, 0x04])


def test_a_read_only_disk_is_write_protected() -> None:
    assert good(Opcode.MODE_SENSE_6, 0, 0x3F, 0, 255, disk=READ_ONLY)[2] & 0x80
    assert good(Opcode.MODE_SENSE_10, 0, 0x3F, 0, 0, 0, 0, 0, 255, disk=READ_ONLY)[3] & 0x80
    assert not good(Opcode.MODE_SENSE_6, 0, 0x3F, 0, 255)[2] & 0x80


def test_all_pages_are_the_single_ones_in_order() -> None:
    single = b"".join(good(Opcode.MODE_SENSE_6, 0, page, 0, 255)[4:] for page in (0x01, 0x08, 0x0A))
    assert good(Opcode.MODE_SENSE_6, 0, 0x3F, 0, 255)[4:] == single
    assert good(Opcode.MODE_SENSE_6, 0, 0x3F, 0xFF, 255)[4:] == single


def test_nothing_is_changeable_and_nothing_is_saved() -> None:
    data = good(Opcode.MODE_SENSE_6, 0, 0x40 | 0x08, 0, 255)
    assert data[4:6] == bytes([0x08, 0x12])
    assert not any(data[6:])
    assert ask(Opcode.MODE_SENSE_6, 0, 0xC0 | 0x08, 0, 255).sense == sense.SAVING_NOT_SUPPORTED
    assert good(Opcode.MODE_SENSE_6, 0, 0x80 | 0x08, 0, 255) == good(Opcode.MODE_SENSE_6, 0, 0x08, 0, 255)


def test_an_unknown_page_or_subpage_is_refused() -> None:
    assert ask(Opcode.MODE_SENSE_6, 0, 0x19, 0, 255).sense == sense.INVALID_FIELD_IN_CDB
    assert ask(Opcode.MODE_SENSE_6, 0, 0x08, 1, 255).sense == sense.INVALID_FIELD_IN_CDB


def select_6(data: bytes, *, flags: int = 0x10) -> Reply:
    return ask(Opcode.MODE_SELECT_6, flags, 0, 0, len(data), data_out=data)


def test_mode_select_accepts_what_mode_sense_shows() -> None:
    six = good(Opcode.MODE_SENSE_6, 0, 0x3F, 0, 255)
    assert select_6(six).sense is None
    ten = good(Opcode.MODE_SENSE_10, 0, 0x3F, 0, 0, 0, 0, 0, 255)
    assert ask(Opcode.MODE_SELECT_10, 0x10, 0, 0, 0, 0, 0, 0, len(ten), data_out=ten).sense is None
    assert select_6(b"").sense is None


@given(st.integers(4, 3 + 12 + 20 + 12), st.integers(1, 255))
def test_mode_select_refuses_every_other_byte(at: int, difference: int) -> None:
    data = bytearray(good(Opcode.MODE_SENSE_6, 0, 0x3F, 0, 255))
    data[at] ^= difference
    refusal = select_6(bytes(data)).sense
    assert refusal in (sense.INVALID_FIELD_IN_PARAMETER_LIST, sense.PARAMETER_LIST_LENGTH_ERROR)


def test_mode_select_of_half_a_page_or_a_list_that_did_not_come_is_a_length_error() -> None:
    data = good(Opcode.MODE_SENSE_6, 0, 0x08, 0, 255)
    assert select_6(data[:-1]).sense == sense.PARAMETER_LIST_LENGTH_ERROR
    assert select_6(data[:3]).sense == sense.PARAMETER_LIST_LENGTH_ERROR
    too_long = ask(Opcode.MODE_SELECT_6, 0x10, 0, 0, len(data) + 1, data_out=data)
    assert too_long.sense == sense.PARAMETER_LIST_LENGTH_ERROR


def test_mode_select_without_page_format_or_with_saving_is_refused() -> None:
    data = good(Opcode.MODE_SENSE_6, 0, 0x08, 0, 255)
    assert select_6(data, flags=0x00).sense == sense.INVALID_FIELD_IN_CDB
    assert select_6(data, flags=0x11).sense == sense.INVALID_FIELD_IN_CDB


# ---- REPORT SUPPORTED OPERATION CODES --------------------------------------------


def report(option: int, opcode: int = 0, action: int = 0) -> Reply:
    return ask(Opcode.MAINTENANCE_IN, 0x0C, option, opcode, 0, action, 0, 0, 0xFF, 0xFF)


@pytest.mark.parametrize(("option", "size"), [(0x00, 8), (0x80, 20)])
def test_all_commands_are_listed_with_or_without_timeouts(option: int, size: int) -> None:
    data = report(option).data
    assert int.from_bytes(data[:4], "big") == len(data) - 4 == size * len(COMMANDS)
    listed = [data[i] for i in range(4, len(data), size)]
    assert listed == sorted(listed) == [command.opcode for command in COMMANDS]


def test_one_command_shows_its_usage_bits() -> None:
    data = report(1, Opcode.READ_10).data
    assert data[1] & 0x07 == 3
    assert data[3] == 10
    assert data[4] == Opcode.READ_10
    data = report(2, Opcode.SERVICE_ACTION_IN_16, 0x10).data
    assert data[1] & 0x07 == 3
    assert data[3] == 16
    assert data[5] == 0x10
    assert report(0x83, Opcode.READ_10).data[-12:] == bytes([0, 10]) + bytes(10)


def test_a_command_that_is_not_there_is_reported_as_such() -> None:
    assert report(1, 0xC5).data[1] == 1
    assert report(3, 0xC5).data[1] == 1
    assert report(2, Opcode.SERVICE_ACTION_IN_16, 0x12).data[1] == 1
    assert report(3, Opcode.READ_10, 1).data[1] == 1


def test_a_service_action_is_asked_for_where_there_are_some_only() -> None:
    assert report(1, Opcode.SERVICE_ACTION_IN_16).sense == sense.INVALID_FIELD_IN_CDB
    assert report(2, Opcode.READ_10).sense == sense.INVALID_FIELD_IN_CDB
    assert report(4, Opcode.READ_10).sense == sense.INVALID_FIELD_IN_CDB


def test_usage_data_is_as_long_as_the_cdb() -> None:
    for command in COMMANDS:
        assert len(command.usage) == {0: 6, 1: 10, 2: 10, 4: 16, 5: 12}[command.opcode >> 5]
        assert command.usage[0] == command.opcode
