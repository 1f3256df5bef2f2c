"""What tests of the NBD front share: tools that must be there, a new disk."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.nbd.disks import DISK_SIZE, VECTORS


@pytest.fixture
def tool() -> Any:
    """``tool("fio")`` is its path; the test is skipped where it is not installed."""

    def find(name: str) -> str:
        path = shutil.which(name)
        if path is None:
            pytest.skip(f"{name} is not installed")
        return path

    return find


@pytest.fixture
def upper_of(tmp_path: Path) -> list[str]:
    """Arguments for a writable disk of DISK_SIZE bytes over an empty layer, in tmp_path/upper."""
    empty = VECTORS / "empty.config.v1.json"
    return [str(empty), "--writable", "--upper", str(tmp_path / "upper"), "--size", str(DISK_SIZE)]
