"""``config.v1.json``: which layers make an image (spec/config.md section 2).

``lowers`` are listed lowest first.  Relative paths are taken from the folder of the
file, so that a folder of layers can be moved as a whole; the reference takes them
from its working directory, and the files its snapshotter writes have absolute ones.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeVar

import msgspec

from tcmu_overlaybd.config.download_config import DownloadConfig
from tcmu_overlaybd.config.json_file import read_json, write_json

Size = Annotated[int, msgspec.Meta(ge=0)]


class Lower(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """One sealed layer: a local file, or what to look for in ``dir``, or a blob."""

    file: str = ""
    dir: str = ""
    digest: str = ""
    size: Size = 0
    target_file: str = ""
    target_digest: str = ""
    gzip_index: str = ""


class Upper(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """The writable layer; absent unless both paths are given."""

    index: str = ""
    data: str = ""
    target: str = ""
    gzip_index: str = ""

    @property
    def is_given(self) -> bool:
        return bool(self.index and self.data)


class ImageConfig(msgspec.Struct, frozen=True, rename="camel"):
    """An image.  Keys that Go writes as null are read as absent."""

    repo_blob_url: str = ""
    lowers: tuple[Lower, ...] | None = ()
    upper: Upper | None = Upper()
    result_file: str = ""
    acceleration_layer: bool = False
    record_trace_path: str = ""
    download: DownloadConfig | msgspec.UnsetType | None = msgspec.UNSET  # instead of the service's

    @property
    def layers(self) -> tuple[Lower, ...]:
        """The lowers that hold data, lowest first: a trace layer on top is none."""
        lowers = self.lowers or ()
        return lowers[:-1] if self.acceleration_layer else lowers

    @property
    def own_download(self) -> DownloadConfig | None:
        return self.download if isinstance(self.download, DownloadConfig) else None

    @property
    def writable(self) -> Upper | None:
        return self.upper if self.upper is not None and self.upper.is_given else None


def load_image_config(path: Path) -> ImageConfig:
    """The image that path describes, its paths made absolute.

    Raises MissingError, or FormatError with the key that is wrong.
    """
    config = read_json(path, ImageConfig)
    folder = path.absolute().parent
    return msgspec.structs.replace(
        config,
        lowers=tuple(_anchor(lower, folder) for lower in config.lowers or ()),
        upper=None if config.upper is None else _anchor(config.upper, folder),
    )


def save_image_config(path: Path, config: ImageConfig) -> None:
    """Writes path atomically; readable for its owner only, as the snapshotter does.

    What lies in the folder of path, or below it, is named relative to it: a copy of the
    folder then is of its own, and does not write to the files of the original.
    """
    folder = path.absolute().parent
    portable = msgspec.structs.replace(
        config,
        lowers=tuple(_loosen(lower, folder) for lower in config.lowers or ()),
        upper=None if config.upper is None else _loosen(config.upper, folder),
    )
    write_json(path, portable)


S = TypeVar("S", bound=msgspec.Struct)

_PATH_KEYS = ("file", "dir", "index", "data", "target", "target_file", "gzip_index")


def _anchor(entry: S, folder: Path) -> S:
    """entry with its relative paths taken from folder."""
    absolute = {key: str(folder / value) for key, value in _paths(entry).items()}
    return msgspec.structs.replace(entry, **absolute)


def _loosen(entry: S, folder: Path) -> S:
    """entry with its paths into folder made relative to it; the others are as they were."""
    inside = {key: Path(value) for key, value in _paths(entry).items() if Path(value).is_relative_to(folder)}
    relative = {key: str(path.relative_to(folder)) for key, path in inside.items() if ".." not in path.parts}
    return msgspec.structs.replace(entry, **relative)


def _paths(entry: msgspec.Struct) -> dict[str, str]:
    """The paths that entry has, by key."""
    paths = {key: getattr(entry, key, "") for key in _PATH_KEYS}
    return {key: value for key, value in paths.items() if value}
