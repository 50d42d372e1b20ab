"""
What the two ends of a session do, and what they say.

Both follow from the number of the session and a seed, so each end knows what
the other one has to say, and that it was said in this session and no other.
"""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass, replace

__all__ = ["HEADER", "KINDS", "Header", "Plan", "meant_for", "plans", "stream"]

KINDS = ("short", "long", "half", "slow", "idle")
"""
A request and its answer; long streams both ways; one end long before the other;
a slow reader; silence in the middle.
"""

_WEIGHTS = (60, 10, 10, 10, 10)
_MAGIC = b"RTF1"
_PACKED = struct.Struct("!4sQQBffB")
_MARK = b"\xf7rt"
_CHUNK = 1024
_CHUNK_HEAD = struct.Struct("!3sBQI")
_FILLING = _CHUNK - _CHUNK_HEAD.size
_NOISE = random.Random(11).randbytes(1 << 18)

HEADER = _PACKED.size
"""With so many bytes the client begins."""


@dataclass(frozen=True)
class Header:
    """
    What the client says first, so that the server knows its part.

    @ivar scale: how much is said, beside what is usual.
    @ivar silence: the longest silence in the middle, in seconds.
    @ivar deadly: whether ends die at random.
    """

    session: int
    seed: int
    kind: str
    scale: float = 1.0
    silence: float = 3.0
    deadly: bool = False

    def packed(self) -> bytes:
        """
        @return: the bytes.
        """
        kind = KINDS.index(self.kind)
        return _PACKED.pack(
            _MAGIC, self.session, self.seed, kind, self.scale, self.silence, self.deadly
        )

    @classmethod
    def unpacked(cls, data: bytes) -> Header | None:
        """
        @return: the header; C{None} if this is none.
        """
        magic, session, seed, kind, scale, silence, deadly = _PACKED.unpack_from(data)
        if magic != _MAGIC or kind >= len(KINDS):
            return None
        return cls(session, seed, KINDS[kind], scale, silence, bool(deadly))


@dataclass(frozen=True)
class Plan:
    """
    What one end does.

    @ivar size: bytes that it says in all.
    @ivar begin: bytes that it has to hear before it says anything.
    @ivar last: whether it ends only when the other one has.
    @ivar rate: bytes that it says in a second; 0 for as many as it can.
    @ivar reads: bytes that it hears in a second; 0 for as many as come.
    @ivar silence: seconds in the middle of what it says.
    @ivar death: C{reset} or C{close}, and after how many seconds; empty for
        none.
    """

    size: int
    begin: int = 0
    last: bool = False
    rate: int = 0
    reads: int = 0
    silence: float = 0.0
    death: str = ""
    dies: float = 0.0


def any_kind(dice: random.Random) -> str:
    """
    @return: one of the kinds; short ones are more than half of all.
    """
    return dice.choices(KINDS, _WEIGHTS)[0]


def plans(header: Header) -> tuple[Plan, Plan]:
    """
    @return: the parts of client and server.
    """
    dice = random.Random(f"{header.seed} {header.session}")

    def some(least: int, most: int) -> int:
        return max(1, int(dice.randrange(least, most) * header.scale))

    asked, answered = Plan(HEADER + some(0, 4000)), Plan(some(0, 60_000))
    if header.kind == "short":
        asked = replace(asked, last=dice.random() < 0.5)
        answered = replace(answered, begin=asked.size)
    elif header.kind == "long":
        asked = Plan(HEADER + some(50_000, 600_000))
        answered = Plan(some(50_000, 600_000))
    elif header.kind == "half":
        big, rate = some(30_000, 200_000), dice.randrange(50_000, 200_000)
        if dice.random() < 0.5:
            answered = Plan(big, rate=rate)
        else:
            asked = Plan(HEADER + big, rate=rate)
    elif header.kind == "slow":
        big, reads = some(60_000, 250_000), dice.randrange(60_000, 250_000)
        if dice.random() < 0.5:
            asked, answered = replace(asked, reads=reads), Plan(big)
        else:
            asked, answered = Plan(HEADER + big), replace(answered, reads=reads)
    else:
        asked = replace(asked, silence=dice.random() * header.silence)
        answered = replace(answered, silence=dice.random() * header.silence)
    if header.deadly and dice.random() < 0.2:
        how, when = dice.choice(("reset", "close")), dice.random() ** 2 * 2
        if dice.random() < 0.5:
            asked = replace(asked, death=how, dies=when)
        else:
            answered = replace(answered, death=how, dies=when)
    return asked, answered


def stream(header: Header, side: int, start: int, size: int) -> bytes:
    """
    @param side: who says it, 0 for the client.
    @return: what it says, from this byte on.
    """
    if side == 0:
        if start < HEADER:
            first = header.packed()[start : start + size]
            return first + stream(header, 0, HEADER, size - len(first)) if size else b""
        start -= HEADER
    number, skipped = divmod(start, _CHUNK)
    last = (start + size + _CHUNK - 1) // _CHUNK
    session = header.session
    parts = []
    for each in range(number, last):
        at = (session * 131 + each * 1009 + side * 7) % (len(_NOISE) - _FILLING)
        parts.append(_CHUNK_HEAD.pack(_MARK, side, session, each))
        parts.append(_NOISE[at : at + _FILLING])
    return b"".join(parts)[skipped : skipped + size]


def meant_for(data: bytes) -> int | None:
    """
    @return: the session whose bytes these are, as far as they tell.
    """
    at = data.find(_MARK)
    if 0 <= at <= len(data) - _CHUNK_HEAD.size:
        return int(_CHUNK_HEAD.unpack_from(data, at)[2])
    return None
