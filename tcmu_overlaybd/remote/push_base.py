"""An image of a registry as the lower part of one that is pushed."""

from __future__ import annotations

from typing import Any

import msgspec

from tcmu_overlaybd.errors import FormatError
from tcmu_overlaybd.registry.client import RegistryClient
from tcmu_overlaybd.registry.deadline import Deadline
from tcmu_overlaybd.registry.image_build import ImageBase
from tcmu_overlaybd.registry.image_lookup import find_image
from tcmu_overlaybd.registry.manifests import Manifest
from tcmu_overlaybd.registry.media_types import DOCKER, OCI, Family
from tcmu_overlaybd.registry.overlaybd_layers import recognise
from tcmu_overlaybd.registry.platforms import Platform
from tcmu_overlaybd.registry.reference import Reference
from tcmu_overlaybd.remote.push_layers import RegistryLayer

MAX_CONFIG = 4 << 20  # bytes


def find_base(
    client: RegistryClient, reference: Reference, deadline: Deadline, platform: Platform | None = None
) -> tuple[list[RegistryLayer], ImageBase]:
    """Its layers, lowest first, and what an image on top of them takes over.

    A trace layer on top is left out: it is about this image, not about the new one.
    Raises what find_image, recognise and RegistryClient raise.
    """
    found = find_image(client, reference, deadline, platform)
    image = recognise(found.manifest, str(reference))
    layers = [RegistryLayer(reference.host, reference.repository, layer) for layer in image.layers]
    body = client.get_blob(reference.repository, found.manifest.config.digest, MAX_CONFIG, deadline)
    try:
        config = msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError) as error:
        raise FormatError(f"{reference}: the configuration of the image is no JSON object") from error
    return layers, ImageBase(_family(found.manifest), config, len(layers))


def _family(manifest: Manifest) -> Family:
    stated = manifest.media_type or manifest.config.media_type
    return OCI if stated in (OCI.manifest, OCI.config) else DOCKER
