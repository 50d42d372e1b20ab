"""
The command: C{python -m bench}.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.charts import draw
from bench.clients import verify
from bench.origins import start_origins
from bench.processes import BenchFailed, Processes, more_descriptors
from bench.report import Results
from bench.rows import ROWS, Row, Setting
from bench.ways import WAYS, Reached, Way

_EPILOG = """
Everything runs on this machine, on loopback.  Peers that are not on PATH are
named and left out.  Ratios are those of runs made side by side.

examples:
  python -m bench --quick                 a first look, about two minutes
  python -m bench                         everything, about half an hour
  python -m bench --only bulk,latency --peers haproxy,ssh --runs 9
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """
    @return: the exit code: 0; 1 if a bar is not met and C{--check} was given,
        or something could not be measured; 2 for options that make no sense.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.list:
        print(_list())
        return 0
    rows = _chosen(parser, "--only", options.only, [each.name for each in ROWS])
    peers = _chosen(parser, "--peers", options.peers, [each.name for each in WAYS])
    runs = options.runs or (2 if options.quick else 5)
    seconds = options.seconds or (1.0 if options.quick else 3.0)
    for program in ("nginx", "iperf3"):
        if shutil.which(program) is None:
            print(f"bench: the servers to be reached need {program} on PATH", file=sys.stderr)
            return 1
    wanted = [each for each in WAYS if each.name in peers or (not options.peers)]
    try:
        results, about = _run(
            wanted, [each for each in ROWS if each.name in rows], runs, seconds, options.quick
        )
    except BenchFailed as fault:
        print(f"bench: {fault}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(results.tables())
    if options.output is not None:
        _write(results, about, options.output)
    if results.failures:
        return 1
    return int(options.check and not all(each.met for each in results.verdicts()))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure relaytunnel beside its peers.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="short runs, few sessions: figures to look at only")
    add("--runs", type=_positive(int), metavar="N", help="runs of each (default: 5; quick: 2)")
    add("--seconds", type=_positive(float), metavar="S", help="of one run (default: 3; quick: 1)")
    add("--only", metavar="ROWS", help="only these rows, with commas between them")
    add("--peers", metavar="WAYS", help="only these ways, with commas between them")
    add(
        "--output",
        type=Path,
        metavar="DIR",
        help="write bench.json, bench.txt and charts (PNG) to there",
    )
    add("--check", action="store_true", help="exit with 1 if a bar is not met")
    add(
        "--list",
        action="store_true",
        help="say which rows and ways there are, and what is missing",
    )
    return parser


def _positive(kind: Callable[[str], float]) -> Callable[[str], float]:
    def positive(text: str) -> float:
        value = kind(text)
        if not 0 < value <= 10_000:
            raise argparse.ArgumentTypeError(f"{text} is not from 1 to 10000")
        return value

    return positive


def _chosen(
    parser: argparse.ArgumentParser, option: str, text: str | None, known: list[str]
) -> list[str]:
    if text is None:
        return known
    chosen = [each.strip() for each in text.split(",") if each.strip()]
    for each in chosen:
        if each not in known:
            parser.error(f"{option}: there is no {each!r}; there are {', '.join(known)}")
    return chosen


def _list() -> str:
    ways = [[f"  {w.name}", w.what, _missing(w) or w.version()] for w in WAYS]
    rows = [[f"  {row.name}", row.title] for row in ROWS]
    return f"ways:\n{_columns(ways)}\nrows:\n{_columns(rows)}"


def _columns(lines: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _missing(way: Way) -> str:
    return f"missing: {', '.join(way.missing)}" if way.missing else ""


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _run(
    wanted: list[Way], rows: list[Row], runs: int, seconds: float, quick: bool
) -> tuple[Results, dict[str, object]]:
    results = Results()
    descriptors = more_descriptors()
    if descriptors < 20_000 and not quick:
        _say(f"bench: only {descriptors} descriptors are allowed here; 20000 are needed for all")
    about: dict[str, object] = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.release()}",
        # How it was built makes a difference of some 10 %.
        "python": f"{platform.python_version()} at {os.path.realpath(sys.executable)}",
        "repeats": runs,
        "seconds": seconds,
        "quick": quick,
        "versions": {way.name: way.version() for way in wanted if way.version()},
        "missing": {way.name: way.missing for way in wanted if way.missing},
    }
    for way in wanted:
        if way.missing:
            _say(f"{way.name}: left out, not on PATH: {', '.join(way.missing)}")
    with Processes() as processes:
        origins = start_origins(processes)
        opened: dict[str, Reached] = {}
        for way in wanted:
            if not way.missing:
                opened[way.name] = _open(way, processes, origins, results)
        opened = {name: reached for name, reached in opened.items() if reached.ports}
        setting = Setting(processes, origins, seconds, quick)
        for row in rows:
            lacking = [each for each in row.needs if shutil.which(each) is None]
            if lacking:
                results.fail(row.name, "all", f"needs {', '.join(lacking)} on PATH")
                continue
            names = [each for each in opened if row.ways is None or each in row.ways]
            _measure(row, names, 1 if row.once else runs, setting, opened, results)
    return results, about


def _open(way: Way, processes: Processes, origins: object, results: Results) -> Reached:
    began = time.monotonic()
    mark = processes.mark()
    try:
        reached = way.open(processes, origins)  # type: ignore[arg-type]
        verify(reached.ports)
    except (BenchFailed, OSError) as fault:
        processes.stop_since(mark)
        results.fail("start", way.name, fault)
        _say(f"{way.name}: {fault}")
        return Reached({})
    _say(f"{way.name}: open, and passes bytes on unharmed ({time.monotonic() - began:.1f} s)")
    return reached


def _measure(
    row: Row,
    names: list[str],
    runs: int,
    setting: Setting,
    opened: dict[str, Reached],
    results: Results,
) -> None:
    for number in range(runs):
        for name in names:
            try:
                figures = row.measure(setting, name, opened[name])
            except (BenchFailed, OSError) as fault:
                results.fail(row.name, name, fault)
                _say(f"{row.name} {number + 1}/{runs}  {name}: {fault}")
                continue
            results.add(row.name, name, figures)
            said = "  ".join(f"{key} {value:.4g}" for key, value in figures.items())
            _say(f"{row.name} {number + 1}/{runs}  {name}: {said}")


def described(about: dict[str, Any]) -> str:
    """
    @return: when, where and with what it was measured, for a person.
    """
    lines = [
        f"{about['date']}, {about['machine']}, Python {about['python']}",
        f"medians of {about['repeats']} runs of {about['seconds']:g} s each, side by side",
        *(f"{way}: {version}" for way, version in about["versions"].items()),
        *(f"{way}: missing, not measured" for way in about["missing"]),
    ]
    return "\n".join(lines)


def _write(results: Results, about: dict[str, object], directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in (
        ("bench.json", json.dumps({**about, **results.as_json()}, indent=1)),
        ("bench.txt", f"{described(about)}\n{results.tables()}"),
    ):
        file = directory / name
        file.write_text(text + "\n")
        _say(f"written: {file}")
    try:
        for chart in draw(results, directory):
            _say(f"written: {chart}")
    except ImportError:
        _say("no charts: matplotlib is not installed (it is in the tox environment)")


if __name__ == "__main__":
    sys.exit(main())
