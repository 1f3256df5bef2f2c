"""How much may be logged, so that an error that repeats fills no disk and hides no other.

Two bounds hold, one after the other:

* of each *kind* of warning and error, ``BURST`` lines in ``WINDOW_S`` seconds; the rest is
  counted, and said in one line when the window ends.  Two messages are of one kind when they
  differ in nothing but numbers that stand alone;
* of everything but debugging, ``RATE`` bytes a second, of which ``SAVED`` can be saved up.
  What is beyond is counted, too.

So an hour of whatever goes wrong is at most ``RATE * 3600 + SAVED`` bytes, and the lines that
say how much was kept back: 8.5 MB.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass

BURST = 5
WINDOW_S = 30.0
RATE = 2048  # bytes a second
SAVED = 1 << 20  # bytes
MAX_KINDS = 1000
MAX_KIND = 160  # characters of a message that tell its kind

# A number, an address, a digest or a request's id, but not the 3 of disk3.
_VARIABLE = re.compile(r"\b(0x)?[0-9a-f]*\d[0-9a-f:.-]*\b", re.IGNORECASE)


@dataclass(slots=True)
class Window:
    """Of one kind, from its first message on."""

    began: float
    level: int
    logger: str
    text: str  # the last that was kept back
    passed: int = 0
    kept_back: int = 0


@dataclass(frozen=True, slots=True)
class KeptBack:
    """What has to be said at the end of a window."""

    level: int
    logger: str
    text: str
    count: int


def kind_of(text: str) -> str:
    return _VARIABLE.sub("#", text[: 2 * MAX_KIND])[:MAX_KIND]


class RateLimit:
    """Not thread-safe.  Times are seconds of any clock that goes on steadily."""

    def __init__(self, now: float) -> None:
        self._windows: dict[tuple[str, int, str], Window] = {}
        self._bytes = float(SAVED)
        self._filled = now
        self._next_end = now + WINDOW_S  # no window ends before
        self._crowd = Window(now, logging.WARNING, __name__, "")

    def admit(self, logger: str, level: int, text: str, size: int, now: float) -> bool:
        """Whether a line of size bytes may be written."""
        if level <= logging.DEBUG:
            return True
        if level >= logging.WARNING and not self._admit_kind(logger, level, text, now):
            return False
        if self._pay(size, now):
            return True
        self._crowd.kept_back += 1
        self._crowd.text = text
        return False

    def ended(self, now: float) -> list[KeptBack]:
        """The windows that are over and kept something back; cheap while none is."""
        if now < self._next_end:
            return []
        over = [key for key, window in self._windows.items() if now - window.began >= WINDOW_S]
        windows = [self._windows.pop(key) for key in over]
        if now - self._crowd.began >= WINDOW_S:
            windows.append(self._crowd)
            self._crowd = Window(now, logging.WARNING, __name__, "")
        self._next_end = WINDOW_S + min(
            [self._crowd.began, *(window.began for window in self._windows.values())]
        )
        return [KeptBack(w.level, w.logger, w.text, w.kept_back) for w in windows if w.kept_back]

    def _admit_kind(self, logger: str, level: int, text: str, now: float) -> bool:
        key = (logger, level, kind_of(text))
        if key not in self._windows and len(self._windows) >= MAX_KINDS:
            key = ("", level, "")  # so many kinds are one more
        window = self._windows.setdefault(key, Window(now, level, logger, text))
        if window.passed < BURST:
            window.passed += 1
            return True
        window.kept_back += 1
        window.text = text
        return False

    def _pay(self, size: int, now: float) -> bool:
        self._bytes = min(SAVED, self._bytes + (now - self._filled) * RATE)
        self._filled = now
        if size > self._bytes:
            return False
        self._bytes -= size
        return True
