"""For what machine an image is: ``OS/ARCHITECTURE[/VARIANT]``, in Go's words."""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass

from tcmu_overlaybd.errors import UsageError

# What the kernel calls a machine, and what images do.
_MACHINES = {
    "x86_64": ("amd64", ""),
    "aarch64": ("arm64", "v8"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "i386": ("386", ""),
    "i686": ("386", ""),
    "loongarch64": ("loong64", ""),
    "mips64": ("mips64le", ""),
}


@dataclass(frozen=True)
class Platform:
    os: str
    architecture: str
    variant: str = ""

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Raises UsageError."""
        parts = text.lower().split("/")
        if not 2 <= len(parts) <= 3 or not all(re.fullmatch(r"[a-z0-9_.-]+", part) for part in parts):
            raise UsageError(f"{text!r}: not a platform: write OS/ARCHITECTURE, as linux/amd64")
        return cls(*parts)

    @classmethod
    def here(cls) -> Platform:
        """This machine; disks are for Linux, whatever we run on."""
        machine = platform.machine()
        return cls("linux", *_MACHINES.get(machine, (machine, "")))

    def fits(self, wanted: Platform) -> bool:
        """Whether an image for self is one for wanted: a variant counts where both have one."""
        same = (self.os, self.architecture) == (wanted.os, wanted.architecture)
        return same and (not self.variant or not wanted.variant or self.variant == wanted.variant)

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))
