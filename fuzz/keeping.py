"""
Which inputs are worth keeping: those that reach a line from where no smaller
one has reached it.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable
from pathlib import Path
from types import FrameType
from typing import Any

from fuzz.catalogue import CORPUS, LARGEST, MOST, kept
from fuzz.targets import Target

__all__ = ["keep", "reached"]

_Arc = tuple[str, int, int]
_MEASURED = f"{Path(__file__).resolve().parent.parent / 'relaytunnel'}"


def reached(target: Target, data: bytes) -> set[_Arc]:
    """
    @return: the steps from line to line of our code that an input leads to.
    """
    found: set[_Arc] = set()
    last: dict[int, int] = {}

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        name = frame.f_code.co_filename
        if event == "call" and not name.startswith(_MEASURED):
            return None
        if event == "return":
            last.pop(id(frame), None)
        else:
            found.add((name, last.get(id(frame), 0), frame.f_lineno))
            last[id(frame)] = frame.f_lineno
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        target.run(data)
    finally:
        sys.settrace(before)
    return found


def keep(target: Target, candidates: Iterable[Path], most: int = MOST) -> int:
    """
    Add to those that are kept what reaches more than they do, the smallest
    first; what bears a name was put there by somebody, and stays.

    @return: how many are kept now.
    """
    directory = CORPUS / target.name
    directory.mkdir(parents=True, exist_ok=True)
    named = [path for path in kept(target.name) if not _is_found(path)]
    known: set[_Arc] = set()
    for path in named:
        known |= reached(target, path.read_bytes())
    inputs = {path.read_bytes() for path in (*candidates, *kept(target.name)) if path not in named}
    reaching = [(data, reached(target, data)) for data in sorted(inputs, key=_size)]
    chosen: list[bytes] = []
    while len(named) + len(chosen) < most:
        data, more = max(
            ((data, arcs - known) for data, arcs in reaching if len(data) <= LARGEST),
            key=lambda each: len(each[1]),
            default=(b"", set()),
        )
        if not more:
            break
        known |= more
        chosen.append(data)
    for path in kept(target.name):
        if path not in named:
            path.unlink()
    for data in chosen:
        (directory / _name(data)).write_bytes(data)
    return len(named) + len(chosen)


def _size(data: bytes) -> tuple[int, bytes]:
    return len(data), data


def _name(data: bytes) -> str:
    return f"found-{hashlib.sha256(data).hexdigest()[:10]}"


def _is_found(path: Path) -> bool:
    return path.name.startswith("found-")
