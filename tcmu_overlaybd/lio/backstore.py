"""The backstore of a device: its names in configfs, its serial number, its tunables."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from tcmu_overlaybd.errors import UsageError
from tcmu_overlaybd.lio.config_string import ConfigString

# All our devices share one HBA; the number is ours by custom only, so that targetcli's,
# which count up from 0, are not in the way.
HBA = "user_2026"

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,47}")


def check_name(name: str) -> str:
    """name, when it can be a device's.  Raises UsageError.

    It becomes a file name, a configfs folder, a part of a config string and of a udev link.
    """
    if not NAME.fullmatch(name):
        raise UsageError(
            f"device name {name!r}: 1 to 48 letters, digits, '.', '_' or '-', not beginning with a sign"
        )
    return name


def serial_number(identity: str, name: str) -> str:
    """32 hexadecimal digits: the same for the same name on the same machine.

    identity is the random text of the state folder, so that two machines differ.
    """
    return hashlib.sha256(f"{identity}/{name}".encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Tunables:
    """What we ask of the kernel for one device; the reasons are in configfs/README.rst."""

    queue_depth: int = 128
    data_area_mb: int = 128  # queue_depth times the largest transfer: a full area blocks flushes
    ring_mb: int = 1
    max_sectors: int = 2048
    qfull_time_out: int = 60  # seconds
    disk_timeout: int = 60  # seconds: io_timeout + 40
    read_ahead_kb: int = 1024


@dataclass(frozen=True, slots=True)
class Backstore:
    """``size`` is in bytes.  kernel_waits: for a daemon's answer, whoever that is (lio/netlink_hub.py)."""

    name: str
    config: ConfigString
    size: int
    serial: str
    hba: str = HBA
    tunables: Tunables = Tunables()
    kernel_waits: bool = True
