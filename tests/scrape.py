"""A scrape of metrics, read as strictly as Prometheus and promtool do, and a little more."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
import urllib.request
from collections import Counter
from collections.abc import Iterable

from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
OTHER_UNITS = ("milliseconds", "ms", "us", "ns", "kb", "mb", "kib", "mib", "kilobytes", "percent", "ratio")

Key = tuple[str, frozenset[tuple[str, str]]]


class Scrape:
    """``scrape.value("name", device="d")``; ``sum`` over all series that have the labels given."""

    def __init__(self, text: str, families: Iterable[Metric]) -> None:
        self.text = text
        self.families = {family.name: family for family in families}
        self.values: dict[Key, float] = {}
        for family in self.families.values():
            for sample in family.samples:
                key = (sample.name, frozenset(sample.labels.items()))
                assert key not in self.values, f"{key} is there twice"
                self.values[key] = sample.value

    def value(self, name: str, **labels: str) -> float:
        return self.values[f"tcmu_overlaybd_{name}", frozenset(labels.items())]

    def sum(self, name: str, **labels: str) -> float:
        wanted = labels.items()
        return sum(
            value
            for (found, having), value in self.values.items()
            if found == f"tcmu_overlaybd_{name}" and wanted <= set(having)
        )


def get(url: str, accept: str = "") -> str:
    request = urllib.request.Request(url, headers={"Accept": accept})
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
        return answer.read().decode()


def scrape(url: str) -> Scrape:
    """Both formats, each read by the parser made for it; the sums of the text one."""
    check_openmetrics(get(url, OPENMETRICS))
    return check_text(get(url))


def check_text(text: str) -> Scrape:
    """Raises AssertionError, or what the parser raises, for anything that is not as it should be."""
    found = Scrape(text, parse_text(text))
    check_heads(text)
    for family in found.families.values():
        check_names(family)
        if family.type == "histogram":
            check_histograms(family)
    check_with_promtool(text)
    return found


def check_openmetrics(text: str) -> Scrape:
    assert text.endswith("# EOF\n")
    return Scrape(text, parse_openmetrics(text))


def check_heads(text: str) -> None:
    """Every family has one HELP and one TYPE, before its series, which stand together."""
    for word in ("HELP", "TYPE"):
        names = Counter(line.split()[2] for line in text.splitlines() if line.startswith(f"# {word} "))
        assert [name for name, times in names.items() if times > 1] == []
    assert "untyped" not in text
    assert all(len(line.split(maxsplit=3)) == 4 for line in text.splitlines() if line.startswith("# HELP"))


def check_names(family: Metric) -> None:
    assert NAME.fullmatch(family.name), family.name
    assert not family.name.endswith(OTHER_UNITS), f"{family.name}: seconds and bytes are the units"
    for sample in family.samples:
        assert all(NAME.fullmatch(label) for label in sample.labels), sample
        assert math.isfinite(sample.value), sample
        if family.type == "counter":
            assert sample.name == f"{family.name}_total", sample
            assert sample.value >= 0, sample
        elif family.type == "gauge":
            assert not sample.name.endswith(("_total", "_count", "_sum", "_bucket")), sample


def check_histograms(family: Metric) -> None:
    """Of each: buckets that never go down, the last of which is the count, and a sum that they allow."""
    groups: dict[frozenset[tuple[str, str]], dict[str, float]] = {}
    for sample in family.samples:
        labels = {name: value for name, value in sample.labels.items() if name != "le"}
        series = groups.setdefault(frozenset(labels.items()), {})
        series[sample.labels.get("le", sample.name.removeprefix(family.name))] = sample.value
    for series in groups.values():
        count, total = series.pop("_count"), series.pop("_sum")
        bounds = sorted(series, key=float)
        values = [series[bound] for bound in bounds]
        assert bounds[-1] == "+Inf"
        assert values == sorted(values)
        assert values[-1] == count
        in_bucket = [after - before for before, after in zip([0.0, *values], values, strict=False)]
        least = sum(nr * float(bound) for nr, bound in zip(in_bucket[1:], bounds, strict=False))
        assert least <= total * 1.000001, "the sum is smaller than its buckets allow"


def check_with_promtool(text: str) -> None:
    """Where Debian's prometheus is installed."""
    promtool = shutil.which("promtool")
    if promtool is None:
        return
    done = subprocess.run(
        [promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False, timeout=60
    )
    said = [line for line in (done.stdout + done.stderr).splitlines() if "tcmu_overlaybd" in line]
    assert said == []
    assert done.returncode == 0, done.stdout + done.stderr
