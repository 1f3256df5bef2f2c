"""A process that downloads one blob slowly, to be killed: URL, file with the same bytes, folder."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from tcmu_overlaybd.remote.download import Downloads
from tests.remote.cached_blob import Blobs
from tests.remote.downloading import config, start, wanted


def main(url: str, same: str, folder: str) -> None:
    data = Path(same).read_bytes()
    with Blobs(Path(folder, "cache")) as blobs:
        start(
            Downloads(config(max_mbps=4), free_floor=0),
            wanted(blobs.open(url, data), data, Path(folder, "layer")),
        )
        signal.pause()


main(*sys.argv[1:])
