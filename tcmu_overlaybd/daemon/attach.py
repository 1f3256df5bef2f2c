"""Attach, as asked for over the control socket.

Each step of an attach leaves a callback that takes it back, and they are run in reverse
when a later step fails::

   name reserved → image open (an upper made) → record saved → helper: backstore, port,
   disk readable → record says "attached"

While the helper works, the kernel tells the hub, and Newcomers binds the ring to the
image that is open by then.  A daemon that dies in between leaves a record that says
"attaching": its successor detaches the device, and removes the upper that was made for
it (daemon/recovery.py).  The hooks are the steps at which a test has it die.
"""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from tcmu_overlaybd.config.image_config import ImageConfig
from tcmu_overlaybd.config.upper_dir import UpperDir
from tcmu_overlaybd.daemon.device import Device
from tcmu_overlaybd.daemon.messages import AttachRequest, DeviceStatus
from tcmu_overlaybd.daemon.newcomers import release_ring
from tcmu_overlaybd.daemon.opening import open_unless_cancelled
from tcmu_overlaybd.daemon.resources import Resources
from tcmu_overlaybd.daemon.served_image import ServedImage
from tcmu_overlaybd.daemon.state import Record
from tcmu_overlaybd.daemon.timers import disk_timeout_s
from tcmu_overlaybd.errors import (
    BusyError,
    FailedError,
    KilledError,
    OverlayBDError,
    TimeoutExpiredError,
)
from tcmu_overlaybd.image.open import OpenImage, open_image
from tcmu_overlaybd.image.source import resolve_source
from tcmu_overlaybd.lio import kernel_device
from tcmu_overlaybd.lio.backstore import HBA, Backstore, Tunables, check_name, serial_number
from tcmu_overlaybd.lio.config_string import ConfigString
from tcmu_overlaybd.lio.fabric import FabricKind, choose_fabric
from tcmu_overlaybd.lio.helper import HelperReport
from tcmu_overlaybd.lio.iscsi import Chap, Portal
from tcmu_overlaybd.lio.own_disks import check_not_ours
from tcmu_overlaybd.native.testing import hook
from tcmu_overlaybd.registry.deadline import Deadline

logger = logging.getLogger(__name__)

DEFAULT_STEM = "disk"
UNDO_TIMEOUT_S = 10.0
MIN_HELPER_S = 1.0


