"""How long it takes to open a tall stack: headers, indexes, merge."""

import time
from pathlib import Path

from benchmarks import images
from benchmarks.pairs import Result, limit
from tcmu_overlaybd.image.importing import import_raw
from tcmu_overlaybd.image.layer_writer import LayerOptions
from tcmu_overlaybd.image.open import open_image

NR_LAYERS = 32
NR_SEGMENTS = 10_000
SEGMENTS_PER_LAYER = -(-NR_SEGMENTS // NR_LAYERS)
STEP = 8192  # a block of data, a block of hole: no two segments touch
LIMIT_MS = 10.0


def stack_of_32(folder: Path, nr_pairs: int) -> Result:
    config = images.config_of(*(scattered_layer(folder, number) for number in range(NR_LAYERS)))
    samples = []
    for _ in range(nr_pairs + 1):
        begin = time.perf_counter()
        opened = open_image(config)
        elapsed = time.perf_counter() - begin
        with opened:
            if opened.image.nr_segments < NR_SEGMENTS:
                raise RuntimeError(f"the stack has {opened.image.nr_segments} segments, not {NR_SEGMENTS}")
        samples.append(elapsed * 1e3)
    return limit(f"open {NR_LAYERS} layers, {NR_SEGMENTS} segments", samples[1:], unit="ms", at_most=LIMIT_MS)


def scattered_layer(folder: Path, number: int) -> Path:
    """A layer whose segments lie between those of the others."""
    path = folder / f"scattered-{number:02}"
    if path.exists():
        return path
    raw = path.with_suffix(".raw")
    with raw.open("wb") as file:
        file.truncate(SEGMENTS_PER_LAYER * NR_LAYERS * STEP)
        for i in range(SEGMENTS_PER_LAYER):
            file.seek((i * NR_LAYERS + number) * STEP)
            file.write(bytes([number + 1]) * (STEP // 2))
    import_raw(raw, path, LayerOptions())
    raw.unlink()
    return path
