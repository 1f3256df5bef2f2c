"""Tests only: layer files whose data comes late, or never, as if from a registry.

In the test build, ``TCMU_OVERLAYBD_TEST_SLOW="<glob>=<chunk>:<delay_ms|never>[:<keep_ms>]"``
puts a slow source under every layer file whose path matches.  It becomes late when the
layer has been opened, so headers and index are at hand and only data keeps one waiting.
"""

from __future__ import annotations

import os
from fnmatch import fnmatch
from pathlib import Path

from tcmu_overlaybd.errors import UsageError
from tcmu_overlaybd.native.source import DELAY_NEVER, Source
from tcmu_overlaybd.native.testing import is_test_build

VARIABLE = "TCMU_OVERLAYBD_TEST_SLOW"


def open_over(path: Path, below: Source) -> Source | None:
    """A slow source over below, not late yet; None unless a test asks for it."""
    wanted = os.environ.get(VARIABLE)
    if not wanted or not is_test_build():
        return None
    pattern, _, numbers = wanted.rpartition("=")
    if not fnmatch(str(path), pattern):
        return None
    slow = Source.slow(below, **_parse(numbers))
    slow.set_late(False)
    return slow


def _parse(numbers: str) -> dict[str, int]:
    fields = numbers.split(":")
    try:
        chunk, delay, *keep = (DELAY_NEVER if field == "never" else int(field) for field in fields)
    except ValueError as error:
        raise UsageError(f"{VARIABLE}: {numbers!r} is not <chunk>:<delay_ms|never>[:<keep_ms>]") from error
    return {"chunk_size": chunk, "delay_ms": delay, "keep_ms": keep[0] if keep else DELAY_NEVER}
