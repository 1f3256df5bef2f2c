"""What goes over the control socket, version 1: JSON on both ends made from these structs.

``GET /v1/version``, ``GET /v1/devices``, ``GET /v1/devices/NAME``, ``GET /v1/cache``,
``GET /v1/metrics`` (text, for Prometheus),
``POST /v1/devices`` (an ``AttachRequest``), ``POST /v1/devices/NAME/commit`` (a ``CommitRequest``),
``POST /v1/devices/NAME/resize`` (a ``ResizeRequest``), ``DELETE /v1/devices/NAME`` (a ``DetachRequest``).
An answer that is no success is a ``Failure``.  Keys may be added; none changes its meaning within /v1.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from tcmu_overlaybd import errors
from tcmu_overlaybd.config.service_config import OnTimeout
from tcmu_overlaybd.errors import FailedError, OverlayBDError, UsageError
from tcmu_overlaybd.image.source import is_reference
from tcmu_overlaybd.lio.fabric import FabricKind, choose_fabric
from tcmu_overlaybd.lio.iscsi import Chap, Portal, check_initiator

API_VERSION = 1

Seconds = Annotated[float, msgspec.Meta(gt=0, le=3600)]
Size = Annotated[int, msgspec.Meta(ge=0)]

DeviceState = Literal["attaching", "opening", "ready", "broken", "detaching"]


class Version(msgspec.Struct, frozen=True):
    api: int
    version: str
    pid: int
    hub: str = ""  # "libtcmu" or "netlink"


UpgradeState = Literal["none", "preparing", "leaving", "failed"]


class UpgradeStatus(msgspec.Struct, frozen=True):
    """Of the daemon that answers: once that is the successor, the upgrade is done."""

    pid: int
    version: str
    state: UpgradeState = "none"
    successor: int = 0  # pid; 0: there is none
    reason: str = ""  # of a failure


class AttachRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Paths are absolute: the daemon has another working folder.  ``size`` is in bytes."""

    source: tuple[str, ...] = ()
    name: str = ""
    writable: bool = False
    upper: str = ""
    new: bool = False
    size: Size = 0
    sparse: bool = False
    fabric: str = "loopback"
    timeout: Seconds = 30.0
    drop_unflushed: bool = False
    on_timeout: OnTimeout | Literal[""] = ""  # "": as the service's configuration says
    portal: str = ""  # of an iSCSI target; "": this machine only
    initiator: str = ""  # that may log in; "": whoever knows the password
    chap: Chap | None = None  # None: a password is made up
    no_chap: bool = False

    def check(self) -> None:
        """Raises UsageError for what contradicts itself.  Both ends ask: the client so that it
        is told without a daemon, the daemon because others may talk to its socket."""
        if self.new and self.source:
            raise UsageError("a new disk is blank: --new and a source exclude each other")
        if self.new and not self.size:
            raise UsageError("a new disk needs a size: --new --size BYTES")
        if not self.new and not self.source:
            raise UsageError("no image is named: give a configuration or layer files, or --new --size BYTES")
        sources = () if len(self.source) == 1 and is_reference(self.source[0]) else self.source
        for path in (*sources, *filter(None, [self.upper])):
            if not Path(path).is_absolute():
                raise UsageError(f"{path}: the daemon needs absolute paths")
        self._check_export()

    def _check_export(self) -> None:
        if choose_fabric(self.fabric) is not FabricKind.ISCSI:
            if self.portal or self.initiator or self.chap or self.no_chap:
                raise UsageError("portal, initiator and CHAP are for --fabric iscsi")
            return
        portal = Portal.parse(self.portal)
        check_initiator(self.initiator)
        if self.chap is not None:
            self.chap.check()
        if self.no_chap and self.chap is not None:
            raise UsageError("--no-chap and a CHAP password exclude each other")
        if self.no_chap and not portal.is_loopback:
            raise UsageError(
                f"portal {portal}: other machines reach it, and without CHAP anyone there has the disk"
            )


class DetachRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    force: bool = False
    timeout: Seconds = 30.0


class ResizeRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    size: Size  # bytes
    timeout: Seconds = 30.0


class CommitRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a layer is made of a device's upper; as ``image.layer_writer.LayerOptions``."""

    output: str  # absolute
    codec: Literal["", "lz4", "zstd"] = ""
    block_size: Size = 4096
    tar: bool = False
    uuid: str = ""
    parent_uuid: str = ""
    message: str = ""
    threads: Annotated[int, msgspec.Meta(ge=1, le=256)] = 1
    detect_zeros: bool = False


class Committed(msgspec.Struct, frozen=True):
    path: str
    digest: str  # sha256:...
    size: int
    segments: int


class SnapshotRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``timeout``: how long writes that run may take to end, while later ones wait."""

    names: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]  # in one pause
    timeout: Seconds = 10.0
    commit: CommitRequest | None = None  # of the sealed layer, afterwards

    def check(self) -> None:
        """Raises UsageError."""
        if len(set(self.names)) < len(self.names):
            raise UsageError("a disk is named twice")
        if self.commit is not None and len(self.names) > 1:
            raise UsageError(
                "an output file is for the snapshot of one disk; of several, image commit makes"
                " a layer of each sealed file"
            )


class SealedUpper(msgspec.Struct, frozen=True):
    """What a snapshot has made of one device's upper."""

    name: str
    sealed: str  # the file: the topmost lower now
    size: int
    upper: str  # the data file of the new upper
    layers: int  # lowers, the sealed one included
    configs: tuple[str, ...]  # files that name both


