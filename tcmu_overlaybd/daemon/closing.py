"""The end of an image, in a thread of its own.

A sync lasts as long as its disk takes, and where that hangs no signal reaches it.  So
who detaches a device, or stops the daemon, waits for the close of its image until a
deadline; the close itself goes on.  Until it is done the upper stays locked, so nobody
opens it meanwhile, and the journal beside it keeps what was acknowledged.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from tcmu_overlaybd.errors import OverlayBDError, TimeoutExpiredError

logger = logging.getLogger(__name__)


class Closing:
    """One close that runs; ``wait`` may be called once."""

    def __init__(self, name: str, close: Callable[[], None]) -> None:
        self._name = name
        self._close = close
        self._changed = threading.Condition()
        self._is_done = False
        self._is_given_up = False
        self._error: BaseException | None = None
        threading.Thread(target=self._run, name=f"close {name}", daemon=True).start()

    def wait(self, timeout_s: float, why: Callable[[], str]) -> None:
        """Raises what the close raised; TimeoutExpiredError, with what why says, when it goes on."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_done, timeout_s)
            self._is_given_up = not self._is_done
        if self._is_given_up:
            raise TimeoutExpiredError(f"{self._name}: not closed within {timeout_s:.0f} s: {why()}")
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            self._close()
        except BaseException as raised:  # whatever it is, the one who waits is told
            error = raised
        with self._changed:
            self._is_done, self._error = True, error
            self._changed.notify_all()
            if self._is_given_up:
                self._say_at_last(error)

    def _say_at_last(self, error: BaseException | None) -> None:
        """Nobody waits any more; the log is the one that is told."""
        if error is None:
            logger.info("%s: closed at last", self._name)
        elif isinstance(error, OverlayBDError):
            logger.error("%s: closed at last: %s", self._name, error)
        else:
            logger.error("%s: closing it failed", self._name, exc_info=error)
