"""Could this image be opened?  As far as its files tell, without reading them or asking a registry."""

from __future__ import annotations

from pathlib import Path

from tcmu_overlaybd.config.image_config import ImageConfig
from tcmu_overlaybd.errors import FormatError, OverlayBDError
from tcmu_overlaybd.image.layer_place import FilePlace
from tcmu_overlaybd.image.lowers import lower_place
from tcmu_overlaybd.image.upper_pair import read_upper_pair
from tcmu_overlaybd.remote.store import BlobStore


def check_files(config: ImageConfig, store: BlobStore) -> None:
    """Raises what opening it would: MissingError for a file, with the place of its layer; FormatError,
    UsageError, UnavailableError for what is no layer, or none that we read."""
    upper = config.writable
    if not config.layers and upper is None:
        raise FormatError("it names neither layers nor an upper")
    for number, lower in enumerate(config.layers, 1):
        try:
            place = lower_place(lower, config, store)
            if isinstance(place, FilePlace):
                place.key()
        except OverlayBDError as error:
            raise type(error)(f"layer {number} of {len(config.layers)}: {error}") from error
    if upper is not None:
        read_upper_pair(Path(upper.data), Path(upper.index))
