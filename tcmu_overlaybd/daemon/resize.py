"""A disk that grows while it is used: asked for by ``resize``, or by whoever writes LIO's ``dev_size``.

::

   resize:     image and its headers → durable → record → helper: dev_size, rescan
   dev_size:   agreed at once → the same by the pool, without dev_size

The kernel asks us about dev_size on the main thread, where every other request of it
waits: so nothing is written there.  What may still fail after we have agreed is the disk
under the upper; then the log says so, and the disk keeps its size.
"""

from __future__ import annotations

import errno
import logging
import time

from tcmu_overlaybd.daemon.device import Device
from tcmu_overlaybd.daemon.messages import DeviceStatus, ResizeRequest
from tcmu_overlaybd.daemon.resources import Resources
from tcmu_overlaybd.daemon.served_image import ServedImage
from tcmu_overlaybd.errors import BusyError, OverlayBDError, RefusedError
from tcmu_overlaybd.lio import helper
from tcmu_overlaybd.lio.discovery import find_disk, read_dev_size
from tcmu_overlaybd.native.hub import Change, ConfigChange, SizeChange

logger = logging.getLogger(__name__)

RESCAN_TIMEOUT_S = 20.0
MIN_HELPER_S = 1.0
BUSY_TRIES = 100
BUSY_PAUSE_S = 0.1


class Resizer:
    """Safe for use by several threads."""

    def __init__(self, resources: Resources) -> None:
        self._table = resources.table
        self._state = resources.state

    def resize(self, device: Device, request: ResizeRequest) -> DeviceStatus:
        """Returns when the kernel knows.  The same size again does the kernel's part again.

        Raises UsageError (smaller, no whole sectors), ReadOnlyError, BusyError.
        """
        deadline = time.monotonic() + request.timeout
        self._grow(device, self._served(device), request.size)
        left = max(deadline - time.monotonic(), MIN_HELPER_S)
        backstore = device.backstore
        helper.resize(backstore.hba, backstore.name, request.size, disk_of(device), left)
        logger.info("%s: has %d bytes now", device.name, request.size)
        with self._table.lock:
            return device.status()

    def finish(self, device: Device, size: int) -> None:
        """What was agreed to with the kernel; in the pool, so nobody else would say what fails."""
        try:
            self._grow_patiently(device, size)
            disk = disk_of(device)
            if disk:
                helper.rescan(disk, RESCAN_TIMEOUT_S)
        except OverlayBDError as error:
            logger.warning("%s: told the kernel of %d bytes, but: %s", device.name, size, error)
        else:
            logger.info("%s: has %d bytes now", device.name, size)

    def _served(self, device: Device) -> ServedImage:
        with self._table.lock:
            served = device.served
            if served is None or device.state != "ready":
                raise BusyError(f"{device.name}: it is {device.state}, so its size stays")
        return served

    def _grow_patiently(self, device: Device, size: int) -> None:
        """Nobody is there to try again: a snapshot, or another growth, is over in a moment."""
        for _ in range(BUSY_TRIES):
            try:
                self._grow(device, self._served(device), size)
            except BusyError as error:
                busy = error
                time.sleep(BUSY_PAUSE_S)
            else:
                return
        raise busy

    def _grow(self, device: Device, served: ServedImage, size: int) -> None:
        served.grow(size)
        with self._table.lock:
            record = device.change_record(size=size)
        self._state.save(record)


def judge(device: Device, change: Change) -> int:
    """What somebody wants to change in LIO's attributes: the size to grow to, 0 for nothing.

    A configuration that is restored writes every attribute as it is, so what changes nothing
    is agreed to, and so is emulate_write_cache, for our cache mode page is our own.
    Raises RefusedError.
    """
    if isinstance(change, SizeChange):
        return _judge_size(device, change.size)
    if isinstance(change, ConfigChange):
        now = device.hub_device.config if device.hub_device else ""
        if change.config.strip() != now:
            raise RefusedError(
                f"{device.name}: its configuration {now} cannot become {change.config.strip()!r}: "
                "remove the backstore, and create it anew"
            )
    return 0


def _judge_size(device: Device, size: int) -> int:
    now = device.record.size
    # Whoever made the backstore may have written any size; that of the disk is the image's.
    if size in (now, read_dev_size(device.backstore)):
        return 0
    if device.served is None or now == 0:
        raise RefusedError(f"{device.name}: its image is not open, so its size stays", errno.EBUSY)
    try:
        device.served.check_growth(size)
    except OverlayBDError as error:
        raise RefusedError(f"{device.name}: dev_size: {error}") from error
    return size


def disk_of(device: Device) -> str:
    """``sda``; "" when it is no disk of this machine."""
    return device.record.disk or find_disk(device.record.serial)
