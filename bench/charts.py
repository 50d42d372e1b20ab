"""
Charts of the figures.
"""

from __future__ import annotations

from pathlib import Path

from bench.report import Results, short
from bench.rows import ROWS
from bench.ways import OURS

__all__ = ["draw"]

_OURS, _PEER, _DIRECT = "#c2410c", "#64748b", "#cbd5e1"


def draw(results: Results, directory: Path) -> list[Path]:
    """
    Draw a chart for each row that compares ways, and write them as PNG.

    @return: the files.
    @raise ImportError: matplotlib is not installed.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    files = []
    for row in ROWS:
        ways = results.runs.get(row.name, {})
        shown = [metric for metric in row.metrics if metric.unit]
        if len(ways) < 2 or not shown:
            continue
        figure, axes = pyplot.subplots(
            1,
            len(shown),
            figsize=(4.5 * len(shown) + 1.5, 0.42 * len(ways) + 1.3),
            squeeze=False,
            sharey=True,
            layout="constrained",
        )
        for metric, axis in zip(shown, axes[0], strict=True):
            for place, way in enumerate(ways):
                values = ways[way].get(metric.name)
                if not values:
                    continue
                middle = results.median(row.name, way, metric.name) or 0.0
                color = _OURS if way in OURS else _DIRECT if way == "direct" else _PEER
                axis.barh(place, middle, color=color, height=0.65)
                axis.plot([min(values), max(values)], [place, place], color="black", linewidth=1)
                axis.annotate(
                    short(middle),
                    (max(middle, *values), place),
                    xytext=(4, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=8,
                )
            axis.set_yticks(range(len(ways)), list(ways))
            axis.margins(x=0.16)
            axis.locator_params(axis="x", nbins=5)
            axis.spines[["top", "right"]].set_visible(False)
            better = "less is better" if metric.less else "more is better"
            axis.set_xlabel(f"{metric.title} {metric.unit}, {better}".strip(), fontsize=9)
        axes[0][0].invert_yaxis()
        figure.suptitle(row.title, fontsize=11)
        file = directory / f"{row.name}.png"
        figure.savefig(file, dpi=110)
        pyplot.close(figure)
        files.append(file)
    return files
