"""The bare loops of baseline.c, called through ctypes (which lets go of the GIL)."""

from __future__ import annotations

import ctypes
from array import array
from pathlib import Path
from typing import TypeAlias

Numbers: TypeAlias = "array[int]"  # which cannot be subscripted when it runs


class _Loop(ctypes.Structure):
    """struct baseline_loop."""

    _fields_ = (
        ("fd", ctypes.c_int),
        ("length", ctypes.c_uint32),
        ("places", ctypes.c_void_p),
        ("lengths", ctypes.c_void_p),
        ("nr", ctypes.c_size_t),
        ("nr_threads", ctypes.c_uint32),
        ("elapsed_ns", ctypes.c_uint64),
    )


class Baseline:
    def __init__(self, library: Path) -> None:
        self._run = ctypes.CDLL(str(library.resolve())).baseline_run

    def read_loop(
        self, fd: int, length: int, nr_threads: int, places: Numbers, lengths: Numbers | None = None
    ) -> int:
        """Nanoseconds for one read at each of places; with lengths, of ZFile blocks that long."""
        loop = _Loop(
            fd=fd,
            length=length,
            places=places.buffer_info()[0],
            lengths=lengths.buffer_info()[0] if lengths is not None else None,
            nr=len(places),
            nr_threads=nr_threads,
        )
        if not self._run(ctypes.byref(loop)):
            raise RuntimeError("the baseline could not read what it should")
        return int(loop.elapsed_ns)
