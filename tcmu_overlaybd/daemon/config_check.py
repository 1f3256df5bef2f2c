"""Whether a config string would make a working device, for whoever asks before making it (targetcli)."""

from __future__ import annotations

from tcmu_overlaybd.config.image_config import load_image_config
from tcmu_overlaybd.errors import FormatError, OverlayBDError, UsageError
from tcmu_overlaybd.image.check import check_files
from tcmu_overlaybd.lio.config_string import ConfigString
from tcmu_overlaybd.remote.store import BlobStore

DESCRIPTION = (
    "PATH[;NAME]: PATH is the absolute path of an image configuration, config.v1.json, which lists the "
    "layers, lowest first, and perhaps an upper that is written; NAME is what the device is called. "
    "The size of the disk is the image's, whatever SIZE says. "
    "Example: create web 10G /var/lib/images/web/config.v1.json;web"
)


def check_config(text: str, store: BlobStore) -> None:
    """Raises UsageError, MissingError, FormatError, ... with the one thing that is wrong first."""
    try:
        config = ConfigString.parse(text)
    except FormatError:
        raise UsageError(f"{text!r} names no image; give {DESCRIPTION.partition(':')[0]}") from None
    config.format()
    if not config.path.is_absolute():
        raise UsageError(f"{config.path}: not an absolute path, and the daemon has another working folder")
    if config.path.is_dir():
        raise UsageError(f"{config.path}: a folder; name the config.v1.json in it")
    image = load_image_config(config.path)
    try:
        check_files(image, store)
    except OverlayBDError as error:
        raise type(error)(f"{config.path}: {error}") from error
