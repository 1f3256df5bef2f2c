"""What a snapshot is about to do, written down first, so that a start after a crash ends it.

A snapshot makes a sealed layer of an upper, in place, and puts a new upper on top.  That
touches several files, and a crash may come between any two of them::

   intent written → new upper made → index → trailer ─┬→ configurations → old index removed
   (upper-data.snapshot)                               │                 → intent removed
                                     the snapshot has happened

The intent lies beside the data file that is to be sealed.  Whoever opens a configuration
for writing that names this file, as its upper or as its topmost lower, finds it there, and
the file itself says which way to go: sealed, everything behind the arrow is done again;
not sealed, the new upper is removed, into which nothing can have been written.  Both may
be done any number of times.

Locking: while the file is locked as an upper, its owner lives and goes on by himself.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from tcmu_overlaybd.config.image_config import ImageConfig, Lower, Upper, load_image_config, save_image_config
from tcmu_overlaybd.config.json_file import read_json, sync_folder, write_json
from tcmu_overlaybd.errors import BusyError, OverlayBDError
from tcmu_overlaybd.image.upper_pair import read_upper_pair
from tcmu_overlaybd.native.testing import hook

logger = logging.getLogger(__name__)

SUFFIX = ".snapshot"


class SnapshotIntent(msgspec.Struct, frozen=True):
    """All paths are absolute.  ``upper`` takes the place of ``sealed`` in every file of ``configs``."""

    sealed: Upper
    upper: Upper
    configs: tuple[str, ...]
    is_upper_ours: bool = True  # made for the snapshot, so removed when that does not happen
    replacement: ImageConfig | None = None  # what the first of configs is to say, when the caller decides
    used_up: str = ""  # a file to be removed at the end: the caller's, of which replacement is the content

    @property
    def path(self) -> Path:
        return intent_path(Path(self.sealed.data))

    def is_about(self, upper: Upper) -> bool:
        """Whether upper is one of the two: a fork has the sealed layer, too, and goes its own way."""
        return _is_same(upper, self.sealed) or _is_same(upper, self.upper)

    @property
    def sealed_lower(self) -> Lower:
        return Lower(file=self.sealed.data)

    def apply(self, config: ImageConfig) -> ImageConfig:
        """config with the sealed layer as its topmost lower that holds data, and the new upper."""
        layers, trace = config.layers, (config.lowers or ())[len(config.layers) :]
        lowers = (*layers, self.sealed_lower, *trace)
        return msgspec.structs.replace(config, lowers=lowers, upper=self.upper)


def intent_path(data: Path) -> Path:
    return data.with_name(data.name + SUFFIX)


def next_upper(upper: Upper) -> Upper:
    """Names beside upper's that nothing has: ``data.1`` and ``index.1`` after ``data`` and ``index``."""
    data, index = _without_number(Path(upper.data)), _without_number(Path(upper.index))
    number = 1
    while True:
        pair = [path.with_name(f"{path.name}.{number}") for path in (data, index)]
        if not any(os.path.lexists(path) for path in pair):
            return Upper(data=str(pair[0]), index=str(pair[1]))
        number += 1


def _without_number(path: Path) -> Path:
    return path.with_suffix("") if path.suffix[1:].isdecimal() else path


def configs_of(upper: Upper, candidates: Iterable[Path]) -> tuple[str, ...]:
    """Those of candidates that are configurations with this upper, each once."""
    found: list[str] = []
    for path in candidates:
        try:
            config = load_image_config(path)
        except OverlayBDError:
            continue
        if str(path) not in found and config.writable is not None and _is_same(config.writable, upper):
            found.append(str(path))
    return tuple(found)


def write_intent(intent: SnapshotIntent) -> None:
    write_json(intent.path, intent)


