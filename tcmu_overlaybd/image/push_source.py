"""What the SOURCE of a push means: an image, and perhaps layer files on top of it, lowest first.

    LAYER...              layer files
    CONFIG [LAYER...]     the lowers of a configuration (or of the folder of one)
    REFERENCE [LAYER...]  the layers of an image in a registry

An upper of the configuration is left out when layers are given, since one of them is
what it was committed as; else it would be lost, which is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from tcmu_overlaybd.config.image_config import ImageConfig, Lower, load_image_config
from tcmu_overlaybd.errors import MissingError, UsageError
from tcmu_overlaybd.image.layer_file import read_layer_file
from tcmu_overlaybd.image.layer_place import FilePlace
from tcmu_overlaybd.image.lowers import lower_place
from tcmu_overlaybd.image.source import config_path, is_reference
from tcmu_overlaybd.registry.client import RegistryClient
from tcmu_overlaybd.registry.deadline import Deadline
from tcmu_overlaybd.registry.image_build import ImageBase
from tcmu_overlaybd.registry.overlaybd_layers import RemoteLayer
from tcmu_overlaybd.registry.platforms import Platform
from tcmu_overlaybd.registry.reference import Reference, RepoBlobUrl
from tcmu_overlaybd.remote.push_base import find_base
from tcmu_overlaybd.remote.push_layers import LocalLayer, PushLayer, RegistryLayer

ClientOf = Callable[[str], RegistryClient]


def push_source(
    source: Sequence[str], client_of: ClientOf, deadline: Deadline, platform: Platform | None = None
) -> tuple[list[PushLayer], ImageBase]:
    """The layers that source names, and what the new image takes over from the one below.

    platform: which image of an index, and what is said of an image that is new; this
    machine's when None.  Raises MissingError, UsageError, and what reading layers and
    find_base raise.
    """
    first, *above = source
    layers: list[PushLayer] = []
    base = ImageBase.blank(platform or Platform.here())
    if not Path(first).exists() and is_reference(first):
        reference = Reference.parse(first)
        below, base = find_base(client_of(reference.host), reference, deadline, platform)
        layers += below
    elif (config := config_path(Path(first))) is not None:
        layers += _config_layers(config, client_of, deadline, is_covered=bool(above))
    else:
        above = list(source)
    return layers + [_local_layer(Path(path)) for path in above], base


def _config_layers(
    path: Path, client_of: ClientOf, deadline: Deadline, *, is_covered: bool
) -> list[PushLayer]:
    config = load_image_config(path)
    if config.writable is not None and not is_covered:
        raise UsageError(
            f"{path}: its upper is no layer yet: image commit {path} -o LAYER --zfile lz4 --tar,"
            f" then image push {path} LAYER REFERENCE"
        )
    return [_config_layer(lower, config, client_of, deadline) for lower in config.layers]


def _config_layer(lower: Lower, config: ImageConfig, client_of: ClientOf, deadline: Deadline) -> PushLayer:
    """A blob of a registry stays one: it may only have to be mounted."""
    if not (lower.digest and config.repo_blob_url):
        return _local_layer(_file_of(lower, config))
    url = RepoBlobUrl.parse(config.repo_blob_url)
    size = lower.size or client_of(url.host).head_blob(url.repository, lower.digest, deadline)
    if size is None:
        raise MissingError(f"{url.host}/{url.repository}: there is no blob {lower.digest}")
    return RegistryLayer(
        url.host, url.repository, RemoteLayer(lower.digest, size), _copy_of(lower, config, size)
    )


def _copy_of(lower: Lower, config: ImageConfig, size: int) -> Path | None:
    """The local file of a lower that is a blob; the registry will hold it against its digest."""
    if not (lower.file or lower.dir):
        return None
    try:
        path = _file_of(lower, config)
    except MissingError:
        return None
    return path if path.stat().st_size == size else None


def _file_of(lower: Lower, config: ImageConfig) -> Path:
    """Raises MissingError when none of the places where it may be has it."""
    place = lower_place(lower, msgspec.structs.replace(config, repo_blob_url=""), None)
    if place.path is None:
        raise MissingError(f"{place.name}: there is no file of it here")
    return place.path


def _local_layer(path: Path) -> LocalLayer:
    """A layer file, headers checked: what is damaged or half made is not pushed."""
    if config_path(path) is not None:
        raise UsageError(f"{path}: a configuration comes first, layers on top of it follow")
    if not path.exists() and is_reference(str(path)):
        raise UsageError(f"{path}: an image in a registry comes first, layers on top of it follow")
    return LocalLayer(path.absolute(), read_layer_file(FilePlace(path)).containers.wrapper is not None)
