"""Where the daemon keeps what survives it, and what does not.

As root: ``/var/lib/tcmu-overlaybd`` and ``/run/tcmu-overlaybd``; as a user, the XDG
folders.  systemd's ``STATE_DIRECTORY`` and ``RUNTIME_DIRECTORY`` come first.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

NAME = "tcmu-overlaybd"


@dataclass(frozen=True, slots=True)
class Folders:
    state: Path
    run: Path

    @classmethod
    def choose(cls, environment: Mapping[str, str] = os.environ, uid: int | None = None) -> Self:
        """The folders of this user; none of them is made."""
        is_root = (os.geteuid() if uid is None else uid) == 0
        state, run = cls._of_root() if is_root else cls._of_user(environment)
        return cls(
            Path(environment.get("STATE_DIRECTORY") or state),
            Path(environment.get("RUNTIME_DIRECTORY") or run),
        )

    @staticmethod
    def _of_root() -> tuple[Path, Path]:
        return Path("/var/lib", NAME), Path("/run", NAME)

    @staticmethod
    def _of_user(environment: Mapping[str, str]) -> tuple[Path, Path]:
        state = environment.get("XDG_STATE_HOME") or Path.home() / ".local/state"
        run = environment.get("XDG_RUNTIME_DIR")
        # Without a session there is no XDG folder; the name must not be another user's to take.
        fallback = Path(tempfile.gettempdir(), f"{NAME}-{os.geteuid()}")
        return Path(state, NAME), Path(run, NAME) if run else fallback

    @property
    def socket(self) -> Path:
        return self.run / "control.socket"

    @property
    def lock(self) -> Path:
        return self.run / "lock"
