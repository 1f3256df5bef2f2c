"""Draws the ratios, when matplotlib is there (``pip install .[plots]``)."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.pairs import Result


def draw(results: Sequence[Result], out: Path) -> None:
    """Every sample as a dot beside its median, and the goal as a line: out/ratios.png."""
    try:
        import matplotlib as mpl
    except ImportError:
        return
    mpl.use("Agg")  # a file is wanted, not a window
    from matplotlib import pyplot

    ratios = [(result, result.ratio) for result in results if result.ratio is not None]
    figure, axes = pyplot.subplots(figsize=(9, 1.5 + 0.7 * len(ratios)), layout="constrained")
    for row, (result, ratio) in enumerate(ratios):
        axes.plot(result.samples, [row] * len(result.samples), "o", color="tab:blue", alpha=0.35)
        axes.plot([ratio], [row], "|", color="tab:blue", markersize=22, markeredgewidth=3)
        goal = float(result.goal.rpartition(" ")[2])
        axes.plot([goal, goal], [row - 0.35, row + 0.35], color="tab:red")
    axes.set_yticks(range(len(ratios)), [result.name for result, _ in ratios])
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set_xlabel("ours / bare loop (dots: pairs, bar: median, red: goal)")
    figure.savefig(out / "ratios.png", dpi=120)
    pyplot.close(figure)
