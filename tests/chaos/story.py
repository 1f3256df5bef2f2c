"""What happens in a run of chaos, by a seed, and the account of it.

A server of images reads one image all the time, and others come and go.  Meanwhile, at
random: the registry is killed, or stopped, and comes back; a proxy in front of it spoils
answers; tokens expire; files of the cache are damaged, under the server and while it is
away; the server is killed, or stopped; and the cache has room for a third of what is read.

The order of events is the seed's.  When each one meets what the others do, is not.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.chaos.faulty_proxy import FaultyProxy
from tests.chaos.processes import DiedError, ImageServer, VerifyingReader
from tests.chaos.vandal import Vandal
from tests.registry.docker_registry import DockerRegistry

EVENT_KINDS = ("registry killed", "registry stopped", "server killed", "server stopped", "damage")
EVENT_KINDS += ("damage while away", "came", "faults")

HANG_S = 400  # for a reader that shall end; it looks after each of its reads itself


@dataclass(frozen=True)
class ServedImage:
    reference: str
    raw: Path  # what its disk holds


class Account:
    """What happened, for whoever has to explain it: lines with a time, and counts."""

    def __init__(self, path: Path) -> None:
        self.counts: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.mismatches: list[str] = []
        self.hangs = 0
        self._began = time.monotonic()
        self._file = path.open("w")
        self._lock = threading.Lock()

    def note(self, kind: str, text: str = "") -> None:
        with self._lock:
            self.counts[kind] += 1
            self._file.write(f"{time.monotonic() - self._began:8.2f} {kind} {text}\n")
            self._file.flush()

    def add(self, who: str, report: dict[str, Any]) -> None:
        """The report of a reader."""
        self.note(f"{who} ended", str(report))
        with self._lock:
            for key in ("reads", "bytes", "lost", "connections"):
                self.counts[f"{key} of {who}"] += report[key]
            self.errors.update(report["errors"])
            self.hangs += report["hangs"]
            if report["mismatches"]:
                self.mismatches.append(f"{who}: {report['mismatches']}, first {report['first_mismatch']}")

    def summary(self, seed: int, seconds: float) -> str:
        """For whoever quotes it."""
        read = sum(n for key, n in self.counts.items() if key.startswith("bytes of"))
        events = ", ".join(f"{self.counts[kind]} x {kind}" for kind in EVENT_KINDS)
        return (
            f"seed {seed}, {seconds:g} s: {read >> 20} MiB read and compared,"
            f" {len(self.mismatches)} mismatches, {self.hangs} hangs,"
            f" {sum(self.errors.values())} reads ended in an error; {events}"
        )


class Chaos:
    """``run``, then ``calm_down``, then look at ``account``."""

    def __init__(
        self,
        *,
        seed: int,
        server: ImageServer,
        registry: DockerRegistry,
        proxy: FaultyProxy,
        vandal: Vandal,
        main: ServedImage,
        others: dict[str, ServedImage],
        account: Account,
    ) -> None:
        self.account = account
        self._rng = random.Random(seed)
        self._visitor_seed = self._rng.randrange(1 << 30)
        self._server = server
        self._registry = registry
        self._proxy = proxy
        self._vandal = vandal
        self._main = main
        self._others = others
        self._is_over = threading.Event()
        self._readers: list[VerifyingReader] = []

    def run(self, seconds: float) -> None:
        self._server.start()
        self._open_main()
        self._readers = [
            VerifyingReader(self._server.uri("main"), self._main.raw, self._rng.randrange(1 << 30))
            for _ in range(2)
        ]
        with ThreadPoolExecutor(1) as pool:
            visitor = pool.submit(self._come_and_go)
            try:
                self._let_it_happen(seconds)
            finally:
                self._is_over.set()
                self._proxy.rate = 0
            visitor.result()

    def _let_it_happen(self, seconds: float) -> None:
        """Each kind of event once, however slow the machine is, and then as the dice fall."""
        end = time.monotonic() + seconds
        kinds, weights = zip(*EVENTS, strict=True)
        due = self._rng.sample(kinds, len(kinds))
        while time.monotonic() < end and all(reader.is_running for reader in self._readers):
            event = due.pop() if due else self._rng.choices(kinds, weights)[0]
            event(self)
            time.sleep(self._rng.uniform(0.05, 1.0))

    def calm_down(self) -> None:
        """Nothing goes wrong any more: every read is right now, after what has been left behind."""
        time.sleep(2)
        for number, reader in enumerate(self._readers):
            self.account.add(f"reader {number}", reader.finish(HANG_S))
        self.account.note("cache", str(self._server.ask("stats")[1]))
        assert self._server.stop() == 0, self._server.log.read_text()[-2000:]
        self._server.start()
        self._open_main()
        assert self._read_once("main", self._main, "last look")
        for name, image in self._others.items():
            assert self._server.ask("open", name, image.reference) == ("done", None)
            assert self._read_once(name, image, "last look")
        assert self._server.stop() == 0

    def close(self) -> None:
        """Also after a failure."""
        self._is_over.set()
        for reader in self._readers:
            reader.kill()
        with contextlib.suppress(Exception):
            self._server.kill()

    # -- events

    def _storm(self) -> None:
        self._proxy.rate = self._rng.choice([0, 0.02, 0.1, 0.3, 0.6])
        self.account.note("faults", f"{self._proxy.rate:.0%} of answers")

    def _kill_registry(self) -> None:
        self._registry.kill()
        self._registry_comes_back("registry killed")

    def _stop_registry(self) -> None:
        self._registry.stop()
        self._registry_comes_back("registry stopped")

    def _registry_comes_back(self, kind: str) -> None:
        away = self._rng.uniform(0, 3)
        self.account.note(kind, f"for {away:.1f} s")
        time.sleep(away)
        self._registry.start()

    def _damage(self) -> None:
        for _ in range(self._rng.randrange(1, 4)):
            self.account.note("damage", self._vandal.damage_live())

    def _kill_server(self) -> None:
        self._server.kill()
        self._server_comes_back("server killed")

    def _stop_server(self) -> None:
        code = self._server.stop()
        assert code == 0, f"exit code {code}: {self._server.log.read_text()[-2000:]}"
        self._server_comes_back("server stopped")

    def _server_comes_back(self, kind: str) -> None:
        self.account.note(kind)
        for _ in range(self._rng.randrange(4)):
            self.account.note("damage while away", self._vandal.damage_idle())
        self._server.start()
        self._open_main()

    # -- images

    def _open_main(self) -> None:
        """Until it is open: the registry may well be away, but not for ever."""
        end = time.monotonic() + HANG_S
        while (answer := self._server.ask("open", "main", self._main.reference))[0] != "done":
            self.account.note("main not opened", str(answer))
            assert time.monotonic() < end, f"the main image cannot be opened: {answer}"
            time.sleep(0.2)

    def _come_and_go(self) -> None:
        rng = random.Random(self._visitor_seed)
        while not self._is_over.is_set():
            name = rng.choice(list(self._others))
            image = self._others[name]
            with contextlib.suppress(DiedError):
                answer = self._server.ask("open", name, image.reference)
                self.account.note(
                    "came" if answer[0] == "done" else f"refused: {answer[0]}", f"{name} {answer}"
                )
                if answer[0] == "done":
                    self._read_once(name, image, "visitor")
                    self.account.note("went", f"{name} {self._server.ask('close', name)}")
            time.sleep(rng.uniform(0, 0.5))

    def _read_once(self, name: str, image: ServedImage, who: str) -> bool:
        """Whether all of it could be read."""
        reader = VerifyingReader(self._server.uri(name), image.raw, 0, "--once")
        try:
            report = reader.finish(HANG_S)
        finally:
            reader.kill()
        self.account.add(who, report)
        return bool(report["is_whole"])


Event = Callable[[Chaos], None]

EVENTS: tuple[tuple[Event, int], ...] = (
    (Chaos._storm, 6),
    (Chaos._damage, 6),
    (Chaos._kill_server, 3),
    (Chaos._stop_server, 1),
    (Chaos._kill_registry, 2),
    (Chaos._stop_registry, 1),
)
