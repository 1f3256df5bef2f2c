"""Which failures are tried again, after what pause, how often: an immutable value.

Only requests that may be sent twice are given to it: GET, HEAD, PUT of a manifest or of a
blob's end, and the POST that opens an upload (one opened twice is forgotten by the registry).
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


@dataclass(frozen=True)
class RetryPolicy:
    """``attempts`` in all; pauses in seconds: the first, doubled each time, never above ``max_pause_s``.

    Retry-After of the server replaces the pause, and is obeyed unless the deadline is earlier.
    """

    attempts: int = 5
    first_pause_s: float = 0.1
    max_pause_s: float = 5.0

    def is_worth_it(self, status: int) -> bool:
        """429 and 408 say so; a 5xx may pass, but a 501 stays."""
        return status in (408, 425, 429) or (status >= 500 and status not in (501, 505))

    def pause_s(self, attempt: int, headers: Mapping[str, str]) -> float:
        """After the attempt with this number, counted from 0."""
        asked = retry_after_s(headers.get("Retry-After", ""))
        if asked is not None:
            return asked
        pause = min(self.max_pause_s, self.first_pause_s * 2.0**attempt)
        return pause * random.uniform(0.5, 1.0)  # noqa: S311  so that many do not come back at once


def retry_after_s(text: str) -> float | None:
    """Seconds that a Retry-After asks for, as a number or as a date; None when it says neither."""
    text = text.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
