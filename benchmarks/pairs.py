"""Two things measured right after each other, again and again, and what that says."""

import json
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

MIN_PAIRS = 9


@dataclass(frozen=True)
class Result:
    """One figure.  ``ratio`` is ours over the baseline, where larger is better for us.

    A figure with a limit instead of a baseline has ``baseline`` and ``ratio`` None.
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

    def as_json(self) -> str:
        return json.dumps(asdict(self))


def compare(
    name: str,
    ours: Callable[[], float],
    baseline: Callable[[], float],
    *,
    unit: str,
    at_least: float,
    nr_pairs: int = MIN_PAIRS,
) -> Result:
    """Both return a rate (more is better); each has one run before the first that counts."""
    ours(), baseline()
    ours_rates, baseline_rates = [], []
    for i in range(max(nr_pairs, MIN_PAIRS)):
        for side in ("ours", "baseline") if i % 2 == 0 else ("baseline", "ours"):
            if side == "ours":
                ours_rates.append(ours())
            else:
                baseline_rates.append(baseline())
    ratios = [a / b for a, b in zip(ours_rates, baseline_rates, strict=True)]
    ratio = statistics.median(ratios)
    return Result(
        name=name,
        unit=unit,
        ours=statistics.median(ours_rates),
        baseline=statistics.median(baseline_rates),
        ratio=ratio,
        spread=(min(ratios), max(ratios)),
        goal=f"ratio >= {at_least}",
        is_met=ratio >= at_least,
        samples=ratios,
    )


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
