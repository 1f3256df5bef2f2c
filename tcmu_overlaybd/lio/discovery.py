"""Which disk of this machine is which of our devices: read from /sys, never from configfs.

Even to list a target that is being taken down can hang in the kernel, so a disk is
recognised by the unit serial number that it gave when it was scanned.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tcmu_overlaybd.errors import FormatError
from tcmu_overlaybd.lio.config_string import ConfigString
from tcmu_overlaybd.lio.kernel_text import read_kernel_text

SYS = Path("/sys")
CONFIGFS = Path("/sys/kernel/config/target")


@dataclass(frozen=True, slots=True)
class BackstoreId:
    """How the kernel names a backstore, from the name of its UIO device."""

    hba: str
    name: str

    @property
    def path(self) -> Path:
        return CONFIGFS / "core" / self.hba / self.name


def parse_uio_name(text: str) -> BackstoreId | None:
    """``tcm-user/<hba number>/<name>/<config string>``; None when it is another driver's."""
    match text.strip().split("/", 3):
        case ["tcm-user", number, name, _] if number.isdecimal():
            return BackstoreId(f"user_{number}", name)
    return None


def config_of_uio_name(text: str) -> str:
    """The config string in it; "" when it is another driver's."""
    return text.strip().split("/", 3)[3] if parse_uio_name(text) is not None else ""


def backstore_of_uio(uio_name: str, sys: Path = SYS) -> BackstoreId | None:
    """The backstore behind ``uio3``; None when the device is gone, or not TCMU's."""
    return parse_uio_name(read_kernel_text(sys / "class/uio" / uio_name / "name"))


def find_backstores(sys: Path = SYS) -> list[tuple[BackstoreId, ConfigString]]:
    """Every TCMU device of our subtype that the kernel has, served or not."""
    found = []
    for entry in sorted((sys / "class/uio").glob("uio*/name")):
        text = read_kernel_text(entry)
        backstore = parse_uio_name(text)
        if backstore is None:
            continue
        try:
            found.append((backstore, ConfigString.parse(text.strip().split("/", 3)[3])))
        except FormatError:
            continue
    return found


def find_disk(serial: str, sys: Path = SYS) -> str:
    """``sda`` of the disk with this unit serial number; "" when there is none, or it is not known."""
    if not serial:
        return ""  # a disk without a serial number is another's
    for entry in sorted((sys / "block").glob("sd*/device/vpd_pg80")):
        if _serial_of_page(entry) == serial:
            return entry.parts[-3]
    return ""


def read_serial(backstore: BackstoreId) -> str:
    """The serial number that somebody gave to a backstore; its name when nobody did."""
    text = read_kernel_text(backstore.path / "wwn/vpd_unit_serial")
    return text.rpartition(": ")[2].strip() or backstore.name


def read_dev_size(backstore: BackstoreId) -> int:
    """What LIO has been told of a backstore's size, bytes; 0 when it is gone."""
    text = read_kernel_text(backstore.path / "attrib/dev_size").strip()
    return int(text) if text.isdecimal() else 0


def _serial_of_page(path: Path) -> str:
    """VPD page 80h: 4 bytes of header, then the serial number."""
    try:
        return path.read_bytes()[4:].decode("ascii", "replace").strip()
    except OSError:
        return ""
