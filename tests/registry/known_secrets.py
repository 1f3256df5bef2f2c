"""What must not be read anywhere, and where it might be.

    secrets = Secrets("anna", password)
    with secrets.watched_command_lines():
        ...
    secrets.add(*tokens)
    assert secrets.in_text(stderr) == []
    assert secrets.files_with_one(folder) == []
    assert secrets.found == set()

A secret is looked for as it is, in base64 with its user's name in front, and as a URL has it.
"""

from __future__ import annotations

import base64
import contextlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, quote_plus


class Secrets:
    """``found``: what was seen on the command line of any process while that was watched."""

    def __init__(self, user: str, password: str) -> None:
        pair = base64.b64encode(f"{user}:{password}".encode()).decode()
        self._forms = {password, quote(password), quote_plus(password), pair, quote_plus(pair)}
        self.nr_looks = 0
        self.found: set[str] = set()

    def add(self, *tokens: str) -> None:
        """Tokens, of which their signatures are looked for too."""
        for token in tokens:
            self._forms |= {token, token.rpartition(".")[2]}

    def in_text(self, text: str) -> list[str]:
        return [form for form in self._forms if form in text]

    def files_with_one(self, *folders: Path) -> list[Path]:
        """Among all files below, of whatever kind, by their content or their name."""
        found = []
        for folder in folders:
            for path in folder.rglob("*"):
                text = str(path)
                if path.is_file():
                    with contextlib.suppress(FileNotFoundError):
                        text += path.read_bytes().decode("latin-1")
                if self.in_text(text):
                    found.append(path)
        return found

    @contextmanager
    def watched_command_lines(self) -> Iterator[None]:
        """Every process of the machine, again and again."""
        ended = threading.Event()
        watcher = threading.Thread(target=self._watch, args=[ended])
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()

    def _watch(self, ended: threading.Event) -> None:
        while not ended.wait(0.1):
            self.nr_looks += 1
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    text = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    if self.in_text(text):
                        self.found.add(text)
