"""Where the log goes: to stderr, which may be journald's, or to a file, as far as the rate limit allows."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable
from logging.handlers import RotatingFileHandler

from tcmu_overlaybd.config.service_config import LogConfig
from tcmu_overlaybd.errors import FailedError
from tcmu_overlaybd.logs.counts import counts
from tcmu_overlaybd.logs.formats import JsonFormatter, TextFormatter
from tcmu_overlaybd.logs.rate_limit import WINDOW_S, KeptBack, RateLimit

FORMATS = {"text": TextFormatter, "json": JsonFormatter}


class LimitedHandler(logging.Handler):
    """Hands on what the rate limit admits; a handler's own lock guards all of it."""

    def __init__(self, target: logging.Handler, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._target = target
        self._clock = clock
        self._limit = RateLimit(clock())

    def emit(self, record: logging.LogRecord) -> None:
        self._say_kept_back()
        line = self._target.format(record)
        size = len(line.encode(errors="replace")) + 1
        if self._limit.admit(record.name, record.levelno, record.getMessage(), size, self._clock()):
            self._write(record)
        else:
            counts.suppressed += 1

    def say_what_was_kept_back(self) -> None:
        self.acquire()
        try:
            self._say_kept_back()
        finally:
            self.release()

    def close(self) -> None:
        self._target.close()
        super().close()

    def _say_kept_back(self) -> None:
        for kept in self._limit.ended(self._clock()):
            self._write(_summary(kept))

    def _write(self, record: logging.LogRecord) -> None:
        level = record.levelname.lower()
        counts.lines[level] = counts.lines.get(level, 0) + 1
        self._target.emit(record)


def _summary(kept: KeptBack) -> logging.LogRecord:
    text = "%d like this suppressed in %.0f s: %s"
    arguments = (kept.count, WINDOW_S, kept.text)
    record = logging.LogRecord(kept.logger, kept.level, __file__, 0, text, arguments, None)
    record.suppressed = kept.count
    return record


_installed: list[LimitedHandler] = []


def install(log: logging.Logger, config: LogConfig) -> None:
    """The log of this process goes where config says, and nowhere else.  Raises FailedError."""
    for_journal = not config.log_path and is_journal(sys.stderr.fileno())
    target = _open(config)
    target.setFormatter(FORMATS[config.log_format](for_journal=for_journal))
    handler = LimitedHandler(target)
    log.handlers[:] = _installed[:] = [handler]
    log.propagate = False


def limit(log: logging.Logger) -> None:
    """The log of this process goes where it went, as far as the rate limit allows."""
    log.handlers[:] = _installed[:] = [LimitedHandler(handler) for handler in log.handlers]


def say_what_was_kept_back() -> None:
    """To be called now and then, so that the end of a flood is told though nothing follows it."""
    for handler in _installed:
        handler.say_what_was_kept_back()


def is_journal(fd: int) -> bool:
    """Whether fd is the socket that systemd has connected to journald for us, as systemd.exec(5) says."""
    status = os.fstat(fd)
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _open(config: LogConfig) -> logging.Handler:
    if not config.log_path:
        return logging.StreamHandler()
    try:
        return RotatingFileHandler(
            config.log_path, maxBytes=config.log_size_mb << 20, backupCount=config.log_rotate_num
        )
    except OSError as error:
        raise FailedError(f"{config.log_path}: the log cannot be opened: {error.strerror}") from error
