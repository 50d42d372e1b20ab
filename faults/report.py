"""
What was found, as a table for people.
"""

from __future__ import annotations

from collections.abc import Sequence

from faults.campaign import Result

__all__ = ["align", "report"]

_TITLES = (
    *("fault", "tried", "survived", "failed", "recovery s", "late"),
    *("lost bytes", "false ends", "mix-ups", "leaks"),
)


def report(results: Sequence[Result]) -> str:
    """
    @return: a line for each fault, how sessions failed, and what was wrong.
    """
    lines = [list(_TITLES)]
    details = []
    for each in results:
        lines.append(_line(each))
        how = ", ".join(f"{cause} {count}" for cause, count in each.tally.failed.most_common())
        details.append(f"\n{each.name}: {each.title}")
        if each.skipped or each.broken:
            details.append(f"  {each.skipped or each.broken}")
        if how:
            details.append(f"  failed: {how}")
        if not each.skipped and not each.broken and each.recovery is None:
            details.append("  it never recovered")
        details += [f"  note: {note}" for note in each.notes]
        details += [f"  WRONG: {note}" for note in each.tally.notes]
        details += [f"  LEFT: {leak}" for leak in each.leaks]
    wrong = [each.name for each in results if not each.good]
    verdict = f"wrong: {', '.join(wrong)}" if wrong else "nothing was wrong"
    return "\n".join((align(lines), *details, "", verdict))


def _line(result: Result) -> list[str]:
    if result.skipped or result.broken:
        return [result.name, "skipped" if result.skipped else "BROKEN", *[""] * 8]
    tally = result.tally
    recovery = "never" if result.recovery is None else f"{result.recovery:.2f}"
    failed = sum(tally.failed.values())
    counts = (tally.lost, tally.false_ends, tally.mixed_up, len(result.leaks))
    return [
        *(result.name, str(tally.tried), str(tally.survived), str(failed), recovery),
        *(str(result.late), *map(str, counts)),
    ]


def align(lines: Sequence[Sequence[str]]) -> str:
    """
    @return: the cells in columns, the first one to the left.
    """
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows = []
    for line in lines:
        cells = [
            cell.rjust(width) if number else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        rows.append("  ".join(cells).rstrip())
    return "\n".join(rows)
