"""The thread that answers commands which only describe a disk.

Rings hand such a CDB to Python (``native.tcmu``), ``scsi.dispatch`` knows the answer, and
the table knows the disk.  Nothing here waits for an image, so INQUIRY is answered
while one opens, and by a device that is broken.
"""

from __future__ import annotations

import logging
import threading

from tcmu_overlaybd.daemon.device import learn_serial
from tcmu_overlaybd.daemon.table import DeviceTable
from tcmu_overlaybd.native.tcmu import ControlCommand, Tcmu
from tcmu_overlaybd.scsi.dispatch import answer
from tcmu_overlaybd.scsi.reply import Reply
from tcmu_overlaybd.scsi.sense import NOT_READY

logger = logging.getLogger(__name__)

POLL_MS = 1000
JOIN_S = 5.0


class Answers:
    """A context manager: the thread runs inside it."""

    def __init__(self, tcmu: Tcmu, table: DeviceTable) -> None:
        self._tcmu = tcmu
        self._table = table
        self._thread = threading.Thread(target=self._run, name="answers", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._tcmu.wake()
        self._thread.join(JOIN_S)

    def _run(self) -> None:
        while True:
            try:
                command = self._tcmu.next_control(POLL_MS)
            except EOFError:
                return
            if command is not None:
                self._answer(command)

    def _answer(self, command: ControlCommand) -> None:
        try:
            reply = self._reply_to(command)
        except Exception:  # one command that we stumble over must not silence the others
            logger.exception("CDB %s could not be answered", command.cdb.hex())
            reply = Reply.check(NOT_READY)
        sense = None if reply.sense is None else reply.sense.code
        self._tcmu.reply(command, data=reply.data, sense=sense)

    def _reply_to(self, command: ControlCommand) -> Reply:
        device = self._table.of_ring(command.ring_id)
        if device is None:  # bound a moment ago, or unbound
            return Reply.check(NOT_READY)
        learn_serial(device)
        return answer(device.describe(), command.cdb, command.data_out)
