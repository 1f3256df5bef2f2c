"""Which images may become larger, and to which size (spec/lsmt.md section 10)."""

from __future__ import annotations

from tcmu_overlaybd.errors import ReadOnlyError, UsageError
from tcmu_overlaybd.formats.lsmt import MAX_VIRTUAL_SIZE, SECTOR_SIZE
from tcmu_overlaybd.image.open import OpenImage


def check_growth(opened: OpenImage, size: int) -> None:
    """Raises UsageError for a size that the disk cannot get, ReadOnlyError for one that keeps its own."""
    name, now = opened.name, opened.image.size
    if opened.image.is_read_only or opened.upper is None:
        raise ReadOnlyError(f"{name}: read-only, so its size of {now} bytes stays; attach it --writable")
    if size < now:
        raise UsageError(f"{name}: a disk of {now} bytes does not shrink to {size}")
    if size % SECTOR_SIZE or size > MAX_VIRTUAL_SIZE:
        raise UsageError(f"{name}: a disk of {size} bytes is not possible: whole sectors of {SECTOR_SIZE}")
