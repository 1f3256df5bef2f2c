"""The arithmetic of the benchmarks: medians of ratios of neighbours, in alternating order."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

from benchmarks.pairs import MIN_PAIRS, compare, limit


def side(name: str, order: list[str], rates: Iterator[float]) -> Callable[[], float]:
    def measure() -> float:
        order.append(name)
        return next(rates)

    return measure


def test_a_pair_is_measured_in_both_orders_after_one_run_that_does_not_count() -> None:
    order: list[str] = []
    ours = side("ours", order, iter([1.0] * 20))
    compare("x", ours, side("bare", order, iter([1.0] * 20)), unit="1/s", at_least=1)
    assert order[:6] == ["ours", "bare", "ours", "bare", "bare", "ours"]
    assert len(order) == 2 * (MIN_PAIRS + 1)


def test_the_ratio_is_the_median_of_the_pairs_not_of_the_sides() -> None:
    """The machine is ten times slower for half of the pairs; each ratio is 0.8 all the same."""
    speed = [1.0, 1.0, 10.0, 1.0, 10.0, 10.0, 1.0, 10.0, 10.0, 1.0]
    ours = side("ours", [], iter([8.0 * factor for factor in speed]))
    bare = side("bare", [], iter([10.0 * factor for factor in speed]))
    result = compare("x", ours, bare, unit="1/s", at_least=0.8)
    assert result.ratio == 0.8
    assert result.is_met
    assert result.spread == (0.8, 0.8)


def test_a_goal_that_is_missed_is_said_so() -> None:
    ours, bare = side("ours", [], iter([6.9] * 20)), side("bare", [], iter([10.0] * 20))
    assert not compare("x", ours, bare, unit="1/s", at_least=0.7).is_met
    assert not limit("y", [9.0, 11.0, 12.0], unit="ms", at_most=10.0).is_met


def test_a_result_is_one_line_of_json() -> None:
    text = limit("y", [1.0, 3.0, 2.0], unit="ms", at_most=10.0).as_json()
    assert "\n" not in text
    assert json.loads(text)["ours"] == 2.0
