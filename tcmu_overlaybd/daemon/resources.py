"""What the parts of the daemon share; made once, by ``service``."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from tcmu_overlaybd.config.service_config import DeviceConfig
from tcmu_overlaybd.daemon.names import Names
from tcmu_overlaybd.daemon.state import Record, State
from tcmu_overlaybd.daemon.table import DeviceTable
from tcmu_overlaybd.lio.hubs import HubKind
from tcmu_overlaybd.native.core import Core
from tcmu_overlaybd.remote.download import Downloads
from tcmu_overlaybd.remote.store import BlobStore


@dataclass(frozen=True, slots=True)
class Resources:
    table: DeviceTable
    state: State
    names: Names
    core: Core
    limits: DeviceConfig
    store: BlobStore
    downloads: Downloads
    hub: HubKind = "libtcmu"

    def limits_of(self, record: Record) -> DeviceConfig:
        """The configuration's, but for what was said when the device was attached."""
        on_timeout = record.on_timeout or self.limits.on_timeout
        return msgspec.structs.replace(self.limits, on_timeout=on_timeout)
