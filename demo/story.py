"""How the demo speaks: chapters, facts and progress, on a terminal or over a pipe.

The part that runs inside the VM cannot draw on the terminal, so it writes each
event as one line of JSON (``WireStory``) and the part outside reads them
(``relay``) and tells them with ``TerminalStory``.  Without a terminal the story
is plain lines.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, Protocol, TypeVar

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from demo.figures import table

Item = TypeVar("Item")
MARK = "@story "


class Story(Protocol):
    """What a chapter of the demo may say."""

    def chapter(self, title: str) -> None: ...
    def fact(self, text: str) -> None: ...
    def progress(self, label: str, done: int, total: int) -> None: ...
    def figures(self, door: str, openings: list[dict[str, Any]]) -> None: ...


def each(story: Story, label: str, items: Iterable[Item], total: int) -> Iterator[Item]:
    """Yields items while telling how many are done, at most ten times a second."""
    told = 0.0
    for done, item in enumerate(items):
        if time.monotonic() - told > 0.1:
            story.progress(label, done, total)
            told = time.monotonic()
        yield item
    story.progress(label, total, total)


class TerminalStory:
    """Rich text and one progress bar at a time; plain lines where there is no terminal."""

    def __init__(self, *, on_stderr: bool = False) -> None:
        self._console = Console(highlight=False, stderr=on_stderr)
        self.measured: dict[str, Any] = {}
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._label = ""
        self._chapter = 0

    def chapter(self, title: str) -> None:
        self._end_progress()
        self._chapter += 1
        self._console.print(f"\n[bold cyan]{self._chapter}. {title}[/]")

    def fact(self, text: str) -> None:
        self._end_progress()
        self._console.print(f"   {text}", markup=False, soft_wrap=not self._console.is_terminal)

    def progress(self, label: str, done: int, total: int) -> None:
        if not self._console.is_terminal:
            return
        if self._progress is None or label != self._label:
            self._begin_progress(label, total)
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=done, total=total)
        if done >= total:
            self._end_progress()

    def figures(self, door: str, openings: list[dict[str, Any]]) -> None:
        """Prints them as a table, and keeps them as ``measured``."""
        self._end_progress()
        self.measured = {"door": door, "openings": openings}
        (_, *heads), *rows = table(openings)
        drawn = Table(box=SIMPLE_HEAD, pad_edge=False)
        for head in ("", *heads):
            drawn.add_column(head, no_wrap=True)
        for row in rows:
            drawn.add_row(*row)
        self._console.print(Padding(drawn, (0, 0, 0, 3), expand=False))

    def _begin_progress(self, label: str, total: int) -> None:
        self._end_progress()
        self._label = label
        self._progress = Progress(
            TextColumn("   {task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
        )
        self._task = self._progress.add_task(label, total=total)
        self._progress.start()

    def _end_progress(self) -> None:
        if self._progress is not None:
            self._progress.stop()
        self._progress, self._task = None, None


class WireStory:
    """The same events as lines on stdout, for ``relay`` on the other side."""

    def chapter(self, title: str) -> None:
        self._send(kind="chapter", title=title)

    def fact(self, text: str) -> None:
        self._send(kind="fact", text=text)

    def progress(self, label: str, done: int, total: int) -> None:
        self._send(kind="progress", label=label, done=done, total=total)

    def figures(self, door: str, openings: list[dict[str, Any]]) -> None:
        self._send(kind="figures", door=door, openings=openings)

    def _send(self, **event: Any) -> None:
        sys.stdout.write(MARK + json.dumps(event) + "\n")
        sys.stdout.flush()


def relay(lines: Iterable[str], story: Story) -> list[str]:
    """Tells the events among lines; returns the other lines, for when it goes wrong."""
    others = []
    for line in lines:
        before, mark, rest = line.partition(MARK)
        if not mark:
            others.append(line.rstrip("\n"))
            continue
        if before.strip():
            others.append(before)
        event = json.loads(rest)
        getattr(story, event.pop("kind"))(**event)
    return others
