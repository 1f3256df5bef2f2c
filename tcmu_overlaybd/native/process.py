"""What C does for the whole process: its log, its memory, an end to its waits."""

from __future__ import annotations

from dataclasses import dataclass

from tcmu_overlaybd.native._binding import check, ffi, lib


@dataclass(frozen=True, slots=True)
class LogRecord:
    """``level`` counts as C does: 0 debug, 1 info, 2 warning, 3 error."""

    time: float  # seconds since the epoch
    level: int
    text: str
    nr_dropped: int  # records lost before this one because the queue was full


def next_log_record(timeout_ms: int) -> LogRecord | None:
    """What C had to say; None after timeout_ms of silence.  Raises EOFError after ``close_log``."""
    record = ffi.new("struct obd_log_record *")
    status = lib.obd_log_next(record, timeout_ms)
    if status == lib.OBD_E_TIMEOUT:
        return None
    if status == lib.OBD_E_CLOSED:
        raise EOFError("the log of the data plane has ended")
    check(status)
    text = ffi.string(record.text).decode(errors="replace")
    return LogRecord(record.realtime_ns / 1e9, record.level, text, record.nr_dropped)


def close_log() -> None:
    """Wakes ``next_log_record``: what is queued still comes, then EOFError."""
    lib.obd_log_close()


def guard_memory() -> None:
    """Keeps the kernel's memory reclaim from waiting for us.  Before any thread starts."""
    check(lib.obd_process_guard_memory())


def interrupt_waits(wanted: bool = True) -> None:
    """While wanted, whoever waits in C for data, or comes to do so, gets FailedError at once."""
    lib.obd_interrupt_waits(wanted)
