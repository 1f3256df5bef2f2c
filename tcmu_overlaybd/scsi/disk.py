"""What a disk says about itself."""

from __future__ import annotations

from dataclasses import dataclass

BLOCK_SIZE = 512
VENDOR = "OVERLYBD"


@dataclass(frozen=True, slots=True)
class DiskDescription:
    """All that the commands of this package depend on.

    ``size`` is in bytes, a multiple of the block size.  ``serial`` is the unit serial
    number, from which the designators of VPD page 83h are made, too.  A disk that is
    not ready (its image is opening, or could not be opened) answers INQUIRY and the
    mode pages, but has no capacity yet.
    """

    size: int
    serial: str
    read_only: bool = False
    is_ready: bool = True
    vendor: str = VENDOR
    product: str = "overlaybd disk"
    revision: str = "0001"

    @property
    def nr_blocks(self) -> int:
        return self.size // BLOCK_SIZE
