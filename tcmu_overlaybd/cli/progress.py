"""Progress bars on a terminal, nothing elsewhere: scripts and logs see results only."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tcmu_overlaybd.cli.options import is_quiet

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


@contextmanager
def progress_bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """Gives a function that is told how much is done, of how much; both in bytes."""
    if not is_wanted():
        yield lambda _done, _total: None
        return
    with bars() as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def layer_bars() -> Iterator[Callable[[int, str, int, int], None]]:
    """The same for layers side by side, a bar for each that is under way: number, what, done, total."""
    if not is_wanted():
        yield lambda _number, _what, _done, _total: None
        return
    with bars() as bar:
        tasks: dict[int, TaskID] = {}
        lock = threading.Lock()  # told by a thread for each layer

        def tell(number: int, what: str, done: int, total: int) -> None:
            with lock:
                if number not in tasks:
                    tasks[number] = bar.add_task("", total=None)
            text = f"layer {number}: {what}"
            bar.update(tasks[number], description=text, completed=done, total=total, visible=done < total)

        yield tell


def is_wanted() -> bool:
    return sys.stderr.isatty() and not is_quiet()


def bars() -> Progress:
    # Imported late: it takes longer than most commands.
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)
