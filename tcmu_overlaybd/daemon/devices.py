"""All devices at once: the control socket's Api, and what start and stop do with them."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor, wait
from pathlib import Path

from tcmu_overlaybd import __version__
from tcmu_overlaybd.daemon.attach import Attacher
from tcmu_overlaybd.daemon.commit import layer_options
from tcmu_overlaybd.daemon.detach import Detacher, cancel_attach
from tcmu_overlaybd.daemon.device import Device
from tcmu_overlaybd.daemon.hand_over import HandOver
from tcmu_overlaybd.daemon.messages import (
    API_VERSION,
    AttachRequest,
    CacheStatus,
    CommitRequest,
    Committed,
    DetachRequest,
    DeviceList,
    DeviceStatus,
    Forked,
    ForkRequest,
    Leftovers,
    ResizeRequest,
    SnapshotRequest,
    Snapshotted,
    UpgradeStatus,
    Version,
)
from tcmu_overlaybd.daemon.recovery import Recovery
from tcmu_overlaybd.daemon.remote_numbers import cache_numbers
from tcmu_overlaybd.daemon.resize import Resizer
from tcmu_overlaybd.daemon.resources import Resources
from tcmu_overlaybd.daemon.snapshot import Snapshotter
from tcmu_overlaybd.errors import FailedError, OverlayBDError

logger = logging.getLogger(__name__)

CANCEL_TIMEOUT_S = 8.0  # for attaches and detaches that run when we stop
STOP_TIMEOUT_S = 10.0  # for rings and images after that
FLUSH_TIMEOUT_S = 10.0  # before a successor takes over; what is not flushed by then is in the journals
LEAVE_TIMEOUT_S = 2.0  # for commands that run then; the kernel gives back what is not answered
STOP_THREADS = 16
POLL_S = 0.02


class Devices:
    """Implements ``control.Api``."""

    def __init__(self, resources: Resources, pool: Executor, listener: socket.socket) -> None:
        """pool runs what the last daemon left to be done; listener is for a successor."""
        self._table = resources.table
        self._state = resources.state
        self._store = resources.store
        self._hub = resources.hub
        self._attacher = Attacher(resources)
        self._detacher = Detacher(resources)
        self._recovery = Recovery(resources, self._detacher, pool)
        self._snapshotter = Snapshotter(resources, self._attacher)
        self._resizer = Resizer(resources)
        self.hand_over = HandOver(listener, self.flush)

    # -- the Api

    def version(self) -> Version:
        return Version(API_VERSION, __version__, os.getpid(), self._hub)

    def devices(self) -> DeviceList:
        with self._table.lock:
            return DeviceList(tuple(device.status() for device in self._table.sorted()))

    def status(self, name: str) -> DeviceStatus:
        device = self._table.find(name)
        with self._table.lock:
            return device.status()

    def cache(self) -> CacheStatus:
        return cache_numbers(self._store)

    def attach(self, request: AttachRequest) -> DeviceStatus:
        return self._attacher.attach(request)

    def detach(self, name: str, request: DetachRequest) -> DeviceStatus:
        return self._detacher.detach(self._table.find(name), request)

    def commit(self, name: str, request: CommitRequest) -> Committed:
        device = self._table.find(name)
        with self._table.lock:
            served = device.served
        if served is None:
            raise FailedError(f"{name}: its image is not open: {device.reason or device.state}")
        written = served.commit(Path(request.output), layer_options(request))
        logger.info("%s: committed to %s, %s", name, written.path, written.digest)
        return Committed(str(written.path), written.digest, written.size, written.nr_segments)

    def snapshot(self, request: SnapshotRequest) -> Snapshotted:
        return self._snapshotter.snapshot(request)

    def fork(self, name: str, request: ForkRequest) -> Forked:
        return self._snapshotter.fork(name, request)

    def restack(self, dev_id: str, config: Path) -> None:
        self._snapshotter.restack(dev_id, config)

    def resize(self, name: str, request: ResizeRequest) -> DeviceStatus:
        return self._resizer.resize(self._table.find(name), request)

    def upgrade(self) -> UpgradeStatus:
        return self.hand_over.begin()

    def upgrade_status(self) -> UpgradeStatus:
        return self.hand_over.status()

    def leftovers(self) -> Leftovers:
        return self._recovery.leftovers()

    def repair(self) -> Leftovers:
        return self._recovery.repair()

    # -- start and stop

    def settle(self) -> None:
        """After the hub has told of all that there is."""
        self._recovery.begin()

    def stop(self) -> bool:
        """Lets everything go, inside deadlines; whether all of it went."""
        return self._end(self._let_go, STOP_TIMEOUT_S)

    def leave(self) -> bool:
        """Lets the rings go for a successor, and closes nothing; whether no command runs any more."""
        return self._end(self._leave, LEAVE_TIMEOUT_S)

    def flush(self) -> None:
        """Makes durable what was acknowledged: a successor has so much less to do."""
        served = [device.served for device in self._table.all() if device.served is not None]
        pool = ThreadPoolExecutor(STOP_THREADS, "flush")
        _, late = wait([pool.submit(image.flush) for image in served], FLUSH_TIMEOUT_S)
        pool.shutdown(wait=False)
        if late:
            logger.warning("%d uppers are not flushed within %.0f s", len(late), FLUSH_TIMEOUT_S)

    def _end(self, end: Callable[[Device, float], bool], timeout_s: float) -> bool:
        self._table.close()
        self._cancel_running()
        deadline = time.monotonic() + timeout_s
        with ThreadPoolExecutor(STOP_THREADS, "stop") as pool:
            return all(list(pool.map(lambda device: end(device, deadline), self._table.all())))

    def _cancel_running(self) -> None:
        deadline = time.monotonic() + CANCEL_TIMEOUT_S
        for device in self._table.all():
            cancel_attach(self._table, device)
        while any(device.state in ("attaching", "detaching") for device in self._table.all()):
            if time.monotonic() > deadline:
                logger.warning("stopping, although an attach or detach has not ended")
                return
            time.sleep(POLL_S)

    def _let_go(self, device: Device, deadline: float) -> bool:
        """Parked commands stay on the kernel's ring, for the next daemon; the image is flushed."""
        ring, served = self._table.take_all(device)
        try:
            if ring is not None:
                ring.unbind(leave_parked=True, timeout_ms=_left_ms(deadline))
            if served is not None:
                served.fail_parked()
                served.close(_left_ms(deadline) / 1000)
        except OverlayBDError as error:
            logger.error("%s: not closed in time: %s", device.name, error)  # noqa: TRY400 the sentence is all
            return False
        return True

    def _leave(self, device: Device, deadline: float) -> bool:
        ring, served = self._table.take_all(device)
        try:
            if served is not None:
                served.end_commits()
            if ring is not None:
                ring.unbind(leave_parked=True, timeout_ms=_left_ms(deadline))
        except OverlayBDError as error:
            logger.warning("%s: commands still run, and are the successor's: %s", device.name, error)
            return False
        return True


def _left_ms(deadline: float) -> int:
    return max(int((deadline - time.monotonic()) * 1000), 100)
