"""One record as one line of text or of JSON.

Texts are bounded, and have no control characters: what a registry sends cannot begin a line
of its own.  Only the trace of an exception has several lines, in text.
"""

from __future__ import annotations

import json
import logging
import re
from datetime import UTC, datetime

MAX_TEXT = 2000  # characters of a message
MAX_TRACE = 4000  # and of an exception's trace

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")

# Of sd-daemon(3): journald takes <N> in front of a line as its priority.
PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


def bounded(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text) - limit} characters more)"


def one_line(text: str) -> str:
    return _CONTROL.sub(lambda found: f"\\x{ord(found.group()):02x}", text)


def message_of(record: logging.LogRecord) -> str:
    return one_line(bounded(record.getMessage(), MAX_TEXT))


def trace_of(record: logging.LogRecord) -> str:
    """The end of it, which names the exception; "" without one."""
    if not record.exc_info:
        return ""
    trace = logging.Formatter().formatException(record.exc_info)
    return trace if len(trace) <= MAX_TRACE else f"...{trace[-MAX_TRACE:]}"


class TextFormatter(logging.Formatter):
    def __init__(self, *, for_journal: bool) -> None:
        """for_journal: each line begins with its priority, and journald knows the time itself."""
        super().__init__()
        self._for_journal = for_journal

    def format(self, record: logging.LogRecord) -> str:
        lines = [f"{record.levelname} {record.name}: {message_of(record)}"]
        lines += map(one_line, trace_of(record).splitlines())
        if self._for_journal:
            return "\n".join(f"<{PRIORITIES.get(record.levelno, 5)}>{line}" for line in lines)
        time = datetime.fromtimestamp(record.created)
        return "\n".join([f"{time:%Y-%m-%d %H:%M:%S},{record.msecs:03.0f} {lines[0]}", *lines[1:]])


class JsonFormatter(logging.Formatter):
    """``time`` (UTC), ``level``, ``logger``, ``message``; perhaps ``suppressed``, ``exception``."""

    def __init__(self, *, for_journal: bool) -> None:
        super().__init__()
        self._for_journal = for_journal

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": message_of(record),
        }
        if suppressed := getattr(record, "suppressed", 0):
            entry["suppressed"] = suppressed
        if trace := trace_of(record):
            entry["exception"] = trace
        line = json.dumps(entry, ensure_ascii=False)
        return f"<{PRIORITIES.get(record.levelno, 5)}>{line}" if self._for_journal else line
