"""A moment by which something must have ended: handed down, so that every wait inside obeys it."""

from __future__ import annotations

import time
from dataclasses import dataclass

from tcmu_overlaybd.errors import TimeoutExpiredError


@dataclass(frozen=True)
class Deadline:
    """``at`` in seconds of the monotonic clock; ``seconds`` is what was given, for messages."""

    at: float
    seconds: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        return cls(time.monotonic() + seconds, seconds)

    def remaining(self) -> float:
        """Seconds that are left; 0 when it has passed."""
        return max(0.0, self.at - time.monotonic())

    def at_most(self, seconds: float) -> float:
        """seconds, or what is left when that is less."""
        return min(seconds, self.remaining())

    def require(self, what: str) -> None:
        """Raises TimeoutExpiredError when it has passed."""
        if not self.remaining():
            raise self.expired(what)

    def expired(self, what: str) -> TimeoutExpiredError:
        return TimeoutExpiredError(f"{what}: not done within {self.seconds:g} s")
