"""Why the last start of the daemon failed: kept in the run folder, for ``doctor`` to read.

Under systemd nobody sees what a start says on stderr, and the next try pushes it up in
the journal.  A start that succeeds removes it.
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

import msgspec

from tcmu_overlaybd.config.json_file import read_json, write_json
from tcmu_overlaybd.errors import OverlayBDError

NAME = "start-failure.json"


class StartFailure(msgspec.Struct, frozen=True):
    time: float  # seconds since the epoch
    version: str
    reason: str  # a sentence


def note_failure(run: Path, version: str, error: Exception) -> None:
    """Never fails: that the start failed is worse."""
    with suppress(OSError, OverlayBDError):
        run.mkdir(parents=True, exist_ok=True)
        write_json(run / NAME, StartFailure(time.time(), version, str(error)))


def forget_failure(run: Path) -> None:
    with suppress(OSError):
        (run / NAME).unlink(missing_ok=True)


def last_failure(run: Path) -> StartFailure | None:
    """None: the last start succeeded, or there was none, or we may not look."""
    try:
        return read_json(run / NAME, StartFailure)
    except OverlayBDError:
        return None
