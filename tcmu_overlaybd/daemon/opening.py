"""The opening of an image by an attach, in a thread of its own, so that the attach can be cancelled.

A registry that takes a connection and then says nothing is waited for until the attach's
deadline.  Who cancels does not wait for that: the thread is left behind, and what it
still opens it closes again.  Until then a new upper of it stays locked.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait

from tcmu_overlaybd.errors import FailedError
from tcmu_overlaybd.image.open import OpenImage

logger = logging.getLogger(__name__)

POLL_S = 0.05  # between two looks at whether it is cancelled


def open_unless_cancelled(
    name: str, open_it: Callable[[], OpenImage], is_cancelled: Callable[[], bool]
) -> OpenImage:
    """What open_it returns or raises; FailedError when it is cancelled first."""
    future: Future[OpenImage] = Future()
    threading.Thread(target=_run, args=(future, open_it), name=f"open {name}", daemon=True).start()
    while not wait([future], POLL_S).done:
        if is_cancelled():
            future.add_done_callback(_undo)
            raise FailedError(f"{name}: detached while it was being attached")
    return future.result()


def _run(future: Future[OpenImage], open_it: Callable[[], OpenImage]) -> None:
    try:
        future.set_result(open_it())
    except BaseException as error:  # whatever it is, the one who waits is told
        future.set_exception(error)


def _undo(future: Future[OpenImage]) -> None:
    if future.exception() is None:
        opened = future.result()
        logger.info("%s: opened after its attach was cancelled: closed again", opened.name)
        opened.undo()
