"""What SOURCE means on a command line: a configuration, layer files, or a registry reference.

Whatever it is becomes an ``ImageConfig``, so that the rest knows one description only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from tcmu_overlaybd.config.image_config import ImageConfig, Lower, load_image_config
from tcmu_overlaybd.config.upper_dir import CONFIG_NAME
from tcmu_overlaybd.errors import MissingError, UnavailableError, UsageError

Source = ImageConfig | str | Path | Sequence[str | Path]

# host[:port]/repository[:tag][@digest]: the host has a dot, a port, or is localhost,
# which no ordinary file name has in front of its first slash.
_REFERENCE = re.compile(
    r"(?:localhost|[a-z0-9-]+(?:\.[a-z0-9-]+)+|[a-z0-9-]+(?=:))(?::[0-9]{1,5})?"
    r"/[a-z0-9]+(?:[._/-]+[a-z0-9]+)*(?::[\w][\w.-]{0,127})?(?:@sha256:[0-9a-f]{64})?"
)


def resolve_source(source: Source) -> ImageConfig:
    """The image that source names; a list of more than one is layer files, lowest first.

    Raises MissingError for a path that is not there, UnavailableError for a registry
    reference, UsageError for a mixture.
    """
    if isinstance(source, ImageConfig):
        return source
    paths = [Path(source)] if isinstance(source, (str, Path)) else [Path(item) for item in source]
    if not paths:
        raise UsageError("no image is named: give a configuration or layer files, lowest first")
    for path in paths:
        _require(path)
    if len(paths) == 1 and (config := config_path(paths[0])) is not None:
        return load_image_config(config)
    for path in paths:
        if config_path(path) is not None:
            raise UsageError(f"{path}: a configuration stands alone, it is no layer among {len(paths)}")
    return ImageConfig(lowers=tuple(Lower(file=str(path.absolute())) for path in paths))


def config_path(path: Path) -> Path | None:
    """The configuration that path is, or that lies in the folder path; None for a layer file."""
    if path.is_dir():
        return path / CONFIG_NAME
    if path.suffix == ".json" or not path.is_file():
        return path if path.suffix == ".json" else None
    with path.open("rb") as file:
        return path if file.read(64).lstrip()[:1] == b"{" else None


def is_reference(text: str) -> bool:
    """Whether text reads as a registry reference; a path that exists is asked for first."""
    host = text.partition("/")[0]
    return bool(_REFERENCE.fullmatch(text)) and not Path(host).is_dir() and not text.endswith(".json")


def _require(path: Path) -> None:
    if path.exists():
        return
    if is_reference(str(path)):
        raise UnavailableError(f"{path}: images in a registry cannot be opened yet; give local files")
    raise MissingError(f"{path}: no such file")
