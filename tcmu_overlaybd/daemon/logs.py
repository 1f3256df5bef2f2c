"""Brings what C has to say into Python's logging, from a thread of its own.

C's queue is bounded and drops when nobody pulls; the count of what was dropped comes
with the next record.  Fatal lines of C do not come this way: they go to stderr at once.
"""

from __future__ import annotations

import logging
import threading

from tcmu_overlaybd.logs.counts import counts
from tcmu_overlaybd.logs.output import say_what_was_kept_back
from tcmu_overlaybd.native.process import LogRecord, close_log, next_log_record

logger = logging.getLogger("tcmu_overlaybd.native")

LEVELS = (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR)  # by C's numbers
POLL_MS = 1000
JOIN_S = 5.0


class LogPump:
    """A context manager: what was logged before its end is out when it ends."""

    def __init__(self) -> None:
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        close_log()
        self._thread.join(JOIN_S)

    def _run(self) -> None:
        while True:
            try:
                record = next_log_record(POLL_MS)
            except EOFError:
                return
            if record is not None:
                _emit(record)
            say_what_was_kept_back()


def _emit(record: LogRecord) -> None:
    if record.nr_dropped:
        counts.lost += record.nr_dropped
        logger.warning("%d records were lost here: they came faster than they were read", record.nr_dropped)
    logger.log(LEVELS[min(record.level, len(LEVELS) - 1)], "%s", record.text)
