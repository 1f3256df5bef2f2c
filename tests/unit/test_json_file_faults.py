"""A state file is the old or the new one, whole, whichever system call of writing it fails."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tcmu_overlaybd.config.json_file import read_json, write_json
from tcmu_overlaybd.errors import FailedError, NoSpaceError

OLD, NEW = {"a": 1}, {"b": "x" * 10_000}


class NthCallFails:
    """Counts the calls of what it is put around; the n-th fails."""

    def __init__(self, n: int, error: int) -> None:
        self.left, self.error = n, error

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            self.left -= 1
            if self.left == 0:
                raise OSError(self.error, os.strerror(self.error))
            return function(*arguments, **more)

        return call


def writes(folder: Path, patch: pytest.MonkeyPatch) -> Iterator[type[Exception] | None]:
    """Each writing of NEW over OLD with the next call failing, until none is left to fail."""
    for n in range(1, 100):
        for error, kind in ((errno.ENOSPC, NoSpaceError), (errno.EIO, FailedError)):
            write_json(folder / "file", OLD)
            fault = NthCallFails(n, error)
            with patch.context() as patched:
                patched.setattr(os, "fsync", fault.around(os.fsync))
                patched.setattr(os, "open", fault.around(os.open))
                patched.setattr(tempfile, "mkstemp", fault.around(tempfile.mkstemp))
                patched.setattr(Path, "rename", fault.around(Path.rename))
                try:
                    write_json(folder / "file", NEW)
                except kind:
                    yield kind
                    continue
            if fault.left > 0:
                return
            yield None


def test_a_file_is_the_old_or_the_new_one_whichever_call_fails(tmp_path, monkeypatch):
    failures = 0
    for failure in writes(tmp_path, monkeypatch):
        assert failure is not None, "a call failed, and nobody was told"
        assert read_json(tmp_path / "file", dict[str, Any]) in (OLD, NEW)
        assert [path.name for path in tmp_path.iterdir()] == ["file"]
        failures += 1
    assert failures >= 10
