"""The state folder: what the next daemon must know of the devices of this one.

::

    version               format of the folder, and the machine's random identity
    devices/NAME.json     one record per device
    configs/NAME.json     the image configuration that the device's config string names
    uppers/NAME/          uppers of devices attached without --upper; kept on detach
    chap/NAME             USER:PASSWORD that was made up for an iSCSI target, mode 0600

Every file is replaced as a whole and synced, so a reader sees the old or the new one.
A folder written by a newer version is refused rather than misread.
"""

from __future__ import annotations

import logging
import secrets
from pathlib import Path
from typing import Literal

import msgspec

from tcmu_overlaybd.config.image_config import ImageConfig, save_image_config
from tcmu_overlaybd.config.json_file import read_json, sync_folder, write_json, write_private
from tcmu_overlaybd.config.service_config import OnTimeout
from tcmu_overlaybd.errors import FailedError, FormatError, MissingError, OverlayBDError
from tcmu_overlaybd.lio.fabric import FabricKind
from tcmu_overlaybd.lio.iscsi import Chap
from tcmu_overlaybd.native.testing import hook

logger = logging.getLogger(__name__)

FORMAT = 1

# A device found at start in "attaching" or "detaching" was left half way: it is removed.
Phase = Literal["attaching", "attached", "detaching"]


class Version(msgspec.Struct, frozen=True):
    format: int
    identity: str


class Record(msgspec.Struct, frozen=True):
    """One device as it has to be found again.  ``size`` is in bytes.

    A device that somebody else made in configfs (targetcli, a snapshotter) has a record
    too, so that a new daemon knows its size before its image is open.
    """

    name: str
    backstore: str  # its folder's name in configfs; ours is the device's name
    config_path: str
    size: int
    serial: str
    hba: str
    phase: Phase
    is_ours: bool = True
    fabric: FabricKind = FabricKind.LOOPBACK
    writable: bool = False
    upper: str = ""
    device_id: str = ""  # as its config string names it
    source: tuple[str, ...] = ()
    disk: str = ""  # as it was when attached: "sda"
    on_timeout: OnTimeout | Literal[""] = ""  # "": as the service's configuration says
    portal: str = ""  # of an iSCSI target: ADDRESS:PORT
    initiator: str = ""  # which may log in; "": whoever knows the password
    new_upper: str = ""  # while attaching: folder of the upper that is made for it
    chap_file: str = ""  # where the password lies that was made up; none is in here


class State:
    """The folder, opened by the one daemon that holds the lock."""

    def __init__(self, folder: Path) -> None:
        """Makes what is missing.  Raises FormatError for a newer folder, FailedError."""
        self.folder = folder
        self.devices = folder / "devices"
        self.configs = folder / "configs"
        self.uppers = folder / "uppers"
        self.chap = folder / "chap"
        try:
            for part in (self.devices, self.configs, self.uppers, self.chap):
                part.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise FailedError(f"{folder}: the state folder cannot be made: {error.strerror}") from error
        self.identity = self._open_version().identity

    def _open_version(self) -> Version:
        path = self.folder / "version"
        if not path.exists():
            write_json(path, Version(FORMAT, secrets.token_hex(16)))
        version = read_json(path, Version)
        check_format(path, version)
        return version

    def config_path(self, name: str) -> Path:
        return self.configs / f"{name}.json"

    def save_config(self, name: str, config: ImageConfig) -> None:
        save_image_config(self.config_path(name), config)

    def save_chap(self, name: str, chap: Chap) -> Path:
        """Where it lies now.  Raises what write_private does."""
        path = self.chap / name
        write_private(path, f"{chap.user}:{chap.password}\n".encode())
        return path

    def save(self, record: Record) -> None:
        write_json(self._record_path(record.name), record)

    def remove(self, name: str) -> None:
        """Forgets the device; its upper stays."""
        for path in (self._record_path(name), self.config_path(name), self.chap / name):
            path.unlink(missing_ok=True)
            hook("state.file_removed")
        sync_folder(self.devices)

    def load(self) -> list[Record]:
        """Every record that can be read; one that cannot is logged and left where it is."""
        return read_records(self.devices)

    def _record_path(self, name: str) -> Path:
        return self.devices / f"{name}.json"


def read_records(folder: Path) -> list[Record]:
    """Those that can be read of ``devices/``; of the others the log says why not."""
    records = []
    for path in sorted(folder.glob("[!.]*.json")):
        try:
            records.append(read_json(path, Record))
        except OverlayBDError as error:
            logger.warning("state: %s", error)
    return records


def check_version(folder: Path) -> str:
    """The sentence why this version cannot use the folder; "" when it can, or would make it."""
    try:
        check_format(folder / "version", read_json(folder / "version", Version))
    except MissingError:
        return ""
    except OverlayBDError as error:
        return str(error)
    return ""


def check_format(path: Path, version: Version) -> None:
    if version.format > FORMAT:
        raise FormatError(
            f"{path}: written by a newer version (format {version.format}, this one knows {FORMAT})"
        )
