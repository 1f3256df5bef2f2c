"""Start, life and end of the daemon.

Start, in this order: the lock (everything after it assumes that we are the only one),
kernel modules, memory guard, state, core, ring threads, control socket, hub, readiness, D-Bus.

Stop: no new request; attaches that run are made to fail and take themselves back, for
which the hub still has to answer; then each ring is let go with its parked commands left
on it, each image is flushed and closed (``devices.Devices.stop``), and what is still being
opened gives up, because the store of blobs is closed.  libtcmu is not
closed: that waits for parked commands without a deadline.  The process exits, and the
next one finds its devices again.
"""

from __future__ import annotations

import logging
import resource
import time
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import IO

from tcmu_overlaybd.config.service_config import ExporterConfig, ServiceConfig
from tcmu_overlaybd.daemon.answers import Answers
from tcmu_overlaybd.daemon.config_check import DESCRIPTION, check_config
from tcmu_overlaybd.daemon.control import ControlServer, listen
from tcmu_overlaybd.daemon.devices import Devices
from tcmu_overlaybd.daemon.folders import Folders
from tcmu_overlaybd.daemon.hand_over import LOCK_TIMEOUT_S, Handed
from tcmu_overlaybd.daemon.lock import take_lock
from tcmu_overlaybd.daemon.logs import LogPump
from tcmu_overlaybd.daemon.main_loop import MainLoop
from tcmu_overlaybd.daemon.metrics_server import MetricsServer
from tcmu_overlaybd.daemon.names import Names
from tcmu_overlaybd.daemon.newcomers import Newcomers
from tcmu_overlaybd.daemon.readiness import inherited_socket, notify
from tcmu_overlaybd.daemon.readings import DaemonReadings
from tcmu_overlaybd.daemon.reference_api import ReferenceApi
from tcmu_overlaybd.daemon.resources import Resources
from tcmu_overlaybd.daemon.start_failure import forget_failure
from tcmu_overlaybd.daemon.state import State
from tcmu_overlaybd.daemon.table import DeviceTable
from tcmu_overlaybd.errors import BusyError, FailedError, OverlayBDError
from tcmu_overlaybd.lio import modules
from tcmu_overlaybd.lio.config_string import SUBTYPE
from tcmu_overlaybd.lio.hubs import HubKind, choose_hub, open_hub
from tcmu_overlaybd.lio.own_disks import check_not_ours
from tcmu_overlaybd.metrics.exposition import Exposition
from tcmu_overlaybd.native.core import Core
from tcmu_overlaybd.native.process import guard_memory
from tcmu_overlaybd.native.tcmu import Tcmu
from tcmu_overlaybd.remote.download import Downloads
from tcmu_overlaybd.remote.settings import settings_of
from tcmu_overlaybd.remote.store import BlobStore

logger = logging.getLogger(__name__)

DOWNLOADS_TIMEOUT_S = 5.0  # to stop; they have been told to when their images closed
OPENING_TIMEOUT_S = 5.0
OOM_SCORE = Path("/proc/self/oom_score_adj")

LOCK_POLL_S = 0.002  # flock(2) itself would wait without a deadline

# What is not closed in order, the lock above all: a successor may open a UIO device only when
# this process has it no more.
ENDS_WITH_THE_PROCESS: list[ExitStack] = []


def serve(folders: Folders, config: ServiceConfig, socket_path: Path | None = None) -> bool:
    """Runs one daemon until it is told to stop; returns whether everything was closed.

    When something was not (a worker that hangs in a disk), the process must end by
    ``os._exit``.  Raises BusyError when another daemon runs, UnavailableError without
    the kernel's part or libtcmu.
    """
    with ExitStack() as stack:
        handed = Handed.of_environment()
        stack.enter_context(take_lock(folders.lock) if handed is None else take_over(handed, folders))
        modules.make_ready()
        kind, others = choose_hub(config.hub)
        raise_file_limit()
        guard_from_reclaim()
        stack.enter_context(LogPump())
        settings = replace(settings_of(config), has_stand_in=False)
        check_not_ours(settings.folder, "the cache")
        store = stack.enter_context(BlobStore(settings))
        downloads = Downloads(config.download, free_floor=config.cache.free_floor)
        resources = open_resources(
            stack.enter_context(Core.open()), store, downloads, folders, config, hub=kind
        )
        tcmu = stack.enter_context(Tcmu())
        stack.enter_context(Answers(tcmu, resources.table))
        newcomers = Newcomers(resources, tcmu)
        listener = handed.listener if handed else inherited_socket() or listen(socket_path or folders.socket)
        devices = Devices(resources, newcomers.pool, listener)
        snapshot_api = ReferenceApi(devices.restack) if config.service_config.enable else None
        exposition = Exposition(DaemonReadings(resources))
        server = ControlServer(listener, devices, snapshot_api, exposition.render)
        stack.enter_context(metrics_server(config.exporter_config, exposition))
        try:
            with nullcontext() if others else modules.netlink_held():
                hub = open_hub(kind, DESCRIPTION, newcomers)
            loop = MainLoop(hub)
            stack.enter_context(loop.signals())  # who gets an answer may end us at once
            devices.hand_over.end = loop.end
            devices.settle()
            server.start()
            nr_devices = len(resources.table.all())
            logger.info("ready: %d devices, hub %s, control socket %s", nr_devices, kind, server.path)
            notify("READY=1")
            forget_failure(folders.run)
            stack.enter_context(bus_service(store))
            is_closed = loop.run(
                lambda: (
                    leave(server, devices)
                    if devices.hand_over.is_leaving
                    else stop(server, devices, downloads) and let_go(newcomers, store)
                )
            )
        except BaseException:
            devices.stop()  # the hub may have told of devices by then
            downloads.close(DOWNLOADS_TIMEOUT_S)
            raise
        if not is_closed or devices.hand_over.is_leaving:
            ENDS_WITH_THE_PROCESS.append(stack.pop_all())  # what hangs would be waited for
        return is_closed


