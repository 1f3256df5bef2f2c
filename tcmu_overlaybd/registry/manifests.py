"""Manifests and indexes as they lie in a registry: JSON, of two families with one shape.

What a document is says its media type, in the reply or in the document; without any, its
members do.  Numbers and digests in it come from outside: they are checked when it is read.
"""

from __future__ import annotations

from typing import Annotated, TypeVar

import msgspec

from tcmu_overlaybd.config.decoding import decode_json
from tcmu_overlaybd.errors import FormatError, UnavailableError
from tcmu_overlaybd.registry import media_types
from tcmu_overlaybd.registry.client import RawManifest
from tcmu_overlaybd.registry.platforms import Platform

MAX_LAYERS = 4096
MAX_ENTRIES = 4096  # of an index

# A BuildKit attestation lies in an index like an image (spec/image.md section 1).
_REFERENCE_TYPE = "vnd.docker.reference.type"

Size = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
Sha256 = Annotated[str, msgspec.Meta(pattern=r"^sha256:[0-9a-f]{64}$")]


class PlatformRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    architecture: str = ""
    os: str = ""
    variant: str = ""


class Descriptor(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A blob or manifest: kind, digest, length in bytes."""

    media_type: str
    size: Size
    digest: Sha256
    annotations: dict[str, str] | None = None
    platform: PlatformRecord | None = None

    def annotation(self, key: str) -> str:
        """ "" when there is none."""
        return (self.annotations or {}).get(key, "")

    def suits(self, wanted: Platform) -> bool:
        record = self.platform
        return record is not None and Platform(record.os, record.architecture, record.variant).fits(wanted)


class Manifest(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """One image; ``layers`` lowest first."""

    schema_version: int
    config: Descriptor
    layers: Annotated[tuple[Descriptor, ...], msgspec.Meta(max_length=MAX_LAYERS)]
    media_type: str = ""
    annotations: dict[str, str] | None = None


class Index(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Images for several platforms; an entry may be another index."""

    schema_version: int
    manifests: Annotated[tuple[Descriptor, ...], msgspec.Meta(max_length=MAX_ENTRIES)]
    media_type: str = ""
    annotations: dict[str, str] | None = None

    @property
    def images(self) -> tuple[Descriptor, ...]:
        """The entries that are images or indexes."""
        kinds = media_types.MANIFESTS | media_types.INDEXES
        return tuple(
            entry
            for entry in self.manifests
            if entry.media_type in kinds and not entry.annotation(_REFERENCE_TYPE)
        )


class _Kind(msgspec.Struct, rename="camel"):
    """The members that tell what a document is."""

    schema_version: int = 0
    media_type: str = ""
    manifests: msgspec.Raw = msgspec.Raw()
    layers: msgspec.Raw = msgspec.Raw()
    fs_layers: msgspec.Raw = msgspec.Raw()


def parse_manifest(raw: RawManifest, what: str) -> Manifest | Index:
    """The document in raw; what begins messages.

    Raises FormatError when it is none or breaks a rule, UnavailableError for kinds not read here.
    """
    kind = _decode(raw.body, _Kind, what)
    stated = {raw.media_type, kind.media_type}
    if stated & media_types.SCHEMA_1 or kind.schema_version == 1 or bytes(kind.fs_layers):
        raise UnavailableError(f"{what}: a manifest of docker's first schema, which is not read here")
    if kind.schema_version != 2:
        raise FormatError(f"{what}: a manifest with schemaVersion {kind.schema_version}, not 2")
    is_index, is_image = bool(bytes(kind.manifests)), bool(bytes(kind.layers))
    # One document that can be read both ways is an attack (CVE-2021-41190).
    if is_index and is_image:
        raise FormatError(f"{what}: a manifest with layers and with manifests at once")
    if kind.media_type and raw.media_type in _KNOWN and kind.media_type != raw.media_type:
        raise FormatError(f"{what}: served as {raw.media_type} and calls itself {kind.media_type}")
    stated_index = bool(stated & media_types.INDEXES)
    if stated & _KNOWN and stated_index != is_index:
        raise FormatError(f"{what}: the members of the manifest do not fit its media type")
    if not is_index and not is_image:
        raise FormatError(f"{what}: neither an image nor an index: it has no layers and no manifests")
    return _decode(raw.body, Index, what) if is_index else _decode(raw.body, Manifest, what)


_KNOWN = media_types.MANIFESTS | media_types.INDEXES

T = TypeVar("T")


def _decode(body: bytes, kind: type[T], what: str) -> T:
    try:
        return decode_json(body, kind)
    except msgspec.ValidationError as error:
        raise FormatError(f"{what}: no manifest as it should be: {error}") from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise FormatError(f"{what}: the manifest is no JSON") from error