class Attacher:
    """Safe for use by several threads."""

    def __init__(self, resources: Resources) -> None:
        self._table = resources.table
        self._state = resources.state
        self._names = resources.names
        self._core = resources.core
        self._resources = resources
        self._store = resources.store
        self._downloads = resources.downloads

    def attach(self, request: AttachRequest, config: ImageConfig | None = None) -> DeviceStatus:
        """Returns when the disk can be read; leaves nothing behind when it raises.

        config, when there is one, is the image, and the request's source is what status shows.
        """
        deadline = time.monotonic() + request.timeout
        if config is None:
            request.check()
        with ExitStack() as undo:
            device = self._reserve(request)
            undo.callback(self._table.forget, device)
            undo.callback(self._state.remove, device.name)
            hook("attach.reserved")
            opened = open_unless_cancelled(
                device.name,
                lambda: self._open_image(device, request, config, deadline),
                lambda: device.is_cancelled,
            )
            served = ServedImage(opened, self._core, device.name, self._resources.limits_of(device.record))
            undo.callback(served.undo, UNDO_TIMEOUT_S)
            hook("attach.image_opened")
            self._save(device, opened)
            hook("attach.record_saved")
            self._names.put(device.record)
            undo.callback(self._names.drop, device.record)
            hook("attach.name_put")
            self._table.give_image(device, served)
            undo.callback(self._table.take_image, device)
            undo.callback(release_ring, self._table, device)
            report = self._make(device, served, self._choose_chap(device, request), deadline, undo)
            hook("attach.kernel_done")
            self._state.save(device.change_record(phase="attached", disk=report.disk, new_upper=""))
            hook("attach.settled")
            self._table.set_state(device, "ready")
            undo.pop_all()
        served.start_download(self._downloads, self._store)
        log_steps(device, report)
        with self._table.lock:
            return device.status()

    def _reserve(self, request: AttachRequest) -> Device:
        """A name that was not asked for is chosen again when another attach is quicker."""
        while True:
            uppers = (entry.name for entry in self._state.uppers.iterdir())
            name = check_name(request.name or self._table.free_name(DEFAULT_STEM, uppers))
            device = Device(self._first_record(name, request), "attaching")
            try:
                self._table.add(device)
            except BusyError:
                if request.name:
                    raise
            else:
                return device

    def _first_record(self, name: str, request: AttachRequest) -> Record:
        path = self._state.config_path(name)
        fabric = choose_fabric(request.fabric)
        ConfigString(path, name).format()  # what the kernel would not take is refused before anything is made
        return Record(
            name=name,
            backstore=name,
            config_path=str(path),
            size=0,
            serial=serial_number(self._state.identity, name),
            hba=HBA,
            phase="attaching",
            fabric=fabric,
            source=request.source,
            device_id=name,
            on_timeout=request.on_timeout,
            portal=str(Portal.parse(request.portal)) if fabric is FabricKind.ISCSI else "",
            initiator=request.initiator,
        )

    def _open_image(
        self, device: Device, request: AttachRequest, config: ImageConfig | None, deadline: float
    ) -> OpenImage:
        until = Deadline(deadline, request.timeout)
        if config is None and not request.new:
            config = resolve_source(request.source, self._store, until)
        folder = self._upper_folder(device.name, request, config)
        if request.new and folder is not None and UpperDir(folder).exists():
            raise BusyError(f"{folder}: there is an upper already; attach it without --new, or remove it")
        self._announce_upper(device, folder)
        return open_image(
            config,
            writable=request.writable or request.new or bool(request.upper),
            upper_dir=folder,
            size=request.size or None,
            sparse=request.sparse,
            drop_unflushed=request.drop_unflushed,
            holder=f"tcmu-overlaybd serve (device {device.name})",
            flush_interval_ms=self._resources.limits.flush_interval_ms,
            name=device.name,
            store=self._store,
            deadline=until,
        )

    def _announce_upper(self, device: Device, folder: Path | None) -> None:
        """An upper that is about to be made goes with its attach, also when the daemon dies first."""
        if folder is None or not UpperDir(folder).is_free():
            return
        self._state.save(device.change_record(new_upper=str(folder)))
        hook("attach.upper_announced")

    def _upper_folder(self, name: str, request: AttachRequest, config: ImageConfig | None) -> Path | None:
        """Where writes go; None for the upper that the configuration itself names, or for none."""
        if request.upper:
            return Path(request.upper)
        if config is None or (request.writable and config.writable is None):
            return self._state.uppers / name
        return None

    def _save(self, device: Device, opened: OpenImage) -> None:
        """From here on a daemon that dies leaves a trace."""
        if opened.upper is not None and not opened.image.is_read_only:
            check_not_ours(opened.upper.data, "an upper")
        self._state.save_config(device.name, opened.config)
        hook("attach.config_saved")
        writable = not opened.image.is_read_only
        upper = str(opened.upper.index.parent) if writable and opened.upper is not None else ""
        self._state.save(device.change_record(size=opened.image.size, writable=writable, upper=upper))

    def _choose_chap(self, device: Device, request: AttachRequest) -> Chap | None:
        """What initiators must know; a password that we make up is told by a file, not by a log."""
        if device.record.fabric is not FabricKind.ISCSI or request.no_chap or request.chap is not None:
            return request.chap
        chap = Chap.generate(device.name)
        self._state.save(device.change_record(chap_file=str(self._state.save_chap(device.name, chap))))
        return chap

    def _make(
        self, device: Device, served: ServedImage, chap: Chap | None, deadline: float, undo: ExitStack
    ) -> HelperReport:
        """The kernel's part.  Raises what the helper says, having taken down what it left."""
        disk_timeout = disk_timeout_s(self._resources.limits_of(device.record))
        backstore = Backstore(
            name=device.name,
            config=ConfigString(Path(device.record.config_path), device.name),
            size=served.size,
            serial=device.record.serial,
            tunables=replace(Tunables(), disk_timeout=disk_timeout, qfull_time_out=disk_timeout),
            kernel_waits=self._resources.hub == "libtcmu",
        )
        remaining = max(deadline - time.monotonic(), MIN_HELPER_S)
        try:
            report = kernel_device.make(backstore, device.port, chap, remaining, on_late=served.fail_parked)
        except (TimeoutExpiredError, KilledError):
            self._take_down(device, served, undo)
            raise
        if device.is_cancelled:
            self._take_down(device, served, undo)
            raise FailedError(f"{device.name}: detached while it was being attached")
        return report

    def _take_down(self, device: Device, served: ServedImage, undo: ExitStack) -> None:
        """Removes what is left in the kernel.  What cannot be removed stays in the table,
        broken, so that it is seen and can be detached later."""
        served.fail_parked()
        try:
            kernel_device.remove(HBA, device.name, device.port, UNDO_TIMEOUT_S, claim=False)
        except OverlayBDError as error:
            undo.pop_all()
            self._table.set_state(device, "broken", f"its attach could not be undone: {error}")


def log_steps(device: Device, report: HelperReport) -> None:
    steps = " ".join(f"{step}={micros / 1000:.1f}" for step, micros in report.steps)
    place = report.disk or device.status().target or "no disk"
    logger.info("%s: attached as %s (ms: %s)", device.name, place, steps)