def open_resources(
    core: Core,
    store: BlobStore,
    downloads: Downloads,
    folders: Folders,
    config: ServiceConfig,
    *,
    hub: HubKind,
) -> Resources:
    """Every device that the state folder knows is expected: the hub is about to find it."""
    check_not_ours(folders.state, "the state folder")
    state = State(folders.state)
    records = state.load()
    return Resources(
        table=DeviceTable(records),
        state=state,
        names=Names(folders.run / "names", records),
        core=core,
        limits=config.device,
        store=store,
        downloads=downloads,
        hub=hub,
    )


def bus_service(store: BlobStore) -> AbstractContextManager[None]:
    """For targetcli.  Imported when all disks are served, since a restart keeps them waiting, and
    the library takes 25 ms to load."""
    from tcmu_overlaybd.lio.tcmu_service import TcmuService

    return TcmuService(SUBTYPE, DESCRIPTION, lambda text: check_config(text, store))


def raise_file_limit() -> None:
    """A device takes three descriptors, a local layer one: the usual soft limit of 1024 is soon reached."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def metrics_server(place: ExporterConfig, exposition: Exposition) -> AbstractContextManager[object]:
    """A port that somebody else has is no reason to serve no disks: a line in the log says so."""
    if not place.enable:
        return nullcontext()
    try:
        return MetricsServer(place, exposition)
    except FailedError as error:
        logger.error("%s", error)  # noqa: TRY400 the sentence is all
        return nullcontext()


def guard_from_reclaim() -> None:
    """Before any thread starts.  A container may not allow it; then there is a risk, not a fault."""
    for guard in (guard_memory, keep_from_oom_killer):
        try:
            guard()
        except OverlayBDError as error:
            logger.warning("%s; when memory is short, the machine may hang on our own disks", error)


def keep_from_oom_killer() -> None:
    """The kernel frees memory by writing to our disks, so we must be the last to go.  The unit says
    so, too; this is for who starts us without it.  Raises FailedError."""
    try:
        OOM_SCORE.write_text("-1000")
    except OSError as error:
        raise FailedError(f"{OOM_SCORE}: cannot be written: {error.strerror}") from error


def stop(server: ControlServer, devices: Devices, downloads: Downloads) -> bool:
    """Whether every ring and image could be closed, and no download hangs in its disk."""
    logger.info("stopping")
    notify("STOPPING=1")
    server.stop()
    is_closed = devices.stop()
    return downloads.close(DOWNLOADS_TIMEOUT_S) and is_closed


def leave(server: ControlServer, devices: Devices) -> bool:
    """For a successor, which waits for our end: what commands wait for now is all that takes time."""
    server.stop()
    devices.leave()
    return True


def let_go(newcomers: Newcomers, store: BlobStore) -> bool:
    """Whether nobody opens an image any more; without the store nobody waits for a registry."""
    store.close()
    return newcomers.close(OPENING_TIMEOUT_S)


def take_over(handed: Handed, folders: Folders) -> IO[str]:
    """The lock, once the daemon that started us has left.  What can fail has failed before it does."""
    State(folders.state)
    handed.say_prepared()
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    while True:
        try:
            return take_lock(folders.lock)
        except BusyError:
            if time.monotonic() > deadline:
                raise
        time.sleep(LOCK_POLL_S)
