"""
The command: C{python -m fuzz}.
"""

from __future__ import annotations

import argparse
import importlib.util
import random
import shlex
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path

from bench.report import align
from fuzz.catalogue import TARGETS, kept
from fuzz.guiding import Run, guide
from fuzz.keeping import keep
from fuzz.targets import Target

_EPILOG = """
The inputs in fuzz/corpus are what a run begins with; what it finds is gone
afterwards, unless --corpus or --keep is given.

examples:
  python -m fuzz --seconds 10                  a first look, ten seconds a target
  python -m fuzz --target arrival --seconds 3600 --corpus ~/corpus
  python -m fuzz --replay fuzz-crashes/arrival-crash-0a1b2c
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """
    @return: the exit code: 0; 1 if there was a crash, or a run came to nothing;
        2 for options that make no sense.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.list:
        print("\n".join(f"{name}: {len(kept(name))} inputs" for name in TARGETS))
        return 0
    if options.replay is not None:
        return _replay(parser, options.replay, options.target)
    if importlib.util.find_spec("atheris") is None:
        print("fuzz: atheris is not installed: pip install atheris", file=sys.stderr)
        return 2
    wanted = [TARGETS[options.target]] if options.target else list(TARGETS.values())
    seed = options.seed or random.randrange(1, 2**31)
    _say(f"the seed is {seed}")
    try:
        with tempfile.TemporaryDirectory(prefix="relaytunnel-fuzz-") as temporary:
            corpus = options.corpus or Path(temporary)
            runs = [_run(each, options, corpus.resolve(), seed) for each in wanted]
    except KeyboardInterrupt:
        return 130
    print(_table(runs))
    for run in runs:
        if run.failed:
            print(f"\n{run.target} came to nothing:\n{run.failed}")
        for crash in run.crashes:
            command = shlex.join(["python", "-m", "fuzz", "--replay", str(crash)])
            print(f"\n{run.target} did not stand an input; replay it with\n  {command}")
    return int(any(run.crashes or run.failed for run in runs))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fuzz",
        description="Look for inputs that a parser does not stand.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--seconds", type=_seconds, metavar="N", default=60.0, help="per target (default: 60)")
    add("--target", choices=list(TARGETS), metavar="NAME", help="only this one")
    add("--seed", type=int, metavar="N", help="of the random numbers, to have the same again")
    add("--corpus", type=Path, metavar="DIR", help="where found inputs are, and stay")
    add(
        "--crashes",
        type=Path,
        metavar="DIR",
        default=Path("fuzz-crashes"),
        help="where to write inputs that a target does not stand (default: fuzz-crashes)",
    )
    add("--keep", action="store_true", help="add to fuzz/corpus what reaches more than it does")
    add("--replay", type=Path, metavar="FILE", help="give this to its target, and do nothing else")
    add("--list", action="store_true", help="say which targets there are")
    return parser


def _seconds(text: str) -> float:
    value = float(text)
    if not 1 <= value <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text} is not from 1 to 1000000")
    return value


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _replay(parser: argparse.ArgumentParser, file: Path, name: str | None) -> int:
    """
    Give an input to its target, which is told by the name of the file or of its
    directory.
    """
    if name is None:
        for each in (file.name.partition("-")[0], file.resolve().parent.name):
            if each in TARGETS:
                name = each
    if name is None:
        parser.error(f"{file}: say with --target what it is for")
    try:
        data = file.read_bytes()
    except OSError as fault:
        parser.error(f"{file}: {fault.strerror}")
    _say(f"{name}: {len(data)} bytes: {data[:200]!r}")
    try:
        TARGETS[name].run(data)
    except Exception:
        traceback.print_exc()
        return 1
    _say(f"{name} stands it")
    return 0


def _run(target: Target, options: argparse.Namespace, corpus: Path, seed: int) -> Run:
    found = corpus / target.name
    run = guide(target, options.seconds, seed, found, options.crashes.resolve(), _say)
    if options.keep and not run.crashes:
        _say(f"{target.name}: {keep(target, found.iterdir())} inputs are kept")
    return run


def _table(runs: Sequence[Run]) -> str:
    lines = [["target", "runs", "runs/s", "edges", "inputs", "crashes"]]
    for run in runs:
        figures = (run.executions, run.rate, run.edges, run.inputs, len(run.crashes))
        lines.append([run.target, *(f"{each:,.0f}" for each in figures)])
    return align(lines)


if __name__ == "__main__":
    sys.exit(main())
