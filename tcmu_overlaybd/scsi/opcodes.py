"""REPORT SUPPORTED OPERATION CODES, and the table it reports (SPC-4, 6.35).

The table lists everything the target knows, also what C carries out; a test
compares it with C's own (obd_scsi_class).
"""

from __future__ import annotations

from dataclasses import dataclass

from tcmu_overlaybd.scsi.cdb import Opcode, be16, be32
from tcmu_overlaybd.scsi.reply import Reply
from tcmu_overlaybd.scsi.sense import INVALID_FIELD_IN_CDB

NOT_SUPPORTED = 0x01
SUPPORTED = 0x03  # as the standard says
TIMEOUTS_WANTED = 0x80  # RCTD
# No time is promised: 10 bytes of zeros after their length.
TIMEOUTS_DESCRIPTOR = bytes([0, 10]) + bytes(10)


@dataclass(frozen=True, slots=True)
class Command:
    """``usage`` is the CDB usage data: which bits of the CDB are looked at."""

    opcode: Opcode
    usage: bytes
    service_action: int | None = None


def _command(opcode: Opcode, rest: str, service_action: int | None = None) -> Command:
    return Command(opcode, bytes([opcode]) + bytes.fromhex(rest), service_action)


READ_CAPACITY_16 = 0x10  # service action of SERVICE ACTION IN(16)
REPORT_OPCODES = 0x0C  # service action of MAINTENANCE IN

COMMANDS: tuple[Command, ...] = (
    _command(Opcode.TEST_UNIT_READY, "00 00 00 00 00"),
    _command(Opcode.REQUEST_SENSE, "01 00 00 ff 00"),
    _command(Opcode.READ_6, "1f ff ff ff 00"),
    _command(Opcode.WRITE_6, "1f ff ff ff 00"),
    _command(Opcode.INQUIRY, "01 ff ff ff 00"),
    _command(Opcode.MODE_SELECT_6, "11 00 00 ff 00"),
    _command(Opcode.MODE_SENSE_6, "08 ff ff ff 00"),
    _command(Opcode.START_STOP_UNIT, "00 00 00 f3 00"),
    _command(Opcode.READ_CAPACITY_10, "00 ff ff ff ff 00 00 01 00"),
    _command(Opcode.READ_10, "f8 ff ff ff ff 00 ff ff 00"),
    _command(Opcode.WRITE_10, "f8 ff ff ff ff 00 ff ff 00"),
    _command(Opcode.VERIFY_10, "f6 ff ff ff ff 00 ff ff 00"),
    _command(Opcode.SYNCHRONIZE_CACHE_10, "00 ff ff ff ff 00 ff ff 00"),
    _command(Opcode.WRITE_SAME_10, "f8 ff ff ff ff 00 ff ff 00"),
    _command(Opcode.UNMAP, "01 00 00 00 00 00 ff ff 00"),
    _command(Opcode.MODE_SELECT_10, "11 00 00 00 00 00 ff ff 00"),
    _command(Opcode.MODE_SENSE_10, "18 ff ff 00 00 00 ff ff 00"),
    _command(Opcode.READ_16, "f8 ff ff ff ff ff ff ff ff ff ff ff ff 00 00"),
    _command(Opcode.WRITE_16, "f8 ff ff ff ff ff ff ff ff ff ff ff ff 00 00"),
    _command(Opcode.VERIFY_16, "f6 ff ff ff ff ff ff ff ff ff ff ff ff 00 00"),
    _command(Opcode.SYNCHRONIZE_CACHE_16, "00 ff ff ff ff ff ff ff ff ff ff ff ff 00 00"),
    _command(Opcode.WRITE_SAME_16, "f9 ff ff ff ff ff ff ff ff ff ff ff ff 00 00"),
    _command(Opcode.SERVICE_ACTION_IN_16, "1f ff ff ff ff ff ff ff ff ff ff ff ff 01 00", READ_CAPACITY_16),
    _command(Opcode.MAINTENANCE_IN, "1f 87 ff ff ff ff ff ff ff 00 00", REPORT_OPCODES),
    _command(Opcode.READ_12, "f8 ff ff ff ff ff ff ff ff 00 00"),
    _command(Opcode.WRITE_12, "f8 ff ff ff ff ff ff ff ff 00 00"),
    _command(Opcode.VERIFY_12, "f6 ff ff ff ff ff ff ff ff 00 00"),
)


def answer_report_opcodes(cdb: bytes) -> Reply:
    option, opcode, action, allocation_length = cdb[2] & 0x07, cdb[3], be16(cdb, 4), be32(cdb, 6)
    timeouts = bool(cdb[2] & TIMEOUTS_WANTED)
    if option == 0:
        return Reply.good(all_commands(timeouts=timeouts), allocation_length)
    if option > 3 or not _is_option_allowed(option, opcode):
        return Reply.check(INVALID_FIELD_IN_CDB)
    return Reply.good(one_command(find(option, opcode, action), timeouts=timeouts), allocation_length)


def _is_option_allowed(option: int, opcode: int) -> bool:
    """1 asks about opcodes without service actions, 2 about those with, 3 about both."""
    has_actions = any(c.opcode == opcode and c.service_action is not None for c in COMMANDS)
    is_known = any(c.opcode == opcode for c in COMMANDS)
    return option == 3 or not is_known or has_actions == (option == 2)


def find(option: int, opcode: int, action: int) -> Command | None:
    for command in COMMANDS:
        if command.opcode == opcode and _action_matches(command, option, action):
            return command
    return None


def _action_matches(command: Command, option: int, action: int) -> bool:
    if option == 1:
        return True
    return action == (command.service_action or 0)


def all_commands(*, timeouts: bool) -> bytes:
    descriptors = b"".join(command_descriptor(command, timeouts=timeouts) for command in COMMANDS)
    return len(descriptors).to_bytes(4, "big") + descriptors


def command_descriptor(command: Command, *, timeouts: bool) -> bytes:
    flags = (0x02 if timeouts else 0) | (0x01 if command.service_action is not None else 0)
    action = (command.service_action or 0).to_bytes(2, "big")
    size = len(command.usage).to_bytes(2, "big")
    return (
        bytes([command.opcode, 0])
        + action
        + bytes([0, flags])
        + size
        + (TIMEOUTS_DESCRIPTOR if timeouts else b"")
    )


def one_command(command: Command | None, *, timeouts: bool) -> bytes:
    if command is None:
        return bytes([0, NOT_SUPPORTED, 0, 0])
    flags = SUPPORTED | (0x80 if timeouts else 0)
    usage = bytearray(command.usage)
    if command.service_action is not None:
        usage[1] = usage[1] & ~0x1F | command.service_action
    size = len(usage).to_bytes(2, "big")
    return bytes([0, flags]) + size + bytes(usage) + (TIMEOUTS_DESCRIPTOR if timeouts else b"")
