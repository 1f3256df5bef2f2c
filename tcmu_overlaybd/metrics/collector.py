"""Readings as ``prometheus-client`` wants them.

Nothing is kept between two scrapes: the counters are the data plane's own, read when asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from tcmu_overlaybd.metrics.families import FAMILIES, Family, Labels, Samples
from tcmu_overlaybd.metrics.readings import Readings
from tcmu_overlaybd.native.core import LATENCY_BOUNDS_S, Latency

ReadAll = Callable[[], Readings]

BOUNDS = (*map(floatToGoString, LATENCY_BOUNDS_S), "+Inf")


def make_registry(read: ReadAll) -> CollectorRegistry:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(OwnFamilies(read))
    ProcessCollector(registry=registry)  # processor time, memory, file descriptors
    return registry


class OwnFamilies(Collector):
    def __init__(self, read: ReadAll) -> None:
        self._read = read

    def describe(self) -> Iterable[Metric]:
        return [_empty(family) for family in FAMILIES]

    def collect(self) -> Iterator[Metric]:
        readings = self._read()
        for family in FAMILIES:
            metric = _empty(family)
            _fill(metric, family.samples(readings))
            yield metric


def _empty(family: Family) -> Any:
    kinds = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily, "histogram": HistogramMetricFamily}
    return kinds[family.kind](family.name, family.help, labels=family.labels)


def _fill(metric: Any, samples: Samples) -> None:
    for labels, value in samples:
        if isinstance(value, Latency):
            _add_histogram(metric, labels, value)
        else:
            metric.add_metric(labels, float(value))


def _add_histogram(metric: HistogramMetricFamily, labels: Labels, latency: Latency) -> None:
    cumulative = list(zip(BOUNDS, map(float, accumulate(latency.counts)), strict=True))
    metric.add_metric(labels, cumulative, sum_value=latency.sum_s)
