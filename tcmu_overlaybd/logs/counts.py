"""What the log of this process has counted, for its metrics."""

from __future__ import annotations

from dataclasses import dataclass, field

LEVELS = ("debug", "info", "warning", "error", "critical")


@dataclass
class Counts:
    """Lines are counted under the log handler's lock, lost records by the one thread that pulls them."""

    lines: dict[str, int] = field(default_factory=lambda: dict.fromkeys(LEVELS, 0))
    suppressed: int = 0
    lost: int = 0  # records of C


counts = Counts()
