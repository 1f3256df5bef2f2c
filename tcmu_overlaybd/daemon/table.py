"""The table of devices: who is who for the kernel, the control socket and the rings.

``lock`` guards the table and the fields of every Device in it.  It is held for look-ups
and for calls to the ring thread, which never blocks; never while an image is opened or
closed, a file is written, or the helper runs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from tcmu_overlaybd.daemon.device import Device
from tcmu_overlaybd.daemon.messages import DeviceState
from tcmu_overlaybd.daemon.served_image import ServedImage
from tcmu_overlaybd.daemon.state import Record
from tcmu_overlaybd.errors import (
    BusyError,
    LimitError,
    MissingError,
    OverlayBDError,
    UnavailableError,
)
from tcmu_overlaybd.lio.config_string import ConfigString
from tcmu_overlaybd.lio.discovery import BackstoreId
from tcmu_overlaybd.native.hub import HubDevice
from tcmu_overlaybd.native.tcmu import Ring

MAX_DEVICES = 4096


class DeviceTable:
    def __init__(self, records: Iterable[Record]) -> None:
        """Each record is a device that the hub is expected to find."""
        self.lock = threading.Lock()
        self._is_closed = False
        self._devices = {record.name: Device(record, "opening") for record in records}
        self._by_handle: dict[int, Device] = {}
        self._by_ring: dict[int, Device] = {}

    def close(self) -> None:
        """No device is taken in from now on."""
        with self.lock:
            self._is_closed = True

    def check_open(self) -> None:
        """Raises UnavailableError when the daemon is stopping."""
        if self._is_closed:
            raise UnavailableError("the daemon is stopping")

    # -- look-ups

    def all(self) -> list[Device]:
        with self.lock:
            return list(self._devices.values())

    def sorted(self) -> list[Device]:
        """By name.  The caller holds the lock."""
        return [self._devices[name] for name in sorted(self._devices)]

    def find(self, name: str) -> Device:
        """The device of that name, or whose disk is called so (``sda``).  Raises MissingError."""
        with self.lock:
            if name in self._devices:
                return self._devices[name]
            for device in self._devices.values():
                if device.record.disk and device.record.disk == name:
                    return device
        raise MissingError(f"{name}: there is no such device")

    def of_ring(self, ring_id: int) -> Device | None:
        with self.lock:
            return self._by_ring.get(ring_id)

    def of_handle(self, handle: int) -> Device | None:
        with self.lock:
            return self._by_handle.get(handle)

    def of_backstore(self, backstore: BackstoreId, config: ConfigString) -> Device | None:
        """The device that an attach of ours, or a daemon before us, made in the kernel."""
        path = str(config.path)
        with self.lock:
            for device in self._devices.values():
                if device.record.config_path == path and device.backstore == backstore:
                    return device
        return None

    def free_name(self, stem: str, taken: Iterable[str] = ()) -> str:
        """``stem0``, ``stem1``, ...: the first that no device has, nor anything in taken."""
        with self.lock:
            used = {*self._devices, *taken}
        return next(name for name in (f"{stem}{i}" for i in range(len(used) + 1)) if name not in used)

    # -- changes

    def add(self, device: Device) -> None:
        """Raises BusyError when the name is in use."""
        with self.lock:
            self.check_open()
            if device.name in self._devices:
                raise BusyError(f"{device.name}: a device of that name is attached already")
            if len(self._devices) >= MAX_DEVICES:
                raise LimitError(
                    f"{device.name}: {MAX_DEVICES} devices are attached, there is room for no more"
                )
            self._devices[device.name] = device

    def forget(self, device: Device) -> None:
        with self.lock:
            self._devices.pop(device.name, None)

    def set_state(self, device: Device, state: DeviceState, reason: str = "") -> None:
        with self.lock:
            device.state, device.reason = state, reason

    def bind(self, device: Device, hub_device: HubDevice, make_ring: Callable[[], Ring]) -> None:
        """The kernel's side is there.

        The ring is made under the lock: its first command is not to meet a ring that
        nobody knows.
        """
        with self.lock:
            ring = make_ring()
            device.ring, device.hub_device = ring, hub_device
            self._by_handle[hub_device.handle] = device
            self._by_ring[ring.id] = device
            device.join()

    def unbind(self, device: Device) -> Ring | None:
        """The kernel's side goes; its ring is the caller's to unbind."""
        with self.lock:
            ring, hub_device = device.ring, device.hub_device
            device.ring = device.hub_device = None
            if ring is not None and hub_device is not None:
                self._by_ring.pop(ring.id, None)
                self._by_handle.pop(hub_device.handle, None)
        return ring

    def take_all(self, device: Device) -> tuple[Ring | None, ServedImage | None]:
        """Ring and image, which are the caller's to let go.  Whoever is still opening the image
        learns that it is too late: no ring is there to be told, and it closes what it has."""
        with self.lock:
            ring, served = device.ring, device.served
            device.ring = device.served = None
            if device.state == "opening":
                device.state = "detaching"
        return ring, served

    def give_image(self, device: Device, served: ServedImage) -> None:
        """The image's side is there."""
        with self.lock:
            device.served = served
            device.join()

    def serve_opened(self, device: Device, served: ServedImage) -> bool:
        """The image of a device that was opening is there; false when it is not opening any more."""
        with self.lock:
            if device.state != "opening":
                return False
            device.served, device.state, device.reason = served, "ready", ""
            device.join()
        return True

    def note_delay(self, device: Device, error: OverlayBDError) -> bool:
        """It goes on opening, and status says what it waits for; false when it is not opening any more."""
        with self.lock:
            if device.state == "opening":
                device.reason = str(error)
            return device.state == "opening"

    def set_broken(self, device: Device, error: OverlayBDError) -> None:
        """Its data commands fail from now on; unless somebody is detaching it, it stays so."""
        with self.lock:
            if device.state == "opening":
                device.state, device.reason = "broken", str(error)
            if device.ring is not None:
                device.ring.set_broken(error)

    def take_image(self, device: Device) -> ServedImage | None:
        """The image's side goes; closing it is the caller's."""
        with self.lock:
            served, device.served = device.served, None
            if device.ring is not None and served is not None:
                device.ring.set_device(None)
        return served
