"""Devices as the kernel tells of them: made by an attach of ours, found at start, or made by others.

``added`` and ``removed`` run on the main thread and take milliseconds, since every request
of the kernel waits behind them: the ring is bound, and an image that is not open yet
is opened by a pool.  A device whose image cannot be opened stays: it answers what
describes it, its data commands fail, and ``status`` says why.  One that was open before
this daemon started, and whose registry does not answer, is tried again until it does.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tcmu_overlaybd.config.image_config import ImageConfig, load_image_config
from tcmu_overlaybd.daemon.device import Device
from tcmu_overlaybd.daemon.resize import Resizer, judge
from tcmu_overlaybd.daemon.resources import Resources
from tcmu_overlaybd.daemon.served_image import ServedImage
from tcmu_overlaybd.daemon.state import Record
from tcmu_overlaybd.daemon.table import DeviceTable
from tcmu_overlaybd.daemon.timers import disk_timeout_s, open_timeout_ms
from tcmu_overlaybd.errors import (
    BusyError,
    FailedError,
    FormatError,
    OverlayBDError,
    RefusedError,
    UnavailableError,
)
from tcmu_overlaybd.image.open import OpenImage, open_image
from tcmu_overlaybd.lio import helper
from tcmu_overlaybd.lio.config_string import ConfigString
from tcmu_overlaybd.lio.discovery import BackstoreId, backstore_of_uio, find_disk
from tcmu_overlaybd.lio.fabric import FabricKind
from tcmu_overlaybd.native.hub import Change, HubDevice
from tcmu_overlaybd.native.tcmu import Tcmu
from tcmu_overlaybd.registry.deadline import Deadline

logger = logging.getLogger(__name__)

MAX_OPENING = 32  # images opened at a time; a dead one takes one place until its deadline
REMOVE_TIMEOUT_MS = 5000  # the kernel has no command left when it removes a device
CLOSE_TIMEOUT_S = 30.0

# The daemon before us may still hold the upper for the moment that its exit takes.
LOCK_TRIES = 40
LOCK_PAUSE_S = 0.05

# Between attempts to open an image whose registry does not answer: doubled each time.
FIRST_PAUSE_S = 1.0
MAX_PAUSE_S = 30.0
OPEN_S = 20.0  # for one attempt

# A disk that was scanned before its image was open: how long it may take to show in /sys.
RESCAN_TRIES = 100
RESCAN_PAUSE_S = 0.05
RESCAN_TIMEOUT_S = 20.0


class Newcomers:
    """The hub's listener."""

    def __init__(self, resources: Resources, tcmu: Tcmu) -> None:
        self._table = resources.table
        self._state = resources.state
        self._core = resources.core
        self._resources = resources
        self._store = resources.store
        self._downloads = resources.downloads
        self._tcmu = tcmu
        self._resizer = Resizer(resources)
        self.pool = ThreadPoolExecutor(MAX_OPENING, "open-image")

    def added(self, device: HubDevice) -> None:
        try:
            config = ConfigString.parse(device.config)
        except FormatError as error:
            raise RefusedError(str(error)) from error
        backstore = backstore_of_uio(device.uio_name)
        if backstore is None:
            raise RefusedError(f"{device.uio_name}: is gone again", errno.ENODEV)
        known = self._table.of_backstore(backstore, config) or self._adopt(config, backstore)
        size = device.map_size()
        wait_ms = open_timeout_ms(self._resources.limits_of(known.record))
        self._table.bind(
            known,
            device,
            lambda: self._tcmu.bind(device.fd, known.name, size, open_timeout_ms=wait_ms),
        )
        logger.info("%s: bound to %s", known.name, device.uio_name)
        if known.record.phase == "attaching":
            # Unless we are attaching it now, the last daemon was when it died: it will be
            # detached, and until then nothing may wait for its data.
            if known.state == "opening":
                self._set_broken(known, FailedError("the daemon ended while it was being attached"))
        elif known.state == "opening":
            self._submit(self._open, known)

    def removed(self, handle: int) -> None:
        device = self._table.of_handle(handle)
        if device is None:
            return
        release_ring(self._table, device)
        if not device.record.is_ours:
            self._submit(self._drop, device)

    def reconfig(self, handle: int, change: Change) -> None:
        device = self._table.of_handle(handle)
        if device is None:
            raise RefusedError("a device that is being removed takes no changes", errno.ENODEV)
        with self._table.lock:
            size = judge(device, change)
        if size:
            self._submit(self._resizer.finish, device, size)

    def close(self, timeout_s: float) -> bool:
        """Nothing is opened any more; whether all that was being opened has ended by then."""
        self.pool.shutdown(wait=False, cancel_futures=True)
        waiter = threading.Thread(target=self.pool.shutdown, daemon=True)
        waiter.start()
        waiter.join(timeout_s)
        return not waiter.is_alive()

    def _submit(self, work: Callable[..., None], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the pool has been shut down: we are stopping
            self.pool.submit(work, *arguments)

    def _adopt(self, config: ConfigString, backstore: BackstoreId) -> Device:
        """A device that somebody else made in configfs."""
        stem = re.sub("[^A-Za-z0-9._-]", "_", config.device_id or backstore.name)[:40]
        record = Record(
            name=self._free_name(stem),
            backstore=backstore.name,
            config_path=str(config.path),
            size=0,
            serial="",
            hba=backstore.hba,
            phase="attached",
            is_ours=False,
            fabric=FabricKind.NONE,
            source=(str(config.path),),
            device_id=config.device_id,
        )
        device = Device(record, "opening")
        self._table.add(device)
        return device

    def _free_name(self, stem: str) -> str:
        taken = {device.name for device in self._table.all()}
        return stem if stem not in taken else self._table.free_name(f"{stem}-")

    def _open(self, device: Device, pause_s: float = FIRST_PAUSE_S) -> None:
        """In the pool: nobody else would say what goes wrong here."""
        try:
            self._open_and_serve(device)
        except UnavailableError as error:
            if device.record.size > 0:  # it was open once, so what it lacks now will come back
                self._open_later(device, error, pause_s)
            else:
                self._set_broken(device, error)
        except OverlayBDError as error:
            self._set_broken(device, error)
        except Exception as error:
            logger.exception("%s: opening its image failed", device.name)
            self._set_broken(device, FailedError(f"a fault in the daemon: {type(error).__name__}: {error}"))

    def _open_later(self, device: Device, error: UnavailableError, pause_s: float) -> None:
        """The machine, and we with it, may have started before its network or the registry.  The
        pause takes no place of the pool."""
        if not self._table.note_delay(device, error):
            return  # it is being detached by now
        logger.warning("%s: its image is opened again in %.0f s: %s", device.name, pause_s, error)
        timer = threading.Timer(pause_s, self._submit_again, (device, min(2 * pause_s, MAX_PAUSE_S)))
        timer.daemon = True
        timer.start()

    def _submit_again(self, device: Device, pause_s: float) -> None:
        if device.state == "opening":
            self._submit(self._open, device, pause_s)

    def _open_and_serve(self, device: Device) -> None:
        config = load_image_config(Path(device.record.config_path))
        try:
            limits = self._resources.limits_of(device.record)
            served = ServedImage(self._open_patiently(device, config), self._core, device.name, limits)
        except OverlayBDError as error:
            write_result(config, f"failed:{error}")
            raise
        # A daemon that was killed while a disk grew may have left the old size in our record.
        if not device.record.is_ours or device.record.size != served.size:
            writable = served.is_writable
            self._state.save(device.change_record(size=served.size, writable=writable))
        if not self._table.serve_opened(device, served):
            served.close(CLOSE_TIMEOUT_S)  # it is being detached by now
            return
        served.start_download(self._downloads, self._store)
        write_result(config, "success")
        logger.info("%s: its image is open: %d bytes", device.name, served.size)
        if device.said_not_ready:
            rescan_when_seen(device, disk_timeout_s(self._resources.limits_of(device.record)))

    def _open_patiently(self, device: Device, config: ImageConfig) -> OpenImage:
        record = device.record
        writable = record.writable if record.is_ours else config.writable is not None
        for _ in range(LOCK_TRIES):
            try:
                return open_image(
                    record.config_path,
                    writable=writable,
                    lose_nothing=True,  # who uses the disk counts on what was acknowledged
                    name=device.name,
                    holder=f"tcmu-overlaybd serve (device {device.name})",
                    flush_interval_ms=self._resources.limits.flush_interval_ms,
                    store=self._store,
                    deadline=Deadline.after(OPEN_S),
                )
            except BusyError as error:
                busy = error
                time.sleep(LOCK_PAUSE_S)
        raise busy

    def _set_broken(self, device: Device, error: OverlayBDError) -> None:
        logger.error("%s: its image cannot be served: %s", device.name, error)
        self._table.set_broken(device, error)

    def _drop(self, device: Device) -> None:
        """An adopted device has been removed by whoever made it."""
        served = self._table.take_image(device)
        try:
            if served is not None:
                served.close(CLOSE_TIMEOUT_S)
        except OverlayBDError as error:
            logger.warning("%s: closing its image: %s", device.name, error)
        self._state.remove(device.name)
        self._table.forget(device)
        logger.info("%s: removed", device.name)


def release_ring(table: DeviceTable, device: Device) -> None:
    """Unbinds the ring of a device that the kernel has removed, if it still has one."""
    ring = table.unbind(device)
    if ring is None:
        return
    try:
        ring.unbind(leave_parked=False, timeout_ms=REMOVE_TIMEOUT_MS)
    except OverlayBDError as error:
        logger.warning("%s: its ring is given up: %s", device.name, error)


def rescan_when_seen(device: Device, disk_timeout: int) -> None:
    """The kernel scanned the disk while it had no size: lets it look again.  Whoever made the
    device does not know our timers, so the disk gets its own from us, too."""
    for _ in range(RESCAN_TRIES):
        disk = find_disk(device.record.serial)
        if disk:
            device.change_record(disk=disk)
            helper.rescan(disk, RESCAN_TIMEOUT_S, disk_timeout)
            return
        time.sleep(RESCAN_PAUSE_S)


def write_result(config: ImageConfig, text: str) -> None:
    """The result file that a snapshotter may have asked for (spec/config.md section 3)."""
    if not config.result_file:
        return
    try:
        Path(config.result_file).write_text(text)
    except OSError as error:
        logger.warning("%s: cannot be written: %s", config.result_file, error.strerror)
