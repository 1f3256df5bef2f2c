"""Media types of manifests, configurations and layers: two families, docker's schema 2 and OCI's."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """What one family calls its parts; ``layer`` is an uncompressed tar (spec/image.md section 1)."""

    index: str
    manifest: str
    config: str
    layer: str


DOCKER = Family(
    index="application/vnd.docker.distribution.manifest.list.v2+json",
    manifest="application/vnd.docker.distribution.manifest.v2+json",
    config="application/vnd.docker.container.image.v1+json",
    layer="application/vnd.docker.image.rootfs.diff.tar",
)
OCI = Family(
    index="application/vnd.oci.image.index.v1+json",
    manifest="application/vnd.oci.image.manifest.v1+json",
    config="application/vnd.oci.image.config.v1+json",
    layer="application/vnd.oci.image.layer.v1.tar",
)
FAMILIES = (OCI, DOCKER)

INDEXES = frozenset(family.index for family in FAMILIES)
MANIFESTS = frozenset(family.manifest for family in FAMILIES)
CONFIGS = frozenset(family.config for family in FAMILIES)

# Of docker's first schema, which has neither sizes nor annotations.
SCHEMA_1 = frozenset(
    {
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
    }
)

MANIFESTS_ACCEPTED = ", ".join(sorted(INDEXES | MANIFESTS))
