"""Snapshots and forks of disks in use, as asked for over the control socket.

Several disks are snapshotted in one pause: the writes of all are held before the first is
sealed, and none goes on before the last has its new upper.  So whatever was acknowledged
on one disk before something was begun on another is in the snapshot if that is.

Either all disks of a request are snapshotted or, when one cannot be, none is.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tcmu_overlaybd.config.image_config import ImageConfig
from tcmu_overlaybd.config.upper_dir import CONFIG_NAME, UpperDir
from tcmu_overlaybd.daemon.attach import Attacher
from tcmu_overlaybd.daemon.commit import layer_options
from tcmu_overlaybd.daemon.device import Device
from tcmu_overlaybd.daemon.messages import (
    AttachRequest,
    CommitRequest,
    Committed,
    Forked,
    ForkRequest,
    SealedUpper,
    SnapshotRequest,
    Snapshotted,
)
from tcmu_overlaybd.daemon.resources import Resources
from tcmu_overlaybd.daemon.served_image import ServedImage
from tcmu_overlaybd.daemon.table import DeviceTable
from tcmu_overlaybd.errors import BusyError, FailedError, MissingError, OverlayBDError
from tcmu_overlaybd.image.commit import commit_image
from tcmu_overlaybd.image.open import OpenImage
from tcmu_overlaybd.image.snapshot import Snapshot
from tcmu_overlaybd.image.source import config_path
from tcmu_overlaybd.lio.backstore import check_name
from tcmu_overlaybd.native.testing import hook

logger = logging.getLogger(__name__)

HOLD_TIMEOUT_S = 10.0
DROP_TIMEOUT_S = 10.0  # for reads that still have the image before


class Snapshotter:
    """Safe for use by several threads."""

    def __init__(self, resources: Resources, attacher: Attacher) -> None:
        self._table = resources.table
        self._state = resources.state
        self._attacher = attacher

    def snapshot(self, request: SnapshotRequest) -> Snapshotted:
        """Raises MissingError, UsageError, LimitError, BusyError; TimeoutExpiredError when writes
        do not end in time; NoSpaceError.  Nothing has changed then."""
        request.check()
        devices = [self._table.find(name) for name in request.names]
        made = self._snapshot([self._member(device) for device in devices], request.timeout)
        if request.commit is None:
            return made
        return msgspec.structs.replace(made, committed=_commit(made.devices[0], request.commit))

    def fork(self, name: str, request: ForkRequest) -> Forked:
        """A second device on what the first has now; each then has an upper of its own.

        Raises what snapshot and attach do.  When the attach fails, the snapshot stays.
        """
        began = time.monotonic()
        parent = self._table.find(name)
        self._check_fork(request)
        made = self._snapshot([self._member(parent)], HOLD_TIMEOUT_S)
        config = _lowers_of(_served(self._table, parent).opened.config)
        status = self._attacher.attach(_attach_request(parent, request, made.devices[0]), config)
        return Forked(made, status, _ms_since(began))

    def restack(self, dev_id: str, replacement: Path) -> None:
        """What the reference's HTTP API asks for: replacement, a configuration with an upper that
        the caller has made, takes the place of the device's (spec/config.md section 5).

        Raises MissingError for the id, anything else for what went wrong.
        """
        device = next((one for one in self._table.all() if one.record.device_id == dev_id), None)
        if device is None:
            raise MissingError(f"{dev_id}: no device has this id")
        try:
            self._snapshot([self._member(device, replacement)], HOLD_TIMEOUT_S)
        except MissingError as error:  # a file; the device is there
            raise FailedError(str(error)) from error

    def _check_fork(self, request: ForkRequest) -> None:
        """Before anything is sealed in vain."""
        check_name(request.name)
        if any(device.name == request.name for device in self._table.all()):
            raise BusyError(f"{request.name}: a device of that name is attached already")
        folder = Path(request.upper) if request.upper else self._state.uppers / request.name
        if UpperDir(folder).exists():
            raise FailedError(f"{folder}: there is an upper already; choose another name or folder")

    def _member(self, device: Device, replacement: Path | None = None) -> _Member:
        return _Member(device, _served(self._table, device), replacement)

    def _snapshot(self, members: Sequence[_Member], timeout_s: float) -> Snapshotted:
        began = time.monotonic()
        with ExitStack() as stack:
            for member in members:
                stack.enter_context(member.served.changing())
            for member in members:
                member.plan()
            for member in members:
                stack.callback(member.end)
                member.snapshot.prepare()
            pause = _Pause(timeout_s)
            with pause.of(members):
                _seal_and_stack(members)
            hook("snapshot.resumed")
        problems = "; ".join(member.problem for member in members if member.problem)
        if problems:
            raise FailedError(f"the snapshot has been made, but {problems}")
        made = tuple(member.describe() for member in members)
        for one in made:
            logger.info("%s: snapshot: %s sealed, writes held for %.1f ms", one.name, one.sealed, pause.ms)
        return Snapshotted(made, pause.ms, _ms_since(began))


class _Member:
    """One device of a snapshot."""

    def __init__(self, device: Device, served: ServedImage, replacement: Path | None) -> None:
        self.device = device
        self.served = served
        self.problem = ""
        self._replacement = replacement
        self._next: OpenImage | None = None
        self._is_placed = False

    def plan(self) -> None:
        opened = self.served.opened
        self.snapshot = Snapshot(opened, self._candidates(opened), self._replacement)

    def stack(self) -> None:
        self._next = self.snapshot.stack()

    def place(self) -> None:
        if self._next is not None:
            self.served.device.replace_image(self._next.image)
            self._is_placed = True
            hook("snapshot.image_replaced")

    def unseal(self) -> None:
        """While writes are held, after a failure."""
        if not self._is_placed:
            self.snapshot.unseal()

    def end(self) -> None:
        """Writes go on: the snapshot has happened, or is taken back."""
        if self._next is None or not self._is_placed:
            self.snapshot.undo()
            return
        self.served.replace_opened(self._next, DROP_TIMEOUT_S)
        try:
            self.snapshot.complete()
        except OverlayBDError as error:
            self.problem = f"{error}: the next start, or snapshot, writes it"

    def describe(self) -> SealedUpper:
        intent = self.snapshot.intent
        return SealedUpper(
            name=self.device.name,
            sealed=intent.sealed.data,
            size=self.snapshot.nr_bytes,
            upper=intent.upper.data,
            layers=len(self.served.opened.layers),
            configs=intent.configs,
        )

    def _candidates(self, opened: OpenImage) -> list[Path]:
        """Files that may name the upper: the device's own, the upper folder's, and the source."""
        record = self.device.record
        found = [Path(record.config_path)]
        if opened.upper is not None:
            found.append(opened.upper.data.parent / CONFIG_NAME)
        if len(record.source) == 1 and Path(record.source[0]).exists():
            source = config_path(Path(record.source[0]))
            found += [] if source is None else [source]
        return found


@dataclass
class _Pause:
    """The time for which writes of all members are held."""

    timeout_s: float  # until those that run have ended
    ms: float = 0

    @contextmanager
    def of(self, members: Sequence[_Member]) -> Iterator[None]:
        began = time.monotonic()
        with ExitStack() as resume:
            for member in members:
                left_s = max(began + self.timeout_s - time.monotonic(), 0)
                member.served.device.hold(round(left_s * 1000))
                resume.callback(member.served.device.resume)
            hook("snapshot.held")
            yield
        self.ms = _ms_since(began)


def _seal_and_stack(members: Sequence[_Member]) -> None:
    """While all are held; each step for all of them before the next."""
    steps: tuple[Callable[[_Member], None], ...] = (
        lambda member: member.snapshot.seal(),
        lambda member: member.snapshot.finish_seal(),
        _Member.stack,
        _Member.place,
    )
    with ExitStack() as undo:
        for member in members:
            undo.callback(member.unseal)
        for step in steps:
            for member in members:
                step(member)
        undo.pop_all()


def _served(table: DeviceTable, device: Device) -> ServedImage:
    with table.lock:
        served = device.served
    if served is None:
        raise FailedError(f"{device.name}: its image is not open: {device.reason or device.state}")
    return served


def _lowers_of(config: ImageConfig) -> ImageConfig:
    return msgspec.structs.replace(
        config, lowers=config.layers, acceleration_layer=False, upper=None, result_file=""
    )


def _attach_request(parent: Device, request: ForkRequest, made: SealedUpper) -> AttachRequest:
    return AttachRequest(
        source=parent.record.source or (made.sealed,),
        name=request.name,
        writable=True,
        upper=request.upper,
        fabric=request.fabric,
        timeout=request.timeout,
        on_timeout=parent.record.on_timeout,
    )


def _commit(made: SealedUpper, request: CommitRequest) -> Committed:
    """The sealed layer, dense; it never changes, so nothing is held for this."""
    written = commit_image([made.sealed], Path(request.output), layer_options(request))
    return Committed(str(written.path), written.digest, written.size, written.nr_segments)


def _ms_since(began: float) -> float:
    return round((time.monotonic() - began) * 1000, 3)
