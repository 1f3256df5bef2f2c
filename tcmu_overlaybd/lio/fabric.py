"""The fabrics, and the loopback port through which a backstore becomes a disk of this machine.

Each device has a port, and so a SCSI host, of its own: the kernel's error handling
stops a whole host, and one dead image must not stop the others.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from tcmu_overlaybd.errors import UsageError


class FabricKind(StrEnum):
    LOOPBACK = "loopback"
    ISCSI = "iscsi"
    NONE = "none"


def choose_fabric(text: str) -> FabricKind:
    """The fabric of that name.  Raises UsageError for one that there is not."""
    try:
        return FabricKind(text)
    except ValueError:
        raise UsageError(f"fabric {text!r}: one of {', '.join(FabricKind)}") from None


@dataclass(frozen=True, slots=True)
class LoopbackPort:
    """World wide names of the port and of the initiator that looks at it."""

    port: str
    nexus: str

    @classmethod
    def of_serial(cls, serial: str) -> Self:
        return cls(_naa("port", serial), _naa("nexus", serial))


def _naa(what: str, serial: str) -> str:
    """NAA 5h, the form for ports, with LIO's company id 001405h and 36 bits of a hash."""
    return "naa.5001405" + hashlib.sha256(f"{what}/{serial}".encode()).hexdigest()[:9]
