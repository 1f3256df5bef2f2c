"""What the last daemon left half way is ended by this one, at its start and by ``doctor --repair``.

A record says how far a device had come.  "attached" without a ring: the machine was
restarted, and the device is forgotten.  "attaching": it goes by force, with the upper that
was made for it, because nobody has been told of it.  "detaching": it is detached, unless
it is in use again.  A helper dies with its daemon, so nothing new comes meanwhile.
"""

from __future__ import annotations

import logging
from concurrent.futures import Executor, Future
from functools import partial

from tcmu_overlaybd.daemon.detach import Detacher
from tcmu_overlaybd.daemon.device import Device
from tcmu_overlaybd.daemon.leftovers import (
    WRITING_S,
    Leftover,
    Places,
    is_half_way,
    leftover_files,
    remove_new_upper,
    strays,
)
from tcmu_overlaybd.daemon.messages import DetachRequest, Leftovers
from tcmu_overlaybd.daemon.resources import Resources
from tcmu_overlaybd.errors import OverlayBDError
from tcmu_overlaybd.native.testing import hook

logger = logging.getLogger(__name__)


class Recovery:
    """Safe for use by several threads."""

    def __init__(self, resources: Resources, detacher: Detacher, pool: Executor) -> None:
        self._table = resources.table
        self._state = resources.state
        self._places = Places(resources.state.folder, resources.names.folder)
        self._detacher = detacher
        self._pool = pool

    def begin(self) -> None:
        """After the hub has told of all that there is.  What may take long goes on in the pool."""
        running = []
        for device in self._table.all():
            if is_half_way(device.record):
                running.append(self._pool.submit(self._finish, device))
            elif device.ring is None:
                logger.info("%s: the kernel has it no longer (a restart of the machine?)", device.name)
                self._state.remove(device.name)
                self._table.forget(device)
        for file in leftover_files(self._places, [device.record for device in self._table.all()]):
            self._remove(file)
        hook("start.files_removed")
        self._pool.submit(self._remove_strays, running)

    def leftovers(self) -> Leftovers:
        """What there is that this daemon is not just at work on."""
        return Leftovers(tuple(leftover.what for leftover in self._find()))

    def repair(self) -> Leftovers:
        """Removes it; what could not be removed is still named as left."""
        found = self._find()
        left = [leftover.what for leftover in found if not self._remove(leftover)]
        return Leftovers(
            tuple(left), removed=tuple(leftover.what for leftover in found if leftover.what not in left)
        )

    def _find(self) -> list[Leftover]:
        devices = self._table.all()
        half_way = [
            Leftover(f"{device.name}: a device that was left half way", partial(self._end, device))
            for device in devices
            if is_half_way(device.record) and device.state not in ("attaching", "detaching")
        ]
        files = leftover_files(self._places, [device.record for device in devices], WRITING_S)
        return [*half_way, *self._strays(), *files]

    def _strays(self) -> list[Leftover]:
        return strays(self._places, [device.name for device in self._table.all() if device.record.is_ours])

    def _remove_strays(self, after: list[Future[None]]) -> None:
        """Once the others are done: what they detach is no stray."""
        for future in after:
            future.exception()
        for stray in self._strays():
            self._remove(stray)

    def _remove(self, leftover: Leftover) -> bool:
        try:
            leftover.remove()
        except (OverlayBDError, OSError) as error:
            logger.warning("left behind: %s; it stays: %s", leftover.what, error)
            return False
        logger.info("removed what was left behind: %s", leftover.what)
        return True

    def _finish(self, device: Device) -> None:
        try:
            self._end(device)
        except OverlayBDError as error:
            logger.warning("%s: left half way by the last daemon, and stays: %s", device.name, error)

    def _end(self, device: Device) -> None:
        """Raises what detach does, and then it stays."""
        record = device.record
        is_nobodys = record.phase == "attaching" or record.new_upper != "" or device.ring is None
        self._detacher.detach(device, DetachRequest(force=is_nobodys))
        remove_new_upper(record)
