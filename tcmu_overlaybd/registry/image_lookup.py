"""From a reference to the manifest of one image: through indexes, by platform."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tcmu_overlaybd.errors import FormatError, MissingError
from tcmu_overlaybd.registry.client import RegistryClient
from tcmu_overlaybd.registry.deadline import Deadline
from tcmu_overlaybd.registry.manifests import Descriptor, Manifest, parse_manifest
from tcmu_overlaybd.registry.platforms import Platform
from tcmu_overlaybd.registry.reference import Reference

MAX_DEPTH = 4  # indexes in indexes


@dataclass(frozen=True)
class FoundImage:
    """The image that reference named; ``digest`` is its manifest's."""

    reference: Reference
    digest: str
    manifest: Manifest


def find_image(
    client: RegistryClient, reference: Reference, deadline: Deadline, platform: Platform | None = None
) -> FoundImage:
    """platform: this machine's when None.

    Raises MissingError when there is no such tag, or nothing for the platform (the
    sentence names what there is); FormatError when a manifest breaks a rule; and what
    RegistryClient raises.
    """
    target = reference.target
    for _ in range(MAX_DEPTH):
        raw = client.get_manifest(reference.repository, target, deadline)
        document = parse_manifest(raw, str(reference))
        if isinstance(document, Manifest):
            return FoundImage(reference, raw.digest, document)
        target = choose(document.images, platform or Platform.here(), str(reference)).digest
    raise FormatError(f"{reference}: indexes lie in each other more than {MAX_DEPTH - 1} deep")


def choose(entries: Sequence[Descriptor], wanted: Platform, what: str) -> Descriptor:
    """The entry of an index for wanted: the first that fits, an exact variant before others.

    A single entry that does not say what it is for, as a nested index, may be for anything.
    """
    fitting = [entry for entry in entries if entry.suits(wanted)]
    exact = [entry for entry in fitting if entry.platform and entry.platform.variant == wanted.variant]
    if fitting:
        return (exact or fitting)[0]
    unmarked = [entry for entry in entries if entry.platform is None]
    if len(unmarked) == 1:
        return unmarked[0]
    there = sorted({_name(entry) for entry in entries})
    raise MissingError(f"{what}: nothing for {wanted}, only for {', '.join(there) or 'no platform at all'}")


def _name(entry: Descriptor) -> str:
    record = entry.platform
    return "unnamed ones" if record is None else str(Platform(record.os, record.architecture, record.variant))
