"""Detach, as asked for over the control socket.

A disk that is mounted or open is refused: by a look around for the sentence, and by
the helper's exclusive claim for certainty.  ``force`` does it all the same, and first
fails every parked command, since an unlink waits for them where no signal reaches.

A detach that fails leaves the device as it was; by force, broken.
"""

from __future__ import annotations

import logging
import time

import msgspec

from tcmu_overlaybd.daemon.device import Device
from tcmu_overlaybd.daemon.messages import DetachRequest, DeviceState, DeviceStatus
from tcmu_overlaybd.daemon.newcomers import release_ring
from tcmu_overlaybd.daemon.resources import Resources
from tcmu_overlaybd.daemon.state import Phase
from tcmu_overlaybd.daemon.table import DeviceTable
from tcmu_overlaybd.errors import BusyError, FailedError, KilledError, OverlayBDError, TimeoutExpiredError
from tcmu_overlaybd.lio import kernel_device
from tcmu_overlaybd.lio.mounts import MAX_USES, uses_of_disk
from tcmu_overlaybd.native.testing import hook

logger = logging.getLogger(__name__)

POLL_S = 0.02
LOOKS = 5
LOOK_PAUSE_S = 0.1


class Detacher:
    """Safe for use by several threads."""

    def __init__(self, resources: Resources) -> None:
        self._table = resources.table
        self._state = resources.state
        self._names = resources.names

    def detach(self, device: Device, request: DetachRequest) -> DeviceStatus:
        """Returns how the device was; its upper is kept.

        Raises BusyError when the disk is in use, TimeoutExpiredError, and FailedError when
        the last flush failed.  It is detached all the same when that has failed, or has not
        ended in time.
        """
        if request.force and (
            self._cancel_attach(device, request.timeout) or self._hurry_detach(device, request.timeout)
        ):
            return device.status()
        if not request.force:
            self._wait_until_open(device, request.timeout)
        before = self._begin(device)
        with self._table.lock:
            status = msgspec.structs.replace(device.status(), state=before)
        try:
            self._remove_from_kernel(device, request)
        except OverlayBDError as error:
            self._note(device, "attached")
            if request.force:  # it serves nothing any more
                self._table.set_state(device, "broken", f"a forced detach has not ended: {error}")
            else:
                # One that was still opening is not opened any more: see table.serve_opened.
                self._table.set_state(device, "broken" if before == "opening" else before, device.reason)
            raise
        hook("detach.kernel_done")
        release_ring(self._table, device)
        hook("detach.ring_released")
        self._close(device, request.timeout)
        return status

    def _cancel_attach(self, device: Device, timeout_s: float) -> bool:
        """Whether device was being attached, and is gone now."""
        if not cancel_attach(self._table, device):
            return False
        deadline = time.monotonic() + timeout_s
        while device.state == "attaching" and device in self._table.all():
            if time.monotonic() > deadline:
                raise TimeoutExpiredError(f"{device.name}: its attach did not end within {timeout_s:.0f} s")
            time.sleep(POLL_S)
        return device not in self._table.all()

    def _hurry_detach(self, device: Device, timeout_s: float) -> bool:
        """Whether a detach was running, which may wait for a parked command, and device is gone now."""
        deadline = time.monotonic() + timeout_s
        while device.state == "detaching" and device in self._table.all():
            self._fail_parked(device)
            if time.monotonic() > deadline:
                raise TimeoutExpiredError(f"{device.name}: its detach did not end within {timeout_s:.0f} s")
            time.sleep(POLL_S)
        return device not in self._table.all()

    def _wait_until_open(self, device: Device, timeout_s: float) -> None:
        """A device that was found at start is detached after its image is open, or known to be
        broken, or to wait for a registry."""
        deadline = time.monotonic() + timeout_s
        while device.state == "opening" and not device.reason:
            if time.monotonic() > deadline:
                raise TimeoutExpiredError(
                    f"{device.name}: its image is still opening after {timeout_s:.0f} s"
                )
            time.sleep(POLL_S)

    def _begin(self, device: Device) -> DeviceState:
        with self._table.lock:
            if not device.record.is_ours:
                raise FailedError(f"{device.name}: made in configfs by somebody else; remove it there")
            if device.state in ("attaching", "detaching"):
                raise BusyError(f"{device.name}: it is {device.state} already")
            before, device.state = device.state, "detaching"
        return before

    def _remove_from_kernel(self, device: Device, request: DetachRequest) -> None:
        disk = device.record.disk
        if request.force:
            self._fail_parked(device)
        elif disk:
            check_unused(device.name, disk)
        self._note(device, "detaching")
        hook("detach.noted")
        try:
            self._ask_kernel(device, request)
        except KilledError as error:  # half of it may be done, so the other half, too
            logger.warning("%s: its detach is begun again: %s", device.name, error)
            self._ask_kernel(device, request)

    def _ask_kernel(self, device: Device, request: DetachRequest) -> None:
        kernel_device.remove(
            device.record.hba,
            device.record.backstore,
            device.port,
            request.timeout,
            claim=not request.force,
            # _close flushes, and that has a deadline; without an image nobody would answer.
            spare_flush=request.force or device.served is None,
        )

    def _note(self, device: Device, phase: Phase) -> None:
        """For the next daemon, if this one dies half way.  Where there is no room for it (a full
        disk), the detach goes on: it is what may give the room back."""
        try:
            self._state.save(device.change_record(phase=phase))
        except OverlayBDError as error:
            logger.warning("%s: its record does not say that it is %s: %s", device.name, phase, error)

    def _fail_parked(self, device: Device) -> None:
        with self._table.lock:
            if device.served is not None:
                device.served.fail_parked()
                return
        self._table.set_broken(device, FailedError(f"{device.name}: detached by force"))

    def _close(self, device: Device, timeout_s: float) -> None:
        """The kernel is done with it: nothing that fails from here on keeps the device."""
        served = self._table.take_image(device)
        try:
            if served is not None:
                served.close(timeout_s)
                hook("detach.image_closed")
        finally:
            self._state.remove(device.name)
            self._names.drop(device.record)
            self._table.forget(device)
            logger.info("%s: detached", device.name)


def cancel_attach(table: DeviceTable, device: Device) -> bool:
    """Makes a running attach of device fail soon; False when there is none."""
    with table.lock:
        if device.state != "attaching":
            return False
        device.is_cancelled = True
        served = device.served
    if served is not None:
        served.fail_parked()
    return True


def check_unused(name: str, disk: str) -> None:
    """Raises BusyError that says what holds the disk.

    Somebody who only looks into a new disk (udev, blkid) is gone in a moment.
    """
    for _ in range(LOOKS):
        uses = uses_of_disk(disk)
        if not uses:
            return
        if not all(" is open in " in use for use in uses):
            break
        time.sleep(LOOK_PAUSE_S)
    more = f", and {len(uses) - MAX_USES} more" if len(uses) > MAX_USES else ""
    raise BusyError(f"{name}: in use: {'; '.join(uses[:MAX_USES])}{more}")
