"""Draws the ratios, when matplotlib is there (``pip install .[plots]``)."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.pairs import Result

try:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot
except ImportError:
    pyplot = None


def draw(results: Sequence[Result], out: Path) -> None:
    """Every sample as a dot beside its median, and the goal as a line: out/ratios.png."""
    ratios = [result for result in results if result.ratio is not None]
    if pyplot is None or not ratios:
        return
    figure, axes = pyplot.subplots(figsize=(9, 1 + 0.7 * len(ratios)), layout="constrained")
    for row, result in enumerate(ratios):
        axes.plot(result.samples, [row] * len(result.samples), "o", color="tab:blue", alpha=0.35)
        axes.plot([result.ratio], [row], "|", color="tab:blue", markersize=22, markeredgewidth=3)
        goal = float(result.goal.rpartition(" ")[2])
        axes.plot([goal, goal], [row - 0.35, row + 0.35], color="tab:red")
    axes.set_yticks(range(len(ratios)), [result.name for result in ratios])
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set_xlabel("ours / bare loop (dots: pairs, bar: median, red: goal)")
    figure.savefig(out / "ratios.png", dpi=120)
    pyplot.close(figure)
