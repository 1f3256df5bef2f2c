"""What all wrappers of an opaque handle have in common: closed once, by hand or by ``with``."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from tcmu_overlaybd.native._binding import check, ffi


class Handle:
    """Owns one pointer from C; ``handle`` gives it to calls of this package."""

    def __init__(self, pointer: Any, close: Callable[[Any], int | None]) -> None:
        self._pointer = pointer
        self._close = close

    @property
    def handle(self) -> Any:
        if self._pointer is None:
            raise ValueError(f"this {type(self).__name__} is closed")
        return self._pointer

    def close(self) -> None:
        """Gives the handle back; what that said is raised.  Closing twice is fine."""
        pointer, self._pointer = self._pointer, None
        if pointer is not None:
            check(self._close(pointer) or 0)

    def release(self) -> Any:
        """The pointer, whose owner is the caller from now on."""
        pointer = self.handle
        self._pointer = None
        return pointer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def opened(function: Callable[..., int], kind: str, *arguments: Any) -> Any:
    """Calls function(arguments..., &out) and returns what it put there; kind is ``struct source``."""
    out = ffi.new(f"{kind} **")
    check(function(*arguments, out))
    return out[0]
