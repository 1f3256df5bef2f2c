"""manifest.json of the reference vectors, as values for parametrize."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "vectors"
CHUNK = 1 << 20

Vector = dict[str, Any]

ALL: list[Vector] = json.loads((FOLDER / "manifest.json").read_text())["vectors"]

# The turboOCI one needs a reader that does not exist yet.
READABLE = [vector for vector in ALL if not vector["name"].startswith("turbo")]


def by_name(vector: Vector) -> str:
    return str(vector["name"])


def differing_chunks(vector: Vector, digest_of_chunk: dict[int, str]) -> list[int]:
    """Numbers of 1 MiB chunks that are not as expected; those not given are zeros."""
    expected = {int(number): digest for number, digest in vector["expected"]["nonzero_chunks"].items()}
    numbers = sorted(expected.keys() | digest_of_chunk.keys())
    return [number for number in numbers if expected.get(number) != digest_of_chunk.get(number)]
