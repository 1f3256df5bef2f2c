"""One blob of one image on its way to a local file: its tries, and what became of them.

::

   waiting --delay is over--> downloading --switched--> local
      ^                          |
      +--another download has it-+
      +--failed, tries are left--+--no space, no tries left--> failed
   any --(the image closes, the process ends)--> stopped

A failure is nothing to the image: it goes on being read from the registry.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Literal

from tcmu_overlaybd.errors import BusyError, CorruptError, NoSpaceError, OverlayBDError
from tcmu_overlaybd.remote.blob_download import BlobDownload, StoppedError, WrongDigestError
from tcmu_overlaybd.remote.partial_file import COMMIT_NAME

logger = logging.getLogger(__name__)

FIRST_PAUSE_S = 5.0  # between tries; doubled each time
LONGEST_PAUSE_S = 300.0
BUSY_PAUSE_S = 10.0  # until another download is looked at again

State = Literal["waiting", "downloading", "local", "failed", "stopped"]
ENDS: frozenset[State] = frozenset(("local", "failed", "stopped"))


@dataclass(slots=True, eq=False)
class DownloadTask:
    """``is_running`` is its owner's; state and reason may be read at any time."""

    image: str
    blob: BlobDownload
    tries: int
    state: State = "waiting"
    reason: str = ""  # why it failed, or the last try did; else ""
    failures: int = 0  # in a row, with no byte between them
    is_running: bool = False

    def run(self) -> float | None:
        """One try; seconds to the next, or None: it has ended."""
        self.state = "downloading"
        began, before = time.monotonic(), self.blob.length
        try:
            self.blob.run()
        except StoppedError:
            self.state = "stopped"
        except BusyError as error:
            return self._wait(BUSY_PAUSE_S, error)
        except (NoSpaceError, CorruptError) as error:
            self._give_up(error)
        except OverlayBDError as error:
            has_come_on = self.blob.length > before and not isinstance(error, WrongDigestError)
            self.failures = 1 if has_come_on else self.failures + 1
            return self._after_failure(error)
        except Exception as error:
            logger.exception("%s: background download of %s failed", self.image, self.blob.digest)
            self.state, self.reason = "failed", str(error)
        else:
            self._become_local(time.monotonic() - began)
        return None

    def _become_local(self, elapsed_s: float) -> None:
        path = self.blob.folder / COMMIT_NAME
        logger.info("%s: %s is a local file now, %s (%.1f s)", self.image, self.blob.digest, path, elapsed_s)
        self.state, self.reason = "local", ""

    def _after_failure(self, error: OverlayBDError) -> float | None:
        if self.blob.is_stopped:
            self.state = "stopped"
            return None
        if self.failures >= self.tries:
            self._give_up(error)
            return None
        pause = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** (self.failures - 1))
        text = "%s: background download: try %d of %d failed, the next is in %.0f s: %s"
        logger.warning(text, self.image, self.failures, self.tries, pause, error)
        return self._wait(pause, error)

    def _wait(self, pause_s: float, error: OverlayBDError) -> float:
        self.state, self.reason = "waiting", str(error)
        return pause_s

    def _give_up(self, error: OverlayBDError) -> None:
        text = "%s: background download given up, the image goes on from the registry: %s"
        logger.warning(text, self.image, error)
        self.state, self.reason = "failed", str(error)
