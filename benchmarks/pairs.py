"""Two things measured right after each other, again and again, and what that says."""

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

MIN_PAIRS = 9


@dataclass(frozen=True)
class Result:
    """One figure.  ``ratio`` is ours over the baseline, where larger is better for us.

    A figure with a limit instead of a baseline has ``baseline`` and ``ratio`` None.
    ``cpu_ratio`` is the baseline's processor time over ours, where both run in this
    process: it says the same as ``ratio`` on an idle machine, and still does on a busy
    one, where the wall clock mostly measures the others.
    """

    name: str
    unit: str
    ours: float
    baseline: float | None
    ratio: float | None
    spread: tuple[float, float]  # smallest and largest ratio; without a baseline, of ours
    goal: str
    is_met: bool
    samples: list[float] = field(repr=False)
    cpu_ratio: float | None = None

    def as_json(self) -> str:
        return json.dumps(asdict(self))


@dataclass
class _Side:
    """One of the two, and what it gave so far."""

    measure: Callable[[], float]
    rates: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)

    def run(self) -> None:
        begin = time.process_time()
        self.rates.append(self.measure())
        self.cpu_seconds.append(time.process_time() - begin)


def compare(
    name: str,
    ours: Callable[[], float],
    baseline: Callable[[], float],
    *,
    unit: str,
    at_least: float,
    nr_pairs: int = MIN_PAIRS,
    is_in_process: bool = False,
) -> Result:
    """Both return a rate (more is better); each has one run before the first that counts."""
    ours(), baseline()
    sides = [_Side(ours), _Side(baseline)]
    for i in range(max(nr_pairs, MIN_PAIRS)):
        for side in sides if i % 2 == 0 else reversed(sides):
            side.run()
    ratios = _divide(sides[0].rates, sides[1].rates)
    ratio = statistics.median(ratios)
    cpu_ratio = (
        statistics.median(_divide(sides[1].cpu_seconds, sides[0].cpu_seconds)) if is_in_process else None
    )
    return Result(
        name=name,
        unit=unit,
        ours=statistics.median(sides[0].rates),
        baseline=statistics.median(sides[1].rates),
        ratio=ratio,
        spread=(min(ratios), max(ratios)),
        goal=f"ratio >= {at_least}",
        is_met=ratio >= at_least,
        samples=ratios,
        cpu_ratio=cpu_ratio,
    )


def _divide(upper: list[float], lower: list[float]) -> list[float]:
    return [a / b for a, b in zip(upper, lower, strict=True)]


def limit(name: str, samples: list[float], *, unit: str, at_most: float) -> Result:
    """A figure that has to stay under a limit; the median counts."""
    ours = statistics.median(samples)
    return Result(
        name=name,
        unit=unit,
        ours=ours,
        baseline=None,
        ratio=None,
        spread=(min(samples), max(samples)),
        goal=f"<= {at_most} {unit}",
        is_met=ours <= at_most,
        samples=samples,
    )
