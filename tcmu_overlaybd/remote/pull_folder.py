"""The folder that a pull fills: what may be in it, and who has it.

<hex of the digest>.tar           a layer, whole and held against its digest
<hex of the digest>.tar.partial   one on its way; the next pull goes on with it
config.v1.json                    written last: without it the folder is no image
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tcmu_overlaybd.config.image_config import load_image_config
from tcmu_overlaybd.config.upper_dir import CONFIG_NAME
from tcmu_overlaybd.errors import BusyError, FailedError, MissingError, NoSpaceError, OverlayBDError
from tcmu_overlaybd.registry.overlaybd_layers import RemoteLayer

_OUR_FILE = re.compile(r"[0-9a-f]{64}\.tar(?:\.partial)?")


def file_name(layer: RemoteLayer) -> str:
    return f"{layer.digest.removeprefix('sha256:')}.tar"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Makes folder if it is absent, and has it for us alone; one that stays empty goes away again."""
    try:
        folder.mkdir(exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise MissingError(f"{folder}: there is no folder {folder.parent}") from error
    except OSError as error:
        raise FailedError(f"{folder}: cannot be made a folder of layers: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BusyError(f"{folder}: another pull fills it") from error
        yield
    finally:
        with suppress(OSError):
            folder.rmdir()
        os.close(descriptor)


def clear(folder: Path, layers: Sequence[RemoteLayer]) -> None:
    """Removes what an earlier pull left that is of no use now; FailedError when anything else is there."""
    wanted = {file_name(layer) for layer in layers}
    config = folder / CONFIG_NAME
    if config.exists():
        held = [lower.digest for lower in load_image_config(config).layers]
        if held != [layer.digest for layer in layers]:
            raise FailedError(f"{folder}: holds another image already")
    for path in folder.iterdir():
        if path == config or path.name.removesuffix(".partial") in wanted:
            continue
        if not _OUR_FILE.fullmatch(path.name):
            raise FailedError(f"{folder}: holds {path.name}; an image is pulled into a folder of its own")
        path.unlink()


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Says which file or folder the operating system refused."""
    try:
        yield
    except OverlayBDError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpaceError(f"{path}: the disk is full") from error
        raise FailedError(f"{path}: cannot be written: {error.strerror}") from error
