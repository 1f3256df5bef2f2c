"""Commits of uppers that are in use: what was asked for, and what runs of one image."""

from __future__ import annotations

import threading
from pathlib import Path
from types import TracebackType
from typing import Any

from tcmu_overlaybd.daemon.messages import CommitRequest
from tcmu_overlaybd.errors import FailedError, UsageError
from tcmu_overlaybd.formats import uuid_text
from tcmu_overlaybd.formats.zfile import Codec
from tcmu_overlaybd.image.layer_writer import LayerOptions


def layer_options(request: CommitRequest) -> LayerOptions:
    """Raises UsageError for what no layer can be."""
    if not Path(request.output).is_absolute():
        raise UsageError(f"{request.output}: not absolute, and the daemon has another working folder")
    values: dict[str, Any] = {
        "codec": Codec[request.codec.upper()] if request.codec else None,
        "block_size": request.block_size,
        "tar": request.tar,
        "message": request.message,
        "nr_threads": request.threads,
        "detect_zeros": request.detect_zeros,
    }
    for key in ("uuid", "parent_uuid"):
        if text := getattr(request, key):
            values[key] = uuid_text.from_user(text)
    return LayerOptions(**values)


class Commits:
    """Those that run of one image; each is one ``with`` block.

    An image that is to be closed makes them fail at their next step, and waits for that.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._changed = threading.Condition()
        self._nr_running = 0
        self._is_ending = False

    def __enter__(self) -> None:
        with self._changed:
            self._check()
            self._nr_running += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._changed:
            self._nr_running -= 1
            self._changed.notify_all()

    def check(self, _done: int, _total: int) -> None:
        """Called at every step: raises FailedError when the image is being closed."""
        with self._changed:
            self._check()

    def end(self) -> None:
        """None begins any more; waits for those that run."""
        with self._changed:
            self._is_ending = True
            self._changed.wait_for(lambda: self._nr_running == 0)

    def _check(self) -> None:
        if self._is_ending:
            raise FailedError(f"{self._name}: it is being detached, so it is not committed")
