"""
The command: C{python -m faults}.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from faults.campaign import Result, Terms, run
from faults.injections import FAULTS, Fault
from faults.report import report
from faults.stack import end_as_if_interrupted
from tests.lab.topology import unavailable

_EPILOG = """
It needs root, Linux, iproute2 and nftables; Debian's faketime and conntrack
for some faults, which are left out otherwise.  Every fault has a network and
processes of its own.

examples:
  python -m faults                        all of them, about a quarter of an hour
  python -m faults --only kill-relay,nat  two of them
  python -m faults --long                 with the usual limits, a minute of quiet
                                          behind each, and the longest faults
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """
    @return: the exit code: 0; 1 if something was wrong; 2 for options that
        make no sense.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.list:
        for each in FAULTS:
            missing = f"  (not here: {each.needs()})" if each.needs() else ""
            long = "  (only with --long)" if each.long else ""
            print(f"  {each.name:<14} {each.title}{long}{missing}")
        return 0
    chosen = _chosen(parser, options.only, options.long)
    obstacle = unavailable()
    if obstacle is not None:
        print(f"faults: {obstacle}", file=sys.stderr)
        return 1
    terms = Terms(
        seconds=options.seconds or (30 if options.long else 5),
        quiet=60 if options.long else 5,
        patience=20 if options.long else 8,
        rate=options.rate,
        seed=options.seed,
        usual=options.long,
    )
    end_as_if_interrupted()
    results: list[Result] = []
    try:
        for each in chosen:
            results.append(run(each, terms))
            _say(results[-1])
    except KeyboardInterrupt:
        return 130
    print(report(results))
    if options.json is not None:
        told = {"seed": terms.seed, "seconds": terms.seconds, "long": options.long}
        told["faults"] = [each.as_json() for each in results]
        options.json.write_text(json.dumps(told, indent=1) + "\n")
    return int(not all(each.good for each in results))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m faults",
        description="Inject faults while sessions run, and look for what must not happen.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--seconds", type=_seconds, metavar="S", help="of a fault (default: 5; long: 30)")
    add("--only", metavar="NAMES", help="only these faults, with commas between them")
    add("--seed", type=int, default=1, metavar="N", help="of the sessions (default: 1)")
    add("--rate", type=_seconds, default=20, metavar="N", help="sessions a second (default: 20)")
    add("--long", action="store_true", help="the usual limits, and much patience")
    add("--json", type=Path, metavar="FILE", help="write what was found to there")
    add("--list", action="store_true", help="say which faults there are")
    return parser


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value <= 3600:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to 3600")
    return value


def _chosen(parser: argparse.ArgumentParser, text: str | None, long: bool) -> list[Fault]:
    if text is None:
        return [each for each in FAULTS if long or not each.long]
    known = {each.name: each for each in FAULTS}
    names = [each.strip() for each in text.split(",") if each.strip()]
    for name in names:
        if name not in known:
            parser.error(f"--only: there is no {name!r}; there are {', '.join(known)}")
    return [known[name] for name in names]


def _say(result: Result) -> None:
    if result.skipped or result.broken:
        said = result.skipped or f"BROKEN: {result.broken}"
    else:
        tally = result.tally
        said = f"{tally.survived} of {tally.tried} survived"
        said += "" if result.good else ", and something was WRONG"
    print(f"{result.name}: {said}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
