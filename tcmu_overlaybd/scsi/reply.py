"""The answer to a command: GOOD with data, or CHECK CONDITION with sense."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from tcmu_overlaybd.scsi.sense import Sense


@dataclass(frozen=True, slots=True)
class Reply:
    """GOOD with ``data`` (already cut to the allocation length) when ``sense`` is None."""

    data: bytes = b""
    sense: Sense | None = None

    @classmethod
    def good(cls, data: bytes = b"", allocation_length: int | None = None) -> Self:
        """GOOD; data longer than the initiator's allocation length is cut, which is no error."""
        return cls(data if allocation_length is None else data[:allocation_length])

    @classmethod
    def check(cls, sense: Sense) -> Self:
        return cls(sense=sense)
