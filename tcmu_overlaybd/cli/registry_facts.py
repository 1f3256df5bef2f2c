"""What doctor says of registries: the cache's folder, the file with passwords, and one registry by name.

A cache that cannot keep anything stops no disk, it makes every read of it a fetch: that is
said, and is no fault.  One that a daemon would be refused is a fault.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import shutil
import stat
import tempfile
from collections.abc import Iterable
from pathlib import Path

from tcmu_overlaybd.config.json_file import read_json
from tcmu_overlaybd.errors import AuthenticationError, MissingError, OverlayBDError, UsageError
from tcmu_overlaybd.lio.modules import Fact
from tcmu_overlaybd.registry.client import RegistryClient
from tcmu_overlaybd.registry.deadline import Deadline
from tcmu_overlaybd.registry.docker_config import CredentialFile
from tcmu_overlaybd.registry.reference import is_host
from tcmu_overlaybd.registry.retry import RetryPolicy
from tcmu_overlaybd.remote.settings import StoreSettings

ANSWER_S = 10.0  # for a registry to answer
PUNCH_HOLE = 0x01 | 0x02  # FALLOC_FL_KEEP_SIZE with FALLOC_FL_PUNCH_HOLE
CACHE, PASSWORDS = "cache folder", "passwords"


def cache_fact(settings: StoreSettings) -> Fact:
    """Whether the folder can be used, by whoever asks."""
    folder = settings.folder
    try:
        place = nearest_folder(folder)
        if place != folder and not is_writable(place):
            what = f"cannot be made: {place}, of {owner_of(place)}, is not writable"
            return Fact(CACHE, False, f"{folder}: {what}", "run it as its owner, or set cache.dir")
        return Fact(CACHE, True, "; ".join([str(folder), *reasons_to_keep_nothing(place, settings)]))
    except OSError as error:
        return Fact(CACHE, False, f"{folder}: {error.strerror}", "mend the folder, or set cache.dir")


def nearest_folder(path: Path) -> Path:
    """path, or what is there of the way to it.  Raises NotADirectoryError when that is a file."""
    place = next(part for part in (path, *path.parents) if part.exists())
    if not place.is_dir():
        raise NotADirectoryError(0, f"{place} is no folder")
    return place


def is_writable(folder: Path) -> bool:
    return os.access(folder, os.W_OK | os.X_OK)


def owner_of(path: Path) -> str:
    uid = path.stat().st_uid
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def reasons_to_keep_nothing(place: Path, settings: StoreSettings) -> Iterable[str]:
    """A sentence each, with what to do."""
    if not is_writable(place):
        yield f"nothing is kept: {owner_of(place)} owns it and it is not writable: mend that or set cache.dir"
        return
    free = shutil.disk_usage(place).free
    if free <= settings.free_floor_bytes:
        yield (
            f"nothing more is kept: {free} bytes are free and {settings.free_floor_bytes} must stay so: "
            "make room, or lower cache.freeFloor"
        )
    if not can_punch(place):
        yield (
            "nothing is kept: its file system cannot punch holes: set cache.dir to a folder on ext4, xfs, "
            "btrfs or tmpfs"
        )


def can_punch(folder: Path) -> bool:
    """Tried on a file without a lasting name.  Raises OSError when none can be made."""
    libc = ctypes.CDLL(None, use_errno=True)
    offsets = ctypes.c_int64(0), ctypes.c_int64(4096)
    with tempfile.TemporaryFile(dir=folder) as file:
        return bool(libc.fallocate64(file.fileno(), PUNCH_HOLE, *offsets) == 0)


def passwords_fact(path: Path) -> Fact:
    """Whether docker's file of passwords can be read; nothing of it is shown."""
    try:
        read_json(path, CredentialFile)
    except MissingError:
        return Fact(PASSWORDS, True, f"{path} is not there, so registries are asked without: login makes it")
    except OverlayBDError as error:
        return Fact(PASSWORDS, False, str(error), f"mend {path}, or move it away and login again")
    if path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
        return Fact(PASSWORDS, True, f"{path} can be read, but by others too: chmod 600 it")
    return Fact(PASSWORDS, True, f"{path} can be read")


def registry_fact(host: str, settings: StoreSettings) -> Fact:
    """Whether it answers, how it wants to know who asks, and whether our password will do.

    Raises UsageError when host is none.
    """
    if not is_host(host):
        raise UsageError(f"{host!r}: not a registry: give HOST[:PORT], without https:// and without a path")
    name = f"registry {host}"
    with RegistryClient(
        host.lower(),
        settings.transport,
        settings.credentials,
        insecure_hosts=settings.insecure_hosts,
        policy=RetryPolicy(attempts=1),
    ) as client:
        try:
            client.check(Deadline.after(ANSWER_S))
        except AuthenticationError as error:
            detail = f"it answers, {how_it_asks(client)}: {error}"
            return Fact(name, False, detail, f"tcmu-overlaybd login {host}")
        except OverlayBDError as error:
            remedy = "start it, or look at its name, port, TLS certificate (certConfig.caFile) and the proxy"
            return Fact(name, False, str(error), remedy)
        return Fact(name, True, f"{client.conversation.base} answers, {how_it_asks(client)}")


def how_it_asks(client: RegistryClient) -> str:
    schemes = client.conversation.tokens.schemes
    return f"authentication: {', '.join(schemes)}" if schemes else "without authentication"
