"""The service's configuration, ``/etc/overlaybd/overlaybd.json`` in the reference (spec/config.md section 1).

What is needed so far: the log, and the limits of devices.  Keys of the registry and
the cache are ignored until there is one.  ``device`` is ours; the reference ignores it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from tcmu_overlaybd.config.json_file import read_json

Level = Annotated[int, msgspec.Meta(ge=0, le=3)]


class LogConfig(msgspec.Struct, frozen=True, rename="camel"):
    log_level: Level = 1
    log_path: str = ""


class DeviceConfig(msgspec.Struct, frozen=True, rename="camel"):
    """What one device may take.  Times in milliseconds; 0 is the default of the data plane."""

    io_timeout_ms: Annotated[int, msgspec.Meta(ge=0, le=86_400_000)] = 0
    on_timeout: Literal["error", "retry", "freeze"] = "error"
    flush_interval_ms: Annotated[int, msgspec.Meta(ge=0, le=86_400_000)] = 5000


class ServiceConfig(msgspec.Struct, frozen=True, rename="camel"):
    log_level: Level = 1
    log_path: str = ""
    log_config: LogConfig = LogConfig()
    device: DeviceConfig = DeviceConfig()

    @property
    def log(self) -> LogConfig:
        """The pair that counts: logConfig when it has a path, else the old keys."""
        return self.log_config if self.log_config.log_path else LogConfig(self.log_level, self.log_path)


def load_service_config(path: Path) -> ServiceConfig:
    """Raises MissingError, or FormatError with the key that is wrong."""
    return read_json(path, ServiceConfig)
