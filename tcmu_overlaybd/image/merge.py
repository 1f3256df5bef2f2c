"""``image merge``: a whole stack flattened into one layer (spec/lsmt.md section 7.3).

Unlike the reference's, the merged layer has no source layer numbers in its index: no
reader wants them, and without them neighbours can be joined.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tcmu_overlaybd.formats import uuid_text
from tcmu_overlaybd.image.layer_writer import LayerOptions, Progress, WrittenLayer, no_progress, write_layer
from tcmu_overlaybd.image.open import open_image
from tcmu_overlaybd.image.source import Source
from tcmu_overlaybd.remote.store import BlobStore


def merge_image(
    source: Source,
    output: Path,
    options: LayerOptions,
    *,
    holder: str = "tcmu-overlaybd image merge",
    progress: Progress = no_progress,
    store: BlobStore | None = None,
) -> WrittenLayer:
    """Writes all that can be read from source as the layer output, a lowest one."""
    with open_image(source, name=str(output), holder=holder, store=store) as opened:
        parent = uuid_text.NULL
        if opened.layers:
            parent = opened.layers[0].file.header.parent_uuid
        elif opened.upper is not None:
            parent = opened.upper.parent_uuid
        return write_layer(opened.image, output, replace(options, drop_zeros=True), parent, progress)