class Snapshotted(msgspec.Struct, frozen=True):
    devices: tuple[SealedUpper, ...]
    pause_ms: float  # for which writes were held
    total_ms: float  # without the commit
    committed: Committed | None = None


class ForkRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str  # of the second device
    upper: str = ""  # folder of its upper, absolute; "": in the state folder
    fabric: str = "loopback"
    timeout: Seconds = 30.0


class CommandCounts(msgspec.Struct, frozen=True):
    """Commands done since the image was opened, by kind."""

    read: int = 0
    write: int = 0
    discard: int = 0
    flush: int = 0
    verify: int = 0


class RemoteLayer(msgspec.Struct, frozen=True):
    """A layer that comes from a registry.  Bytes of the blob, which is smaller than its disk."""

    registry: str  # HOST/REPOSITORY
    digest: str
    size: int
    cached: int  # here, now
    fetched: int
    requests: int
    errors: dict[str, int] = {}  # chunks that did not come, by kind
    is_local: bool = False  # downloaded whole: the registry is not needed any more


class DownloadStatus(msgspec.Struct, frozen=True):
    """The background download: of all its blobs, and the state of the one that has furthest to go."""

    state: Literal["waiting", "downloading", "local", "failed", "stopped"]
    blobs: int
    local_blobs: int
    bytes: int
    local_bytes: int
    reason: str = ""  # why it failed, or the last try did


class DeviceStatus(msgspec.Struct, frozen=True):
    """One device.  Sizes in bytes, ages in milliseconds; "" where there is nothing to say."""

    name: str
    state: DeviceState
    reason: str = ""  # why it is broken
    disk: str = ""  # /dev/sda
    backstore: str = ""  # its folder in configfs
    size: int = 0
    writable: bool = False
    layers: int = 0
    source: tuple[str, ...] = ()
    upper: str = ""  # folder of the upper
    sealed: tuple[str, ...] = ()  # lowers that were uppers once: kept until somebody removes them
    config: str = ""  # the image configuration in use
    on_timeout: OnTimeout | Literal[""] = ""  # "": not known before its image is open
    fabric: str = "loopback"
    target: str = ""  # IQN of an iSCSI target
    portal: str = ""  # where it listens: ADDRESS:PORT
    initiator: str = ""  # the one that may log in; "": whoever knows the password
    chap_file: str = ""  # where the password lies that was made up for it
    serial: str = ""
    made_by: Literal["attach", "configfs"] = "attach"
    commands: CommandCounts = CommandCounts()
    bytes_read: int = 0
    bytes_written: int = 0
    errors: int = 0
    in_flight: int = 0
    parked: int = 0
    oldest_ms: int = 0
    unflushed_bytes: int = 0
    replayed: int = 0  # journal records applied when the upper was opened
    dropped_writes: int = 0  # acknowledged ones that were lost with a damaged journal then
    dropped_bytes: int = 0  # of the end of its index, that were not believed
    registry: tuple[str, ...] = ()  # HOST/REPOSITORY that layers come from
    bytes_fetched: int = 0  # from there
    bytes_cached: int = 0  # of those layers: here, now
    requests: int = 0
    fetch_errors: dict[str, int] = {}
    remote_layers: tuple[RemoteLayer, ...] = ()  # lowest first
    download: DownloadStatus | None = None


class Forked(msgspec.Struct, frozen=True):
    snapshot: Snapshotted
    device: DeviceStatus
    total_ms: float  # snapshot and attach


class DeviceList(msgspec.Struct, frozen=True):
    devices: tuple[DeviceStatus, ...]


class CacheStatus(msgspec.Struct, frozen=True):
    """The daemon's cache.  Sizes in bytes; the last five count chunks since the daemon's start."""

    folder: str
    is_open: bool  # a daemon opens it with the first image that comes from a registry
    limit_bytes: int
    used_bytes: int = 0
    blobs: int = 0
    evicted: int = 0
    damaged: int = 0  # found so when read, and fetched again
    not_kept: int = 0  # served without caching: no room, or a folder that keeps nothing
    hits: int = 0  # read by a command that did not wait for them
    misses: int = 0  # that a command had to wait for


class Leftovers(msgspec.Struct, frozen=True):
    """What a daemon that died left behind; a sentence each."""

    left: tuple[str, ...]
    removed: tuple[str, ...] = ()


class Failure(msgspec.Struct, frozen=True):
    """An exception of ``errors.py`` on its way to the client."""

    kind: str
    message: str

    @classmethod
    def of(cls, error: Exception) -> Failure:
        if isinstance(error, OverlayBDError):
            return cls(type(error).__name__, str(error))
        return cls(FailedError.__name__, f"a fault in the daemon: {type(error).__name__}: {error}")

    def exception(self) -> OverlayBDError:
        """The same exception on the client's side."""
        kind = getattr(errors, self.kind, None)
        if isinstance(kind, type) and issubclass(kind, OverlayBDError):
            return kind(self.message)
        return FailedError(self.message)
