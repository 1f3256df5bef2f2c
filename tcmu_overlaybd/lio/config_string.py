"""The config string of a TCMU device: ``overlaybd/<path>[;<device id>]`` (spec/config.md section 4).

The path is what follows the first ``/``, so an absolute one gives two slashes.  The
kernel keeps 256 bytes of it, NUL included; it splits the text that we write at commas
and newlines, and targetcli refuses colons.  So only short paths of ours are written.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tcmu_overlaybd.errors import FormatError, UsageError

SUBTYPE = "overlaybd"
MAX_BYTES = 255
FORBIDDEN = frozenset(",:;\n\0")


@dataclass(frozen=True, slots=True)
class ConfigString:
    """Where the image configuration lies, and what the device is called ("" when nobody said)."""

    path: Path
    device_id: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises FormatError when text is no config string of ours."""
        subtype, slash, rest = text.partition("/")
        path, _, device_id = rest.partition(";")
        if subtype != SUBTYPE or not slash or not path:
            raise FormatError(f"config string {text!r}: not {SUBTYPE}/<path>[;<device id>]")
        return cls(Path(path), device_id)

    def format(self) -> str:
        """The text for the kernel.  Raises UsageError for what the kernel would cut or split."""
        text = f"{SUBTYPE}/{self.path}"
        if self.device_id:
            text += f";{self.device_id}"
        for part in (str(self.path), self.device_id):
            found = FORBIDDEN.intersection(part)
            if found:
                raise UsageError(f"config string {text!r}: {sorted(found)[0]!r} cannot stand in it")
        if len(text.encode()) > MAX_BYTES:
            raise UsageError(f"config string {text!r}: longer than the kernel's {MAX_BYTES} bytes")
        return text
