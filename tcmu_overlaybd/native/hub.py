"""The hub: which devices the kernel wants us to serve (csrc/front/hub.h).

There are two: ``LibtcmuHub`` here, and ``lio.netlink_hub.NetlinkHub``.  Both call their
listener on the thread that made them or is inside ``ready()``.  An exception in a listener
ends neither: it is logged, with its traceback unless it is a sentence of ours, and the kernel
is told that the request failed.
"""

from __future__ import annotations

import errno
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tcmu_overlaybd.errors import OverlayBDError, RefusedError
from tcmu_overlaybd.native._binding import ffi, lib
from tcmu_overlaybd.native.handle import opened

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class HubDevice:
    """A TCMU device of our subtype.

    ``handle`` is its identity until ``removed``; ``fd`` is the hub's, to be given
    to ``Tcmu.bind``; ``config`` is the whole config string.
    """

    handle: int
    fd: int
    uio_name: str
    config: str

    def map_size(self) -> int:
        """Bytes of the memory shared with the kernel (mailbox, ring and data area)."""
        return int(Path(f"/sys/class/uio/{self.uio_name}/maps/map0/size").read_text(encoding="ascii"), 16)


@dataclass(frozen=True, slots=True)
class ConfigChange:
    config: str


@dataclass(frozen=True, slots=True)
class SizeChange:
    size: int  # bytes


@dataclass(frozen=True, slots=True)
class WriteCacheChange:
    enabled: bool


Change = ConfigChange | SizeChange | WriteCacheChange


class HubListener(Protocol):
    """What a hub tells.  Each call holds up the kernel's requests, so it returns within milliseconds.

    The netlink hub's ``removed`` and ``reconfig`` may come after the fact: see there.
    """

    def added(self, device: HubDevice) -> None:
        """A device came, or was found at start.  Raising refuses it: its ``enable`` fails."""

    def removed(self, handle: int) -> None:
        """The device goes; its ring must be unbound when this returns."""

    def reconfig(self, handle: int, change: Change) -> None:
        """Somebody wrote to the backstore's attributes.  Raising refuses the change."""


class Hub(Protocol):
    """There is no close: a hub ends with the process."""

    def fileno(self) -> int:
        """Readable when ``ready`` has something to do."""

    def ready(self) -> None:
        """Handles the kernel's messages that have come, by calling the listener; does not wait."""


class LibtcmuHub:
    """libtcmu's connection to the kernel."""

    def __init__(self, subtype: str, description: str, listener: HubListener) -> None:
        """Announces the handler and tells of every device that exists already.

        Only one process may do this at a time (the caller holds the daemon's lock).
        Raises UnavailableError without libtcmu2 or the kernel module.
        """
        self._listener = listener
        self._self = ffi.new_handle(self)
        self._texts = [ffi.new("char[]", text.encode()) for text in (subtype, description)]
        params = ffi.new("struct obd_hub_params *")
        params.subtype, params.description = self._texts
        params.context = self._self
        params.added, params.removed, params.reconfig = lib.hub_added, lib.hub_removed, lib.hub_reconfig
        self._hub = opened(lib.obd_hub_open, "struct hub", params)

    def fileno(self) -> int:
        return int(lib.obd_hub_fd(self._hub))

    def ready(self) -> None:
        lib.obd_hub_ready(self._hub)

    def _added(self, device: HubDevice) -> None:
        self._listener.added(device)

    def _removed(self, handle: int) -> None:
        self._listener.removed(handle)

    def _reconfig(self, handle: int, change: Change) -> None:
        self._listener.reconfig(handle, change)


def status_of_failure(failure: BaseException | None) -> int:
    """What the kernel is told when a listener raised: a negative errno value.  Logs it."""
    if isinstance(failure, RefusedError):
        logger.info("hub: %s", failure)
        return -failure.error
    if isinstance(failure, OverlayBDError):
        logger.error("hub: %s", failure)
    elif failure is not None:
        logger.error("hub: a listener failed", exc_info=failure)
    return -errno.EINVAL


def _failed(_type: type[BaseException] | None, value: BaseException | None, traceback: Any) -> int:
    """``onerror`` of the callbacks; cffi gives the traceback apart."""
    return status_of_failure(value.with_traceback(traceback) if value is not None else None)


@ffi.def_extern(error=-errno.EINVAL, onerror=_failed)  # type: ignore[untyped-decorator]
def hub_added(context: Any, device: Any) -> int:
    hub: LibtcmuHub = ffi.from_handle(context)
    name, config = (
        ffi.string(text).decode(errors="replace") for text in (device.uio_name, device.cfg_string)
    )
    hub._added(HubDevice(_number(device.handle), device.fd, name, config))
    return 0


@ffi.def_extern(onerror=lambda *failure: _failed(*failure) and None)  # type: ignore[untyped-decorator]
def hub_removed(context: Any, handle: Any) -> None:
    hub: LibtcmuHub = ffi.from_handle(context)
    hub._removed(_number(handle))


@ffi.def_extern(error=-errno.EINVAL, onerror=_failed)  # type: ignore[untyped-decorator]
def hub_reconfig(context: Any, handle: Any, change: int, value: int, text: Any) -> int:
    hub: LibtcmuHub = ffi.from_handle(context)
    hub._reconfig(_number(handle), _change(change, value, text))
    return 0


def _change(kind: int, value: int, text: Any) -> Change:
    if kind == lib.OBD_HUB_SIZE:
        return SizeChange(value)
    if kind == lib.OBD_HUB_WRITE_CACHE:
        return WriteCacheChange(bool(value))
    return ConfigChange(ffi.string(text).decode(errors="replace") if text else "")


def _number(handle: Any) -> int:
    return int(ffi.cast("uintptr_t", handle))
