"""What SOURCE means on a command line: a configuration, layer files, or a registry reference.

Whatever it is becomes an ``ImageConfig``, so that the rest knows one description only.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tcmu_overlaybd.config.image_config import ImageConfig, Lower, load_image_config
from tcmu_overlaybd.config.upper_dir import CONFIG_NAME
from tcmu_overlaybd.errors import MissingError, UnavailableError, UsageError
from tcmu_overlaybd.registry.deadline import Deadline
from tcmu_overlaybd.registry.reference import Reference
from tcmu_overlaybd.remote.store import BlobStore

Source = ImageConfig | str | Path | Sequence[str | Path]


def resolve_source(
    source: Source, store: BlobStore | None = None, deadline: Deadline | None = None
) -> ImageConfig:
    """The image that source names; a list of more than one is layer files, lowest first.

    Raises MissingError for a path that is not there, UsageError for a mixture; for a
    reference what ``BlobStore.find_layers`` raises, UnavailableError without a store.
    """
    if isinstance(source, ImageConfig):
        return source
    paths = [Path(source)] if isinstance(source, (str, Path)) else [Path(item) for item in source]
    if not paths:
        raise UsageError("no image is named: give a configuration or layer files, lowest first")
    if len(paths) == 1 and not paths[0].exists() and is_reference(str(paths[0])):
        return resolve_reference(str(paths[0]), store, deadline)
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


def resolve_reference(text: str, store: BlobStore | None, deadline: Deadline | None = None) -> ImageConfig:
    """The image in a registry: its lowers are blobs, which are looked for when they are opened."""
    reference = Reference.parse(text)
    if store is None:
        raise UnavailableError(f"{text}: nothing is to be fetched from a registry now")
    found = store.find_layers(reference, deadline)
    lowers = tuple(Lower(digest=layer.digest, size=layer.size) for layer in found.image.layers)
    return ImageConfig(repo_blob_url=str(found.repository), lowers=lowers)


def is_reference(text: str) -> bool:
    """Whether text, at which there is no file, is meant as HOST[:PORT]/REPOSITORY[:TAG][@DIGEST]."""
    if text.endswith(".json") or Path(text.partition("/")[0]).is_dir():
        return False
    try:
        Reference.parse(text)
    except UsageError:
        return False
    return True


def _require(path: Path) -> None:
    if not path.exists():
        raise MissingError(f"{path}: no such file")
