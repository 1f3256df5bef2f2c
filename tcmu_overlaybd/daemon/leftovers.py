"""What a daemon that died left behind and no device needs any more: found here, removed on request.

Every step of an attach is announced by a record before the kernel is asked, so nearly all
that can be left is found by a record that does not say "attached".  The rest is told by
its place: files of ours that belong to no record, and backstores whose configuration
lies in our state folder although no record knows them.  Nothing else is ever touched.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from tcmu_overlaybd.config.upper_dir import UpperDir
from tcmu_overlaybd.daemon.device import Device
from tcmu_overlaybd.daemon.names import stale_names
from tcmu_overlaybd.daemon.state import Record, read_records
from tcmu_overlaybd.image.upper_folder import remove_upper
from tcmu_overlaybd.lio import kernel_device
from tcmu_overlaybd.lio.config_string import ConfigString
from tcmu_overlaybd.lio.discovery import BackstoreId, find_backstores, read_serial
from tcmu_overlaybd.lio.fabric import LoopbackPort

REMOVE_TIMEOUT_S = 10.0
WRITING_S = 60.0  # a file that is younger may just be written by the daemon that runs


@dataclass(frozen=True)
class Leftover:
    """``what`` is a sentence; remove raises OverlayBDError, or OSError, when it must stay."""

    what: str
    remove: Callable[[], None]


@dataclass(frozen=True)
class Places:
    """``state`` and ``names`` are folders; either may be missing."""

    state: Path
    names: Path

    @property
    def configs(self) -> Path:
        return self.state / "configs"


def is_half_way(record: Record) -> bool:
    """Whether an attach or a detach of it had begun, and was not ended."""
    return record.phase != "attached" or record.new_upper != ""


def remove_new_upper(record: Record) -> None:
    """Of an attach that came to nothing: nobody was ever told of that disk."""
    if record.new_upper:
        remove_upper(UpperDir(Path(record.new_upper)))


# -- files


def leftover_files(places: Places, records: Iterable[Record], min_age_s: float = 0.0) -> list[Leftover]:
    """Files of no record.  A record that cannot be read keeps what has its name."""
    records = list(records)
    kept = {record.name for record in records} | {path.stem for path in places.state.glob("devices/*.json")}
    used = {config.path for _, config in find_backstores()}
    files = [path for path in places.configs.glob("[!.]*.json") if path.stem not in kept and path not in used]
    files += [path for path in places.state.glob("chap/[!.]*") if path.name not in kept]
    files += [
        path for path in places.state.glob("*/.*") if path.parent.name in ("devices", "configs", "chap")
    ]
    files += places.state.glob(".version.*")
    files += stale_names(places.names, records)
    return [_file(path) for path in sorted(files) if _age_s(path) >= min_age_s]


def _file(path: Path) -> Leftover:
    return Leftover(f"{path}: a file of no device", lambda: path.unlink(missing_ok=True))


def _age_s(path: Path) -> float:
    try:
        return time.time() - path.lstat().st_mtime
    except OSError:  # gone by now
        return -1.0


# -- the kernel


def strays(places: Places, names: Iterable[str]) -> list[Leftover]:
    """Backstores that our attach made, and no device of names has."""
    kept = {*names, *(path.stem for path in places.state.glob("devices/*.json"))}
    return [
        _stray(backstore, config)
        for backstore, config in find_backstores()
        if config.path.parent == places.configs and config.path.stem not in kept
    ]


def _stray(backstore: BackstoreId, config: ConfigString) -> Leftover:
    def remove() -> None:
        port = LoopbackPort.of_serial(read_serial(backstore))
        kernel_device.remove(backstore.hba, backstore.name, port, REMOVE_TIMEOUT_S, claim=True)
        config.path.unlink(missing_ok=True)

    return Leftover(f"{backstore.path}: a device of ours that no record knows", remove)


# -- without a daemon


def leftovers_without_daemon(places: Places) -> list[Leftover]:
    """All of it.  Whoever removes something holds the daemon's lock."""
    records = read_records(places.state / "devices")
    half_way = [_half_way(places, record) for record in records if is_half_way(record)]
    names = [record.name for record in records]
    return [*half_way, *strays(places, names), *leftover_files(places, records)]


def _half_way(places: Places, record: Record) -> Leftover:
    def remove() -> None:
        claim = record.phase == "detaching"
        port = Device(record, "broken").port
        # Nobody answers a flush now, so none is to be sent.
        kernel_device.remove(
            record.hba, record.backstore, port, REMOVE_TIMEOUT_S, claim=claim, spare_flush=True
        )
        remove_new_upper(record)
        files = (f"devices/{record.name}.json", f"configs/{record.name}.json", f"chap/{record.name}")
        for file in files:
            (places.state / file).unlink(missing_ok=True)
        (places.names / record.serial).unlink(missing_ok=True)

    return Leftover(f"{record.name}: a device that was left {record.phase}", remove)
