"""An open image in service: what a ring's commands go to."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tcmu_overlaybd.config.service_config import DeviceConfig
from tcmu_overlaybd.daemon.closing import Closing
from tcmu_overlaybd.daemon.commit import Commits
from tcmu_overlaybd.daemon.download import DeviceDownload
from tcmu_overlaybd.errors import BusyError, MissingError, OverlayBDError, TimeoutExpiredError
from tcmu_overlaybd.image.commit import commit_open_image
from tcmu_overlaybd.image.growth import check_growth
from tcmu_overlaybd.image.layer_writer import LayerOptions, WrittenLayer
from tcmu_overlaybd.image.open import OpenImage
from tcmu_overlaybd.native.core import Core, Device, DeviceStats, OnTimeout
from tcmu_overlaybd.native.image import UpperStats
from tcmu_overlaybd.remote.download import DownloadProgress, Downloads
from tcmu_overlaybd.remote.store import BlobStore

logger = logging.getLogger(__name__)

CLOSE_STEP_MS = 200
SYNC_HANGS = "the disk under its upper has not ended a sync; nothing acknowledged is lost, and it goes on"


class ServedImage:
    """Owns an OpenImage and the core's device over it."""

    def __init__(self, opened: OpenImage, core: Core, name: str, limits: DeviceConfig) -> None:
        """Takes opened, also when it raises."""
        try:
            self.device = Device.open(
                core,
                opened.image,
                name=name,
                io_timeout_ms=limits.io_timeout_ms,
                on_timeout=OnTimeout[limits.on_timeout.upper()],
            )
        except BaseException:
            opened.undo()
            raise
        self.opened = opened
        self._opened_lock = threading.Lock()  # guards opened, and calls to its native image
        self._change = threading.Lock()  # held by a snapshot, while it grows, and for good once it is closed
        self.on_timeout = limits.on_timeout
        self._name = name
        self._commits = Commits(name)
        self._download = DeviceDownload(name)
        self._waits_for = ""  # what a close that is late waits for

    @property
    def size(self) -> int:
        """Bytes."""
        with self._opened_lock:
            return self.opened.image.size

    @property
    def is_writable(self) -> bool:
        with self._opened_lock:
            return not self.opened.image.is_read_only

    def stats(self) -> DeviceStats:
        return self.device.stats()

    def upper_stats(self) -> UpperStats | None:
        """None without an upper."""
        try:
            with self._opened_lock:
                return self.opened.image.upper_stats()
        except MissingError:
            return None

    def upper_numbers(self) -> dict[str, int]:
        """Those keys of ``status`` that the upper counts; none without one."""
        stats = self.upper_stats()
        names = ("unflushed_bytes", "replayed", "dropped_writes", "dropped_bytes")
        return {} if stats is None else {name: getattr(stats, name) for name in names}

    def start_download(self, downloads: Downloads, store: BlobStore) -> None:
        """Its blobs become local files, some time; see daemon/download.py."""
        self._download.start(self.opened, downloads, store)

    def download_progress(self) -> DownloadProgress | None:
        """None: nothing is downloaded."""
        return self._download.progress()

    def commit(self, output: Path, options: LayerOptions) -> WrittenLayer:
        """Writes the upper, as it is now, as a layer; the image stays in use.

        Raises FailedError when the image is closed meanwhile, and what commit_open_image does.
        """
        with self._commits:
            opened = self._share()
            with opened.image:
                return commit_open_image(opened, output, options, progress=self._commits.check)

    def _share(self) -> OpenImage:
        """What is open now, with a native image that a snapshot meanwhile does not close."""
        with self._opened_lock:
            return replace(self.opened, image=self.opened.image.share())

    @contextmanager
    def changing(self) -> Iterator[None]:
        """One snapshot or growth at a time, and none of an image that is being closed.

        Raises BusyError.
        """
        if not self._change.acquire(blocking=False):
            raise BusyError(f"{self._name}: a snapshot of it runs, it grows, or it is being detached")
        try:
            yield
        finally:
            self._change.release()

    def replace_opened(self, opened: OpenImage, timeout_s: float) -> None:
        """opened, whose image the device has by now, takes the place of what is open.

        Waits for the reads that still have the image before; when they do not end in time,
        the device keeps it until it is closed.
        """
        with self._opened_lock:
            before, self.opened = self.opened, opened
        try:
            self.device.drop_replaced(round(timeout_s * 1000))
        except TimeoutExpiredError as error:
            logger.warning("%s; it is kept", error)
        before.image.close()

    def check_growth(self, size: int) -> None:
        """Raises what ``grow`` raises, as far as that is known without trying."""
        with self._opened_lock:
            check_growth(self.opened, size)

    def grow(self, size: int) -> None:
        """The disk has size bytes, durably; the same again is fine.

        Raises UsageError, ReadOnlyError, BusyError.
        """
        with self.changing():
            self.check_growth(size)
            self.device.grow(size)
            self.opened.note_size(size)
            self.opened.image.flush()

    def flush(self) -> None:
        """Makes durable what was acknowledged; nothing to do for a read-only image."""
        if self.is_writable:
            self.opened.image.flush()

    def end_commits(self) -> None:
        """Those that run fail at their next step, and leave no file."""
        self._commits.end()

    def fail_parked(self) -> None:
        """Parked commands, and all that come, end as cancelled: the device is going."""
        self.device.fail_parked()

    def close(self, timeout_s: float) -> None:
        """Waits for what runs, flushes, closes.  Nobody may use the image any more.

        Raises what the last flush said; TimeoutExpiredError when that takes longer: it goes
        on by itself then, and holds the upper until it is done.
        """
        self._close(timeout_s, OpenImage.close)

    def undo(self, timeout_s: float) -> None:
        """As close, and removes an upper that was made by this opening; never raises."""
        self.fail_parked()
        try:
            self._close(timeout_s, OpenImage.undo)
        except OverlayBDError as error:
            logger.warning("%s: closing it again: %s", self.opened.name, error)

    def _close(self, timeout_s: float, close_image: Callable[[OpenImage], None]) -> None:
        self._download.stop()
        closing = Closing(self._name, lambda: self._close_patiently(close_image))
        closing.wait(timeout_s, lambda: self._waits_for)

    def _close_patiently(self, close_image: Callable[[OpenImage], None]) -> None:
        self._waits_for = "a snapshot or growth of it has not ended"
        self._change.acquire()
        while not self._close_device():
            pass
        self._waits_for = "a commit of it has not ended"
        self._commits.end()
        self._waits_for = SYNC_HANGS
        close_image(self.opened)

    def _close_device(self) -> bool:
        """False when commands are still in flight."""
        nr_in_flight = self.device.stats().in_flight
        self._waits_for = f"{nr_in_flight} commands are still in flight" if nr_in_flight else SYNC_HANGS
        try:
            self.device.close(CLOSE_STEP_MS)
        except TimeoutExpiredError:
            return False
        return True
