"""Which manifests are overlaybd images: told by annotations of their layers (spec/image.md section 1)."""

from __future__ import annotations

from dataclasses import dataclass

from tcmu_overlaybd.errors import FormatError, UnavailableError
from tcmu_overlaybd.registry.manifests import Descriptor, Manifest

PREFIX = "containerd.io/snapshot/overlaybd/"
VERSION = PREFIX + "version"
BLOB_DIGEST = PREFIX + "blob-digest"
BLOB_SIZE = PREFIX + "blob-size"
FS_TYPE = PREFIX + "blob-fs-type"
ACCELERATION = PREFIX + "acceleration-layer"
NATIVE_VERSION = "0.1.0"

# Layers whose data stays in the original tar: other formats, not read here yet.
_TURBO_KEYS = tuple(PREFIX + name for name in ("turbo-oci/target-digest", "fastoci/target-digest"))
_TURBO_VERSIONS = (NATIVE_VERSION + "-turbo", NATIVE_VERSION + "-fastoci")


@dataclass(frozen=True)
class RemoteLayer:
    """A blob that is a layer; ``size`` in bytes; ``fs_type`` is "" when nothing says it."""

    digest: str
    size: int
    fs_type: str = ""


@dataclass(frozen=True)
class OverlaybdImage:
    """``layers`` lowest first; ``acceleration`` is the trace layer on top, which holds no data."""

    layers: tuple[RemoteLayer, ...]
    acceleration: RemoteLayer | None = None


def recognise(manifest: Manifest, what: str) -> OverlaybdImage:
    """The layers of an overlaybd image.

    Raises FormatError for any other image, in a sentence that says what to do;
    UnavailableError for turboOCI; FormatError when annotations and descriptors differ.
    """
    descriptors = manifest.layers
    acceleration = descriptors[-1] if descriptors and descriptors[-1].annotation(ACCELERATION) else None
    data = descriptors[:-1] if acceleration else descriptors
    if not data:
        raise FormatError(f"{what}: an image without layers")
    layers = tuple(_layer(entry, f"{what}: layer {i} of {len(data)}") for i, entry in enumerate(data, 1))
    trace = None if acceleration is None else _layer(acceleration, f"{what}: acceleration layer")
    return OverlaybdImage(layers, trace)


def _layer(descriptor: Descriptor, what: str) -> RemoteLayer:
    version = descriptor.annotation(VERSION)
    if any(map(descriptor.annotation, _TURBO_KEYS)) or version.startswith(_TURBO_VERSIONS):
        raise UnavailableError(f"{what} is of turboOCI ({version or 'old'}), which is not supported yet")
    digest, size = descriptor.annotation(BLOB_DIGEST), descriptor.annotation(BLOB_SIZE)
    if not digest or not size:
        raise FormatError(
            f"{what} has no overlaybd annotations, so this is an ordinary image: make an overlaybd one "
            "with the convertor of accelerated-container-image, or of a disk with image import "
            "and image push "
            "(a copy of one keeps them with skopeo copy --preserve-digests)"
        )
    if digest != descriptor.digest and descriptor.media_type.endswith("gzip"):
        raise FormatError(
            f"{what} was compressed by who copied the image: copy it with skopeo copy --preserve-digests"
        )
    if digest != descriptor.digest or size != str(descriptor.size):
        raise FormatError(
            f"{what} is {descriptor.digest} of {descriptor.size} bytes, "
            f"but its annotations say {digest[:80]} of {size[:20]}"
        )
    return RemoteLayer(descriptor.digest, descriptor.size, descriptor.annotation(FS_TYPE))
