"""Measures, prints one JSON object a figure, and draws."""

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import opening, plots, reads, registry, resident, vm
from benchmarks.baseline import Baseline
from benchmarks.pairs import MIN_PAIRS, Result

Case = Callable[[], Iterable[Result]]


def cases(out: Path, nr_pairs: int) -> Iterator[tuple[str, Case]]:
    """What to call it on the command line, and how to measure it."""
    baseline = Baseline(out / "baseline.so")
    folder = out / "images"
    folder.mkdir(exist_ok=True)
    for name, make, alone in (
        ("plain", reads.plain, reads.PLAIN_GOAL),
        ("zfile", reads.compressed, reads.ZFILE_GOAL),
    ):
        for nr_threads, goal in ((1, alone), (2, reads.TWO_THREADS_GOAL)):
            yield f"{name}-{nr_threads}", partial(_reads, make, folder, baseline, nr_threads, goal, nr_pairs)
    yield "cold", partial(_one, registry.cold, folder, nr_pairs)
    yield "warm", partial(_one, registry.warm, folder, nr_pairs)
    yield "open-32", partial(_one, opening.stack_of_32, folder, nr_pairs)
    yield "resident", partial(_one, resident.idle_device, folder)
    if vm.can_run():
        yield "vm", partial(vm.measure, out, nr_pairs)


def _reads(make: Callable[[Path], reads.Reads], folder: Path, *arguments: Any) -> Iterator[Result]:
    yield reads.measure(make(folder), *arguments)


def _one(measure: Callable[..., Result], *arguments: Any) -> Iterator[Result]:
    yield measure(*arguments)


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for images, JSON and plots")
    parser.add_argument("--pairs", type=int, default=25, help=f"pairs of each ratio, at least {MIN_PAIRS}")
    parser.add_argument("only", nargs="*", help="names of cases; all without")
    arguments = parser.parse_args()
    known = dict(cases(arguments.out, arguments.pairs))
    if unknown := set(arguments.only) - set(known):
        parser.error(f"there is no case {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    results = []
    for name in arguments.only or known:
        for result in known[name]():
            results.append(result)
            print(result.as_json(), flush=True)
    (arguments.out / "results.json").write_text("\n".join(result.as_json() for result in results) + "\n")
    plots.draw(results, arguments.out)
    if not vm.can_run():
        print("not measured: TCMU: this kernel has none, and there is no User-Mode Linux", file=sys.stderr)
    for missed in (result for result in results if not result.is_met):
        print(f"not met: {missed.name}: {missed.goal}", file=sys.stderr)
    return 0 if all(result.is_met for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
