"""What is measured when an image is opened by its name, and how it is printed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from demo.registry import Traffic

MIB = 1 << 20


@dataclass(frozen=True)
class Opening:
    """One ``attach`` (or ``nbd``) of a reference.

    Seconds are from its start; image_bytes is what the layers have in the registry.
    """

    what: str
    layers: int
    image_bytes: int
    files: int
    ready_seconds: float  # to a disk that can be read
    first_file_seconds: float
    before_comparison: Traffic  # all of what was asked until the first file was read
    in_all: Traffic
    told_by_status: dict[str, int] | None = None  # of blobs; the registry's log is the witness

    def facts(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


def table(openings: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Rows of cells, the first of them the heads of the columns; of the facts of openings."""
    rows = [["", *(opening["what"] for opening in openings)]]
    for name, cell in ROWS.items():
        rows.append([name, *(cell(opening) for opening in openings)])
    return rows


def told(counters: Mapping[str, int] | None) -> str:
    return f"{counters['requests']:,}; {counters['bytes_fetched'] / MIB:.1f} MiB" if counters else "-"


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:,.0f} ms"


def requests(traffic: Mapping[str, int]) -> str:
    return f"{traffic['requests']:,} ({traffic['blob_requests']:,} for blobs)"


def fetched(traffic: Mapping[str, int], image_bytes: int) -> str:
    part = traffic["blob_bytes"]
    return f"{part / MIB:.1f} MiB ({100 * part / image_bytes:.1f} %)"


ROWS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "layers, files": lambda o: f"{o['layers']}, {o['files']:,}",
    "image": lambda o: f"{o['image_bytes'] / MIB:.1f} MiB",
    "attach to readable disk": lambda o: milliseconds(o["ready_seconds"]),
    "attach to first file": lambda o: milliseconds(o["first_file_seconds"]),
    "  requests until then": lambda o: requests(o["before_comparison"]),
    "  fetched until then": lambda o: fetched(o["before_comparison"], o["image_bytes"]),
    "requests for all files": lambda o: requests(o["in_all"]),
    "fetched for all files": lambda o: fetched(o["in_all"], o["image_bytes"]),
    "  as status tells it": lambda o: told(o["told_by_status"]),
}
