"""The disks that the tests serve: the reference's vectors, and new ones."""

from __future__ import annotations

import json
from pathlib import Path

VECTORS = Path(__file__).parents[1] / "golden" / "vectors"
MANIFEST = json.loads((VECTORS / "manifest.json").read_text())

DISK_SIZE = 8 << 20  # of a new one, bytes
