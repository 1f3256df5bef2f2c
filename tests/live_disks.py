"""Disks in service, as the daemon has them, without the kernel: commands come from memory."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

from oracle.reader import read_image

from tcmu_overlaybd.config.image_config import ImageConfig
from tcmu_overlaybd.config.service_config import DeviceConfig, ServiceConfig
from tcmu_overlaybd.daemon.attach import Attacher
from tcmu_overlaybd.daemon.device import Device
from tcmu_overlaybd.daemon.messages import SealedUpper, SnapshotRequest
from tcmu_overlaybd.daemon.names import Names
from tcmu_overlaybd.daemon.resources import Resources
from tcmu_overlaybd.daemon.served_image import ServedImage
from tcmu_overlaybd.daemon.snapshot import Snapshotter
from tcmu_overlaybd.daemon.state import Record, State
from tcmu_overlaybd.daemon.table import DeviceTable
from tcmu_overlaybd.image.open import open_image
from tcmu_overlaybd.native import mem
from tcmu_overlaybd.native.core import Core
from tcmu_overlaybd.remote.download import Downloads
from tcmu_overlaybd.remote.settings import settings_of
from tcmu_overlaybd.remote.store import BlobStore

CLOSE_TIMEOUT_S = 60


class LiveDisks:
    """A state folder, and the disks in it; all closed at the end."""

    def __init__(self, folder: Path) -> None:
        config = ServiceConfig()
        self.state = State(folder)
        self.table = DeviceTable([])
        self.core = Core.open()
        self._store = BlobStore(settings_of(config))
        resources = Resources(
            table=self.table,
            state=self.state,
            names=Names(folder / "names", []),
            core=self.core,
            limits=DeviceConfig(),
            store=self._store,
            downloads=Downloads(config.download, free_floor=0),
        )
        self.snapshotter = Snapshotter(resources, Attacher(resources))

    def open(
        self, name: str, size: int = 0, base: ImageConfig | None = None, *, sparse: bool = False
    ) -> LiveDisk:
        """A disk with an upper of its own in the state folder: a blank one, or one over base."""
        opened = open_image(
            base,
            writable=True,
            upper_dir=self.state.uppers / name,
            size=size or None,
            sparse=sparse,
            name=name,
            flush_interval_ms=0,
        )
        self.state.save_config(name, opened.config)
        return self._serve(name, ServedImage(opened, self.core, name, DeviceConfig()))

    def reopen(self, name: str) -> LiveDisk:
        """As the next daemon does it."""
        path = self.state.config_path(name)
        opened = open_image(path, writable=True, name=name, flush_interval_ms=0)
        return self._serve(name, ServedImage(opened, self.core, name, DeviceConfig()))

    def close(self, name: str) -> None:
        device = self.table.find(name)
        served = self.table.take_image(device)
        self.table.forget(device)
        if served is not None:
            served.close(CLOSE_TIMEOUT_S)

    def snapshot(self, *names: str) -> tuple[SealedUpper, ...]:
        return self.snapshotter.snapshot(SnapshotRequest(names)).devices

    def _serve(self, name: str, served: ServedImage) -> LiveDisk:
        record = Record(
            name=name,
            backstore=name,
            config_path=str(self.state.config_path(name)),
            size=served.size,
            serial=name,
            hba="user_0",
            phase="attached",
            writable=True,
            device_id=name,
        )
        self.table.add(Device(record, "ready", served=served))
        return LiveDisk(self, name, served)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for device in self.table.all():
            self.close(device.name)
        self.core.close()
        self._store.close()


class LiveDisk:
    def __init__(self, disks: LiveDisks, name: str, served: ServedImage) -> None:
        self._disks = disks
        self.name = name
        self.served = served

    @property
    def config(self) -> Path:
        return self._disks.state.config_path(self.name)

    @property
    def upper(self) -> Path:
        """Its folder."""
        return self._disks.state.uppers / self.name

    def write(self, data: bytes, offset: int) -> None:
        mem.write(self.served.device, data, offset)

    def discard(self, length: int, offset: int) -> None:
        mem.discard(self.served.device, length, offset)

    def flush(self) -> None:
        mem.flush(self.served.device)

    def read(self, length: int, offset: int) -> bytes:
        return mem.read(self.served.device, length, offset)

    def read_all(self) -> bytes:
        return self.read(self.served.size, 0)

    def seen_by_oracle(self) -> bytes:
        """What a reader that shares no line with us finds in the files, once everything is flushed."""
        self.flush()
        return read_image(self.config).read(0, self.served.size)
