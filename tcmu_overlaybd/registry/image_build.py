"""The documents of an image to push: configuration and manifest, the same bytes for the same layers.

A layer is an uncompressed tar of one file, so its diff ID is its digest, and ordinary
tools take the image: they unpack one file called overlaybd.commit.  There is no date in
it, so pushing again what has not changed changes no digest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tcmu_overlaybd.registry import overlaybd_layers as keys
from tcmu_overlaybd.registry.media_types import DOCKER, Family
from tcmu_overlaybd.registry.overlaybd_layers import RemoteLayer
from tcmu_overlaybd.registry.platforms import Platform

Json = dict[str, object]


@dataclass(frozen=True)
class BuiltImage:
    """``config`` is pushed as a blob, ``manifest`` by its media type, after all blobs."""

    media_type: str
    manifest: bytes = field(repr=False)
    manifest_digest: str
    config: bytes = field(repr=False)
    config_digest: str


@dataclass(frozen=True)
class ImageBase:
    """What a new image takes over: the family, and the configuration of the image below it.

    nr_layers: how many of the new image's layers are that one's.
    """

    family: Family
    config: Mapping[str, object] = field(repr=False)
    nr_layers: int = 0

    @classmethod
    def blank(cls, platform: Platform, family: Family = DOCKER) -> ImageBase:
        config: Json = {"architecture": platform.architecture, "os": platform.os}
        if platform.variant:
            config["variant"] = platform.variant
        return cls(family, {**config, "config": {}})


def build_image(layers: Sequence[RemoteLayer], base: ImageBase, comment: str = "") -> BuiltImage:
    """The image of layers, lowest first.  comment goes into the history, for people."""
    family = base.family
    config = _encode(_config(layers, base, comment))
    config_digest = _digest(config)
    manifest = _encode(
        {
            "schemaVersion": 2,
            "mediaType": family.manifest,
            "config": {"mediaType": family.config, "size": len(config), "digest": config_digest},
            "layers": [_descriptor(layer, family) for layer in layers],
        }
    )
    return BuiltImage(family.manifest, manifest, _digest(manifest), config, config_digest)


def _config(layers: Sequence[RemoteLayer], base: ImageBase, comment: str) -> Json:
    """The base's, of which only what tells about layers is changed."""
    step: Json = {"created_by": "tcmu-overlaybd image push"}
    if comment:
        step["comment"] = comment
    steps = base.config.get("history")
    before = list(steps) if isinstance(steps, list) else []
    return {
        **base.config,
        "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in layers]},
        "history": before + [step] * (len(layers) - base.nr_layers),
    }


def _descriptor(layer: RemoteLayer, family: Family) -> Json:
    annotations = {
        keys.VERSION: keys.NATIVE_VERSION,
        keys.BLOB_DIGEST: layer.digest,
        keys.BLOB_SIZE: str(layer.size),
    }
    if layer.fs_type:
        annotations[keys.FS_TYPE] = layer.fs_type
    return {
        "mediaType": family.layer,
        "size": layer.size,
        "digest": layer.digest,
        "annotations": annotations,
    }


def _encode(document: Json) -> bytes:
    """Members in the order of the code, no spaces, no newline at the end."""
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def _digest(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"
