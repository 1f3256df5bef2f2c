"""Kinds of values that options take."""

from __future__ import annotations

import re

import click

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


class ByteSize(click.ParamType[int]):
    """Bytes, or with one of the units K, M, G, T (powers of 1024): ``4096``, ``10G``."""

    name = "bytes"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"([0-9]{1,20})([KMGT]?)(?:i?B)?", str(value), re.IGNORECASE)
        if match is None:
            self.fail(f"{value!r} is not a size: bytes, or a number with K, M, G or T", param, ctx)
        return int(match[1]) * _UNITS[match[2].upper()]


class BlockSize(ByteSize):
    """A ZFile's block size: 4 to 64 KiB, in bytes or, as in the reference's --bs, in KiB."""

    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        size = super().convert(value, param, ctx)
        size = size * 1024 if size <= 64 else size
        if size not in (4096, 8192, 16384, 32768, 65536):
            self.fail(f"{value!r} is not a block size: 4K, 8K, 16K, 32K or 64K", param, ctx)
        return size


BYTES = ByteSize()
BLOCK_SIZE = BlockSize()
