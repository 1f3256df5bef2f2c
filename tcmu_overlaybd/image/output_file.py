"""An output file that is there whole or not at all.

A layer never replaces a file, since others may have it in use by its name; an
exported disk may, in one step.  It is written without a name (O_TMPFILE), so that
even kill -9 leaves nothing behind, synced, and only then linked to its name; where
the file system has no unnamed files, under a hidden name that is removed on failure.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from tcmu_overlaybd.errors import FailedError, MissingError, NoSpaceError, OverlayBDError
from tcmu_overlaybd.native.testing import hook

MODE = 0o644
_NO_UNNAMED_FILES = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT)


class OutputFile:
    """``with OutputFile(path) as output:`` write to ``output.fd``; the end of the block keeps the file.

    An exception inside discards it, and with ``replace`` leaves what was there.  Raises
    FailedError when path exists already, at once or, if it has come since, at the end
    (with ``replace`` only when it is no regular file); NoSpaceError when the disk is full.
    """

    def __init__(self, path: Path, *, replace: bool = False) -> None:
        self.path = path
        self._replace = replace
        self.fd = -1
        self._hidden: Path | None = None

    def __enter__(self) -> Self:
        if os.path.lexists(self.path) and not (self._replace and self.path.is_file()):
            raise self._exists()
        if not self.path.parent.is_dir():
            raise MissingError(f"{self.path}: there is no folder {self.path.parent}")
        try:
            self.fd = self._open()
        except OSError as error:
            raise FailedError(f"{self.path}: cannot be made: {error.strerror}") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._keep()
            elif isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise NoSpaceError(f"{self.path}: the disk is full") from error
            elif isinstance(error, OverlayBDError) and (unnamed := self._name_in_messages()) in str(error):
                raise type(error)(str(error).replace(unnamed, str(self.path))) from error
        except OSError as failure:
            raise self._translate(failure) from failure
        finally:
            os.close(self.fd)
            if self._hidden is not None:
                self._hidden.unlink(missing_ok=True)

    def write_at(self, offset: int, data: bytes) -> None:
        write_all(self.fd, memoryview(data), offset)

    def _name_in_messages(self) -> str:
        """What C, which knows the descriptor only, calls the file: "/tmp/#1234 (deleted)"."""
        return str(Path(f"/proc/self/fd/{self.fd}").readlink())

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_CLOEXEC
        try:
            return os.open(self.path.parent, flags | os.O_TMPFILE, MODE)
        except OSError as error:
            if error.errno not in _NO_UNNAMED_FILES:
                raise
        hidden = self._hidden_path()
        descriptor = os.open(hidden, flags | os.O_CREAT | os.O_EXCL, MODE)
        self._hidden = hidden
        return descriptor

    def _keep(self) -> None:
        os.fsync(self.fd)
        hook("commit.synced")
        source = self._hidden or f"/proc/self/fd/{self.fd}"
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # Python follows the link in /proc only when it is given a folder.
            if not self._replace:
                os.link(source, self.path.name, dst_dir_fd=folder, follow_symlinks=self._hidden is None)
            else:
                self._replace_with(source, folder)
            hook("commit.linked")
            os.fsync(folder)
        finally:
            os.close(folder)

    def _replace_with(self, source: Path | str, folder: int) -> None:
        """A link cannot replace a name, a rename can: by way of the hidden name."""
        if self._hidden is None:
            hidden = self._hidden_path()
            os.link(source, hidden.name, dst_dir_fd=folder, follow_symlinks=True)
            self._hidden = hidden
        self._hidden.rename(self.path)
        self._hidden = None

    def _hidden_path(self) -> Path:
        return self.path.with_name(f".{self.path.name}.{os.getpid()}.partial")

    def _exists(self) -> FailedError:
        return FailedError(f"{self.path}: exists already, and is not replaced")

    def _translate(self, error: OSError) -> Exception:
        if error.errno == errno.EEXIST:
            return self._exists()
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return NoSpaceError(f"{self.path}: the disk is full")
        return FailedError(f"{self.path}: cannot be written: {error.strerror}")


def write_all(fd: int, data: memoryview, offset: int) -> None:
    """Writes all of data, which one call of the kernel need not do."""
    while data:
        written = os.pwrite(fd, data, offset)
        data, offset = data[written:], offset + written
