"""
What a target is, and how the bytes of an input are read by one.

The targets stand in modules beside this, by what they read; all of them are in
L{fuzz.catalogue}.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = ["Broken", "Target", "cut", "holds", "is_printable", "same", "texts"]

_DRIP = 7
_PRINTABLE = re.compile(rb"[\x20-\x7e]*")


class Broken(Exception):
    """
    Something that has to hold does not; the message says what.
    """


@dataclass(frozen=True)
class Target:
    """
    Something that reads bytes from outside, and what holds for every input.

    @ivar name: what it is called, and its directory in the corpus.
    @ivar run: takes one input; raises if anything is not as it has to be.
    @ivar words: bytes that an input of it is likely to have somewhere.
    @ivar longest: how many bytes of an input are of use.
    """

    name: str
    run: Callable[[bytes], None]
    words: tuple[bytes, ...] = ()
    longest: int = 2048


def holds(condition: object, what: str) -> None:
    """
    @raise Broken: it does not.
    """
    if not condition:
        raise Broken(what)


def same(found: object, expected: object, what: str) -> None:
    """
    @raise Broken: they differ.
    """
    if found != expected:
        raise Broken(f"{what}:\n  {found!r}\n  {expected!r}")


def cut(data: bytes) -> tuple[int, list[bytes]]:
    """
    Let an input say itself in which chunks it comes.

    Its first byte says how many cuts there are, and has five bits for whatever
    else the target wants to be told; 7 cuts are one behind each byte.  The next
    bytes are the lengths of the chunks, up to the last one.

    @return: the five bits, and the chunks.
    """
    if not data:
        return 0, [b""]
    cuts, flags = data[0] & 7, data[0] >> 3
    if cuts == _DRIP:
        return flags, [data[at : at + 1] for at in range(1, len(data))] or [b""]
    chunks = []
    at = 1 + cuts
    for length in data[1:at]:
        chunks.append(data[at : at + length])
        at += length
    return flags, [*chunks, data[at:]]


def texts(data: bytes, count: int) -> Sequence[bytes]:
    """
    @return: so many lines of an input; the last one is all that is left.
    """
    lines = data.split(b"\n", count - 1)
    return lines + [b""] * (count - len(lines))


def is_printable(line: bytes) -> bool:
    """
    Whether these bytes can stand in one line of a head.
    """
    return _PRINTABLE.fullmatch(line) is not None
