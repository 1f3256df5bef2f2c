"""What the kernel says in a file of /sys, /proc or configfs."""

from __future__ import annotations

from pathlib import Path


def read_kernel_text(path: Path) -> str:
    """All of it; "" when the thing is gone by now, or not ours to look at."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
