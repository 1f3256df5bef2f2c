"""Background download: the layers of open images become local files, when there is time.

A few threads for the whole process take what is due, one blob at a time (download_task.py).

Lock: ``Downloads._lock`` guards the queue and every task's ``is_running``; it is held
while nothing waits.  The handles of a blob are closed by whoever ends it: its thread, or
``stop`` when it has none.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import os
import random
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from tcmu_overlaybd.config.download_config import DownloadConfig
from tcmu_overlaybd.remote.blob_download import BlobDownload, WantedBlob
from tcmu_overlaybd.remote.download_task import ENDS, DownloadTask, State
from tcmu_overlaybd.remote.pace import Pace

logger = logging.getLogger(__name__)

NR_THREADS = 2
NICENESS = 19
FREE_FLOOR = 1 << 30  # bytes left free on the disk of the files, as the cache leaves them


@dataclass(frozen=True, slots=True)
class DownloadProgress:
    """Of all blobs of an image.  state is that of the blob which is furthest from its end."""

    state: State
    blobs: int
    local_blobs: int
    bytes: int
    local_bytes: int  # in the files, those not checked yet included
    reason: str  # why it failed, or the last try did; else ""


class ImageDownload:
    """What ``Downloads.start`` gives: how far it is, and the way to stop it."""

    def __init__(self, owner: Downloads, tasks: Sequence[DownloadTask]) -> None:
        self._owner = owner
        self.tasks = tasks

    def stop(self) -> None:
        """Returns at once; what runs ends soon after, and keeps nothing of the image but the blob."""
        self._owner.stop(self.tasks)

    def progress(self) -> DownloadProgress:
        tasks = self.tasks
        order: Sequence[State] = ("downloading", "failed", "waiting", "stopped", "local")
        return DownloadProgress(
            state=min((task.state for task in tasks), key=order.index, default="local"),
            blobs=len(tasks),
            local_blobs=sum(task.state == "local" for task in tasks),
            bytes=sum(task.blob.size for task in tasks),
            local_bytes=sum(task.blob.length for task in tasks),
            reason=next((task.reason for task in tasks if task.reason), ""),
        )


@dataclass(order=True)
class _Due:
    at: float  # time.monotonic()
    number: int
    task: DownloadTask = field(compare=False)


class Downloads:
    """Of the process.  Threads start with the first image.  Safe for use by several threads."""

    def __init__(
        self, config: DownloadConfig, *, free_floor: int = FREE_FLOOR, nr_threads: int = NR_THREADS
    ) -> None:
        """config is for images that have none of their own; its limit is for all of them together."""
        self.config = config
        self._pace = Pace(config.bytes_per_s)
        self._free_floor = free_floor
        self._nr_threads = nr_threads
        self._lock = threading.Condition()
        self._queue: list[_Due] = []
        self._running: list[DownloadTask] = []
        self._numbers = itertools.count()
        self._threads: list[threading.Thread] = []
        self._is_closed = False

    def start(
        self, image: str, blobs: Sequence[WantedBlob], config: DownloadConfig | None = None
    ) -> ImageDownload | None:
        """config is the image's own.  None: downloads are not enabled, or there is nothing to do."""
        effective = self.config if config is None else config
        if not effective.enable or not blobs:
            return None
        pace = self._pace if config is None else Pace(config.bytes_per_s)
        tasks = [
            DownloadTask(
                image,
                BlobDownload(blob, pace, block_size=effective.block_size, free_floor=self._free_floor),
                effective.tries,
            )
            for blob in blobs
        ]
        delay = effective.delay_s(random.random())  # noqa: S311 (no secret)
        logger.info("%s: background download of %d blobs begins in %.0f s", image, len(tasks), delay)
        self._enqueue(tasks, time.monotonic() + delay)
        return ImageDownload(self, tasks)

    def stop(self, tasks: Sequence[DownloadTask]) -> None:
        """Ends tasks; those that run, soon."""
        with self._lock:
            self._queue = [due for due in self._queue if due.task not in tasks]
            heapq.heapify(self._queue)
            for task in tasks:
                if task.state in ENDS:
                    continue
                task.blob.stop()
                if not task.is_running:
                    self._finish(task, "stopped")

    def close(self, timeout_s: float) -> bool:
        """Ends all; False when a thread (in a disk that hangs) has not ended by then."""
        deadline = time.monotonic() + timeout_s
        with self._lock:
            self._is_closed = True
            tasks = [due.task for due in self._queue] + self._running
            self._lock.notify_all()
        self.stop(tasks)
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _enqueue(self, tasks: Sequence[DownloadTask], due: float) -> None:
        with self._lock:
            for task in tasks:
                heapq.heappush(self._queue, _Due(due, next(self._numbers), task))
            while len(self._threads) < self._nr_threads and not self._is_closed:
                thread = threading.Thread(target=self._work, name="obd-download", daemon=True)
                self._threads.append(thread)
                thread.start()
            self._lock.notify_all()
        if self._is_closed:
            self.stop(tasks)

    def _work(self) -> None:
        with suppress(OSError):  # a thread of Linux has a niceness of its own
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        while (task := self._next()) is not None:
            self._settle(task, task.run())

    def _next(self) -> DownloadTask | None:
        """Waits for a task that is due; None at the end."""
        with self._lock:
            while not self._is_closed:
                now = time.monotonic()
                if self._queue and self._queue[0].at <= now:
                    task = heapq.heappop(self._queue).task
                    task.is_running = True
                    self._running.append(task)
                    return task
                self._lock.wait(self._queue[0].at - now if self._queue else None)
        return None

    def _settle(self, task: DownloadTask, pause_s: float | None) -> None:
        with self._lock:
            task.is_running = False
            self._running.remove(task)
            if pause_s is None:
                self._finish(task, task.state)
            elif task.blob.is_stopped:
                self._finish(task, "stopped")
            else:
                due = _Due(time.monotonic() + pause_s, next(self._numbers), task)
                heapq.heappush(self._queue, due)
                self._lock.notify()

    def _finish(self, task: DownloadTask, state: State) -> None:
        """Once for each task."""
        task.state = state
        task.blob.close()
