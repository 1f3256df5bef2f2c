"""A process that reads an image through the cache and then makes that small: killed at a hook by a test.

python -m tests.remote.cache_process FOLDER REFERENCE LIMIT_BYTES
"""

from __future__ import annotations

import sys
from pathlib import Path

from tcmu_overlaybd.image.open import open_image
from tests.remote.image_store import store_in

READ_TIMEOUT_MS = 60_000


def main(folder: str, reference: str, limit: str) -> None:
    with (
        store_in(Path(folder), limit_bytes=int(limit)) as store,
        open_image(reference, store=store) as opened,
    ):
        opened.image.read(opened.image.size, 0, READ_TIMEOUT_MS)


if __name__ == "__main__":
    main(*sys.argv[1:])