def complete(intent: SnapshotIntent) -> None:
    """What follows the seal.  Raises what writing a configuration does; the intent stays then."""
    for number, path in enumerate(map(Path, intent.configs)):
        _switch(intent, path, is_first=number == 0)
    hook("snapshot.configs_switched")
    sealed_index = Path(intent.sealed.index)
    for path in (sealed_index, _journal_of(sealed_index)):
        path.unlink(missing_ok=True)
    hook("snapshot.index_removed")
    if intent.used_up:
        Path(intent.used_up).unlink(missing_ok=True)
    _remove_intent(intent)


def abandon(intent: SnapshotIntent) -> None:
    """The snapshot has not happened: its upper goes, and the intent last."""
    if intent.is_upper_ours:
        index = Path(intent.upper.index)
        for path in (Path(intent.upper.data), index, _journal_of(index)):
            path.unlink(missing_ok=True)
    _remove_intent(intent)


def complete_earlier(config: ImageConfig) -> None:
    """Does again what is left of the snapshot before, for who has its image open."""
    upper = config.writable
    for intent in _intents_about(config):
        if upper is not None and _is_same(intent.upper, upper):
            complete(intent)


def settle_snapshot(config: ImageConfig) -> ImageConfig:
    """Ends a snapshot that a crash has interrupted; returns config as it is to be opened.

    Raises what ``complete`` does; BusyError while somebody has the upper open.
    """
    for intent in _intents_about(config):
        config = _settle(intent, config)
    return config


def _intents_about(config: ImageConfig) -> list[SnapshotIntent]:
    """Of the snapshot of config's upper, and of the one that put it on top of its highest lower."""
    upper = config.writable
    if upper is None:
        return []
    files = [upper.data, *(lower.file for lower in config.layers[-1:] if lower.file)]
    found = (_read_intent(Path(file)) for file in files)
    return [intent for intent in found if intent is not None and intent.is_about(upper)]


def _settle(intent: SnapshotIntent, config: ImageConfig) -> ImageConfig:
    with _locked(Path(intent.sealed.data)):
        has_happened = read_upper_pair(Path(intent.sealed.data), Path(intent.sealed.index)).kind == "sealed"
        what = "is brought to its end" if has_happened else "had not happened, and is forgotten"
        logger.warning("%s: a snapshot of it that was interrupted %s", intent.sealed.data, what)
        (complete if has_happened else abandon)(intent)
    names_sealed = config.writable is not None and _is_same(config.writable, intent.sealed)
    return intent.apply(config) if has_happened and names_sealed else config


def _read_intent(data: Path) -> SnapshotIntent | None:
    """The intent about this very file; one that came with a copied folder is about another."""
    path = intent_path(data)
    if not path.exists():
        return None
    try:
        intent = read_json(path, SnapshotIntent)
    except OverlayBDError as error:
        logger.warning("a snapshot that was interrupted is not looked into: %s", error)
        return None
    return intent if Path(intent.sealed.data).resolve() == data.resolve() else None


def _switch(intent: SnapshotIntent, path: Path, *, is_first: bool) -> None:
    """path says what it is to say, unless it does so already or is of another upper by now."""
    if not path.exists():
        return  # its device has been detached meanwhile
    config = load_image_config(path)
    if config.writable is None or not _is_same(config.writable, intent.sealed):
        return
    replaced = intent.replacement if is_first else None
    save_image_config(path, replaced or intent.apply(config))
    hook("snapshot.config_switched")


def _remove_intent(intent: SnapshotIntent) -> None:
    intent.path.unlink(missing_ok=True)
    sync_folder(intent.path.parent)


def _is_same(one: Upper, other: Upper) -> bool:
    return Path(one.data).resolve() == Path(other.data).resolve()


def _journal_of(index: Path) -> Path:
    return index.with_name(f"{index.name}.journal")


@contextmanager
def _locked(data: Path) -> Iterator[None]:
    """Nobody has data open as an upper, or opens it as one meanwhile.  Raises BusyError."""
    descriptor = os.open(data, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise BusyError(f"{data}: another process has it open, and makes a snapshot of it") from error
    finally:
        os.close(descriptor)
