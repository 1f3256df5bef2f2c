"""What must be possible when no daemon is there to be asked: take a disk away, let go of all.

The daemon's lock is held meanwhile, so that none starts and takes up what is being given
up.  Writes that were acknowledged are in the journal of the upper; who opens it next
finds them.
"""

from __future__ import annotations

import logging

from tcmu_overlaybd.daemon.device import Device
from tcmu_overlaybd.daemon.folders import Folders
from tcmu_overlaybd.daemon.lock import take_lock
from tcmu_overlaybd.daemon.messages import DeviceStatus
from tcmu_overlaybd.daemon.names import Names
from tcmu_overlaybd.daemon.state import Record, State
from tcmu_overlaybd.errors import BusyError, FailedError, MissingError, OverlayBDError
from tcmu_overlaybd.lio import helper, kernel_device

logger = logging.getLogger(__name__)


def detach(folders: Folders, name: str, timeout_s: float) -> DeviceStatus:
    """Removes the device called name, or whose disk is (``sda``); what waits for it fails.

    Returns how its record was.  Raises BusyError when a daemon runs, MissingError,
    TimeoutExpiredError.
    """
    with take_lock(folders.lock):
        state = State(folders.state)
        device = Device(_find(state, name), "detaching")
        if not device.record.is_ours:
            raise FailedError(f"{name}: made in configfs by somebody else; remove it there")
        _note_detaching(state, device)
        record = device.record
        kernel_device.remove(record.hba, record.backstore, device.port, timeout_s, claim=False, abandon=True)
        state.remove(record.name)
        Names(folders.run / "names", []).drop(record)
        return device.status()


def _find(state: State, name: str) -> Record:
    for record in state.load():
        if name in (record.name, record.disk):
            return record
    raise MissingError(f"{name}: there is no such device")


def _note_detaching(state: State, device: Device) -> None:
    """For the next daemon, if we die half way; a full disk does not keep the device."""
    try:
        state.save(device.change_record(phase="detaching"))
    except OverlayBDError as error:
        logger.warning("%s: its record does not say that it is detaching: %s", device.name, error)


def let_go_of_all(folders: Folders, timeout_s: float) -> bool:
    """For the shutdown of the machine: nothing waits for a disk of ours any more.

    While a daemon lives, its disks are served, and only the kernel's flushes are spared:
    the daemon flushes its uppers itself, when it stops.  Whether none lives.
    """
    try:
        lock = take_lock(folders.lock)
    except BusyError:
        helper.spare_flush(timeout_s)
        return False
    with lock:
        helper.abandon(timeout_s)
    return True
