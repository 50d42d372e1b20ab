"""
Figures of many runs, as medians, ratios, and bars met or not.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from bench.rows import ROWS, Bar, Metric, Row

__all__ = ["Results", "Verdict"]


@dataclass(frozen=True)
class Verdict:
    """
    Whether a bar is met.

    @ivar value: the figure, or how many times the other way's figure it is.
    """

    row: Row
    metric: Metric
    bar: Bar
    value: float

    @property
    def met(self) -> bool:
        """Whether it is."""
        if self.metric.less:
            return self.value <= self.bar.factor
        return self.value >= self.bar.factor

    def __str__(self) -> str:
        sign = "<=" if self.metric.less else ">="
        title = f" {self.metric.title}" if self.metric.title else ""
        what = f"{self.row.name}{title}, {self.bar.way}"
        unit = f" x {self.bar.than}" if self.bar.than else f" {self.metric.unit}".rstrip()
        verdict = "met" if self.met else "NOT MET"
        return f"{what}: {self.value:.3g}{unit} ({sign} {self.bar.factor:g}): {verdict}"


class Results:
    """
    What was measured, by row, way and metric.
    """

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, dict[str, list[float]]]] = {}
        self.failures: list[str] = []

    def add(self, row: str, way: str, figures: dict[str, float]) -> None:
        """
        Take the figures of one run.
        """
        of_way = self.runs.setdefault(row, {}).setdefault(way, {})
        for name, value in figures.items():
            of_way.setdefault(name, []).append(value)

    def fail(self, row: str, way: str, why: object) -> None:
        """
        A run came to nothing.
        """
        self.failures.append(f"{row}, {way}: {why}")

    def median(self, row: str, way: str, metric: str) -> float | None:
        """
        @return: the median of all runs, or C{None} if there was none.
        """
        values = self.runs.get(row, {}).get(way, {}).get(metric)
        return statistics.median(values) if values else None

    def ratio(self, row: str, way: str, metric: str, than: str) -> float | None:
        """
        @return: the median of the ratios of runs that were made side by side.
        """
        ours = self.runs.get(row, {}).get(way, {}).get(metric, [])
        theirs = self.runs.get(row, {}).get(than, {}).get(metric, [])
        pairs = [one / other for one, other in zip(ours, theirs, strict=False) if other]
        return statistics.median(pairs) if pairs else None

    def verdicts(self) -> list[Verdict]:
        """
        @return: what can be said of the bars, where all that it takes was
            measured.
        """
        found = []
        for row in ROWS:
            metrics = {metric.name: metric for metric in row.metrics}
            for bar in row.bars:
                value = (
                    self.ratio(row.name, bar.way, bar.metric, bar.than)
                    if bar.than
                    else self.median(row.name, bar.way, bar.metric)
                )
                if value is not None:
                    found.append(Verdict(row, metrics[bar.metric], bar, value))
        return found

    def tables(self) -> str:
        """
        @return: a table for each row that was measured, and the bars.
        """
        parts = []
        for row in ROWS:
            if row.name not in self.runs:
                continue
            parts.append(f"\n{row.title}\n")
            titles = [f"{m.title} {m.unit}".strip() or m.name for m in row.metrics]
            lines = [["", *titles, "x direct", "lowest .. highest"]]
            first = row.metrics[0]
            for way, figures in self.runs[row.name].items():
                medians = [self.median(row.name, way, each.name) for each in row.metrics]
                ratio = self.ratio(row.name, way, first.name, "direct")
                values = figures[first.name]
                lines.append(
                    [
                        way,
                        *("-" if value is None else short(value) for value in medians),
                        "-" if ratio is None else f"{ratio:.2f}",
                        f"{short(min(values))} .. {short(max(values))}",
                    ]
                )
            parts.append(align(lines))
        verdicts = self.verdicts()
        if verdicts:
            parts.append("\nBars\n")
            parts += [f"  {each}" for each in verdicts]
        if self.failures:
            parts.append("\nWhat came to nothing\n")
            parts += [f"  {each}" for each in self.failures]
        return "\n".join(parts)

    def as_json(self) -> dict[str, Any]:
        """
        @return: everything, for a program to read.
        """
        return {
            "runs": self.runs,
            "medians": {
                row: {
                    way: {name: statistics.median(values) for name, values in figures.items()}
                    for way, figures in ways.items()
                }
                for row, ways in self.runs.items()
            },
            "bars": [
                {
                    "row": each.row.name,
                    "metric": each.metric.name,
                    "way": each.bar.way,
                    "than": each.bar.than or None,
                    "wanted": each.bar.factor,
                    "value": each.value,
                    "met": each.met,
                }
                for each in self.verdicts()
            ],
            "failures": self.failures,
        }


def short(value: float) -> str:
    """
    @return: a number with three digits that matter.
    """
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def align(lines: Sequence[Sequence[str]]) -> str:
    """
    @return: the cells in columns, the first one to the left.
    """
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(_aligned(line, widths) for line in lines)


def _aligned(line: Iterable[str], widths: Sequence[int]) -> str:
    cells = [
        cell.rjust(width) if number else cell.ljust(width)
        for number, (cell, width) in enumerate(zip(line, widths, strict=True))
    ]
    return "  " + "  ".join(cells).rstrip()
