"""One function from a CDB to its answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tcmu_overlaybd.scsi.capacity import answer_read_capacity_10, answer_read_capacity_16
from tcmu_overlaybd.scsi.cdb import Opcode, service_action
from tcmu_overlaybd.scsi.disk import DiskDescription
from tcmu_overlaybd.scsi.inquiry import answer_inquiry
from tcmu_overlaybd.scsi.mode import answer_mode_select, answer_mode_sense
from tcmu_overlaybd.scsi.opcodes import READ_CAPACITY_16, REPORT_OPCODES, answer_report_opcodes
from tcmu_overlaybd.scsi.reply import Reply
from tcmu_overlaybd.scsi.sense import INVALID_FIELD_IN_CDB, INVALID_OPCODE, NO_SENSE, NOT_READY

DESCRIPTOR_FORMAT = 0x01  # DESC of REQUEST SENSE
POWER_CONDITION = 0xF0
LOAD_EJECT = 0x02


@dataclass(frozen=True, slots=True)
class Request:
    disk: DiskDescription
    cdb: bytes
    data_out: bytes


def answer(disk: DiskDescription, cdb: bytes, data_out: bytes = b"") -> Reply:
    """The reply to cdb (16 bytes) that came with data_out; never raises for any bytes."""
    handler = HANDLERS.get(cdb[0])
    return Reply.check(INVALID_OPCODE) if handler is None else handler(Request(disk, cdb, data_out))


def _test_unit_ready(request: Request) -> Reply:
    return Reply.good() if request.disk.is_ready else Reply.check(NOT_READY)


def _request_sense(request: Request) -> Reply:
    """Sense data always went with the status (autosense), so only the state is left to tell."""
    sense = NO_SENSE if request.disk.is_ready else NOT_READY
    wants_descriptor = request.cdb[1] & DESCRIPTOR_FORMAT
    return Reply.good(sense.descriptor() if wants_descriptor else sense.fixed(), request.cdb[4])


def _start_stop_unit(request: Request) -> Reply:
    """Nothing turns here: start and stop are good, power conditions and ejecting are refused."""
    is_refused = request.cdb[4] & (POWER_CONDITION | LOAD_EJECT)
    return Reply.check(INVALID_FIELD_IN_CDB) if is_refused else Reply.good()


def _service_action_in(request: Request) -> Reply:
    if service_action(request.cdb) == READ_CAPACITY_16:
        return answer_read_capacity_16(request.disk, request.cdb)
    return Reply.check(INVALID_FIELD_IN_CDB)


def _maintenance_in(request: Request) -> Reply:
    if service_action(request.cdb) == REPORT_OPCODES:
        return answer_report_opcodes(request.cdb)
    return Reply.check(INVALID_FIELD_IN_CDB)


HANDLERS: dict[int, Callable[[Request], Reply]] = {
    Opcode.TEST_UNIT_READY: _test_unit_ready,
    Opcode.REQUEST_SENSE: _request_sense,
    Opcode.INQUIRY: lambda request: answer_inquiry(request.disk, request.cdb),
    Opcode.MODE_SELECT_6: lambda request: answer_mode_select(request.cdb, request.data_out),
    Opcode.MODE_SELECT_10: lambda request: answer_mode_select(request.cdb, request.data_out),
    Opcode.MODE_SENSE_6: lambda request: answer_mode_sense(request.disk, request.cdb),
    Opcode.MODE_SENSE_10: lambda request: answer_mode_sense(request.disk, request.cdb),
    Opcode.START_STOP_UNIT: _start_stop_unit,
    Opcode.READ_CAPACITY_10: lambda request: answer_read_capacity_10(request.disk, request.cdb),
    Opcode.SERVICE_ACTION_IN_16: _service_action_in,
    Opcode.MAINTENANCE_IN: _maintenance_in,
}
