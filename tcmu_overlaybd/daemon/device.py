"""One device of the table: what the kernel has of it, and what serves it.

::

   attaching ──▶ ready ──▶ detaching ──▶ (gone)
   opening ──▶ ready                          found at start, or made by somebody else
   opening ──▶ broken ──▶ detaching           its image cannot be opened: it stays, and says why

All fields are guarded by the table's lock.  Ring and image come in either order; the
one that comes second joins them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from tcmu_overlaybd.daemon.messages import CommandCounts, DeviceState, DeviceStatus
from tcmu_overlaybd.daemon.remote_numbers import remote_numbers
from tcmu_overlaybd.daemon.served_image import ServedImage
from tcmu_overlaybd.daemon.state import Record
from tcmu_overlaybd.lio.discovery import BackstoreId, read_serial
from tcmu_overlaybd.lio.fabric import FabricKind, LoopbackPort
from tcmu_overlaybd.lio.iscsi import IscsiTarget, Portal
from tcmu_overlaybd.lio.kernel_device import Port
from tcmu_overlaybd.native.hub import HubDevice
from tcmu_overlaybd.native.tcmu import Ring
from tcmu_overlaybd.scsi.disk import DiskDescription


@dataclass
class Device:
    record: Record
    state: DeviceState
    reason: str = ""
    served: ServedImage | None = None
    hub_device: HubDevice | None = None
    ring: Ring | None = None
    is_cancelled: bool = False  # detach --force while it was attaching
    said_not_ready: bool = False  # the kernel believes that it has no size: rescan when it has

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def backstore(self) -> BackstoreId:
        return BackstoreId(self.record.hba, self.record.backstore)

    @property
    def port(self) -> Port:
        """How its backstore is reached; the same for the same record."""
        record = self.record
        match record.fabric:
            case FabricKind.LOOPBACK:
                return LoopbackPort.of_serial(record.serial)
            case FabricKind.ISCSI:
                portal = Portal.parse(record.portal)
                return IscsiTarget.of_device(record.name, record.serial, portal, record.initiator)
        return None

    def change_record(self, **changes: object) -> Record:
        self.record = msgspec.structs.replace(self.record, **changes)
        return self.record

    def join(self) -> None:
        """Lets ring and image find each other, when both are there."""
        if self.ring is not None and self.served is not None:
            self.ring.set_device(self.served.device)

    def describe(self) -> DiskDescription:
        """What INQUIRY and its like say; a disk whose size nobody knows yet is not ready."""
        is_ready = self.record.size > 0
        self.said_not_ready |= not is_ready
        return DiskDescription(
            size=self.record.size,
            serial=self.record.serial or self.name,
            read_only=not self.record.writable,
            is_ready=is_ready,
        )

    def status(self) -> DeviceStatus:
        record, port = self.record, self.port
        status = DeviceStatus(
            name=record.name,
            state=self.state,
            reason=self.reason,
            disk=f"/dev/{record.disk}" if record.disk else "",
            backstore=str(self.backstore.path),
            size=record.size,
            writable=record.writable,
            source=record.source,
            upper=record.upper,
            config=str(Path(record.config_path)),
            on_timeout=record.on_timeout,
            fabric=str(record.fabric),
            target=port.iqn if isinstance(port, IscsiTarget) else "",
            portal=record.portal,
            initiator=record.initiator,
            chap_file=record.chap_file,
            serial=record.serial,
            made_by="attach" if record.is_ours else "configfs",
        )
        return status if self.served is None else with_numbers(status, self.served)


def with_numbers(status: DeviceStatus, served: ServedImage) -> DeviceStatus:
    """status with what the data plane has counted."""
    stats = served.stats()
    return msgspec.structs.replace(
        status,
        layers=len(served.opened.layers),
        sealed=tuple(layer.file.name for layer in served.opened.layers if layer.file.kind == "sealed"),
        on_timeout=served.on_timeout,
        commands=CommandCounts(**stats.commands),
        bytes_read=stats.bytes["read"],
        bytes_written=stats.bytes["write"],
        errors=sum(stats.errors.values()),
        in_flight=stats.in_flight,
        parked=stats.parked,
        oldest_ms=stats.oldest_ms,
        **served.upper_numbers(),
        **remote_numbers(served.opened.remote_blobs, served.download_progress()),
    )


def learn_serial(device: Device) -> None:
    """An adopted device's serial number is written by its maker after we are told of it."""
    if not device.record.is_ours and not device.record.serial:
        device.change_record(serial=read_serial(device.backstore))
