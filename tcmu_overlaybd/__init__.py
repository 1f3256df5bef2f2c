"""tcmu_overlaybd: overlaybd images as local SCSI disks, block by block."""

__version__ = "0.1.0"
