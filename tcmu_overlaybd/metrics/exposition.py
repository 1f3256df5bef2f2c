"""Metrics as text, in the formats that Prometheus scrapes.

``prometheus-client`` is imported with the first scrape: a restart keeps disks waiting, and it
takes 10 ms to load.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

from tcmu_overlaybd.metrics.readings import Readings

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry


class Exposition:
    """Thread-safe, as far as ``read`` is."""

    def __init__(self, read: Callable[[], Readings]) -> None:
        self._read = read

    def render(self, accept: str = "") -> tuple[str, bytes]:
        """(content type, body) in the best format that the Accept header allows."""
        from prometheus_client.exposition import choose_encoder

        encode, content_type = choose_encoder(accept)
        return content_type, encode(self._registry)

    @functools.cached_property
    def _registry(self) -> CollectorRegistry:
        from tcmu_overlaybd.metrics.collector import make_registry

        return make_registry(self._read)
