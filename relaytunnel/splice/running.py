"""
What all running splices share: counting time, and the report at the end.

Quiet is measured by looking at the counters now and then, so that a byte that
moves pays nothing for it; and one timer looks at all splices in a row, so that
a splice pays nothing for a timer.
"""

from __future__ import annotations

from functools import partial
from typing import Protocol

from zope.interface import implementer

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from relaytunnel.guarding import attempt_all
from relaytunnel.interfaces import IRunningSplice, SpliceLimits
from relaytunnel.splice.report import CLOSED, FAILED, HALF_CLOSED_IDLE, IDLE, SpliceReport

__all__ = ["Leaving", "Leg", "Round", "Rounds", "RunningSplice", "Total"]

_log = Logger()

_LOOKS = 4
"""How often a splice is looked at before its limit has passed."""


class Leg(Protocol):
    """
    One direction of a splice.

    @ivar count: bytes taken so far.
    """

    count: int


class Total:
    """
    What a flow has moved in all, when it is over.
    """

    __slots__ = ("count",)

    def __init__(self, count: int) -> None:
        self.count = count


class Leaving(Protocol):
    """
    A channel that lingers when the splice is over.
    """

    def abort(self) -> None:
        """Linger no more."""


class Round:
    """
    Looks at all splices with the same limits.
    """

    def __init__(self, limits: SpliceLimits, clock: IReactorTime) -> None:
        self.limits = limits
        self.clock = clock
        self._every = min(limits.idle, limits.half_closed) / _LOOKS
        self._splices: dict[RunningSplice, None] = {}
        self._call: IDelayedCall | None = None

    @property
    def busy(self) -> bool:
        """Whether there is a splice to look at."""
        return bool(self._splices)

    def add(self, splice: RunningSplice) -> None:
        """
        Look at this one, too.
        """
        self._splices[splice] = None
        if self._call is None:
            self._call = self.clock.callLater(self._every, self._look)

    def discard(self, splice: RunningSplice) -> None:
        """
        Look at it no more.
        """
        self._splices.pop(splice, None)
        if not self._splices and self._call is not None:
            self._call.cancel()
            self._call = None

    def _look(self) -> None:
        self._call = self.clock.callLater(self._every, self._look)
        now = self.clock.seconds()
        for splice in list(self._splices):
            try:
                splice.look(now)
            except Exception:
                # It is this one's fault; the others are looked at all the same.
                _log.failure("a splice fails by our own fault")
                attempt_all([splice.fail, partial(splice.over, FAILED)])


class Rounds:
    """
    The rounds of an engine, one for each set of limits that is in use.
    """

    def __init__(self) -> None:
        self._rounds: list[Round] = []

    def of(self, limits: SpliceLimits, clock: IReactorTime) -> Round:
        """
        @return: the round of splices with these limits.
        """
        for known in self._rounds:
            if known.limits is limits and known.clock is clock:
                return known
        self._rounds = [known for known in self._rounds if known.busy]
        self._rounds.append(Round(limits, clock))
        return self._rounds[-1]


@implementer(IRunningSplice)
class RunningSplice:
    """
    The common part.

    A kind of splice has C{_end_both}, which resets both channels, and sets
    C{first} and C{second}, its two directions.

    @ivar running: whether it is not over yet.
    """

    __slots__ = (
        "__weakref__",
        "_began",
        "_half_closed",
        "_leaving",
        "_moved",
        "_moved_at",
        "_over",
        "_round",
        "done",
        "first",
        "running",
        "second",
    )

    first: Leg
    second: Leg
    _leaving: tuple[Leaving, ...]

    def __init__(self, round_: Round) -> None:
        self._round: Round | None = round_
        self._began = self._moved_at = round_.clock.seconds()
        self._moved = 0
        self.running = True
        self._half_closed = False
        self._leaving = ()
        self._over: tuple[str, IReactorTime] | None = None
        self.done: Deferred[SpliceReport] = Deferred()
        round_.add(self)

    @property
    def forward(self) -> int:
        return self.first.count

    @property
    def backward(self) -> int:
        return self.second.count

    def close(self) -> None:
        if self._round is not None:
            self._end_both()
            self.over(CLOSED)
        for channel in self._leaving:
            channel.abort()

    def leaving(self, channel: Leaving) -> None:
        """
        This channel has still something to deliver when the splice is over.
        """
        self._leaving += (channel,)

    def left(self, channel: Leaving) -> None:
        """
        It has not.
        """
        self._leaving = tuple(each for each in self._leaving if each is not channel)
        self._report_if_gone()

    def half_closed(self) -> None:
        """
        One direction has ended: less patience from now on.
        """
        if self._round is not None and not self._half_closed:
            self._half_closed = True
            self._moved_at = self._round.clock.seconds()

    def fail(self) -> None:
        """
        End it by our own fault, whatever state it is in.
        """
        attempt_all([self._end_both])

    def over(self, reason: str) -> None:
        """
        The channels are taken care of: report, once, when both are gone.
        """
        round_, self._round = self._round, None
        self.running = False
        if round_ is not None:
            round_.discard(self)
            self._over = reason, round_.clock
            self._report_if_gone()

    def _report_if_gone(self) -> None:
        if self._over is not None and not self._leaving:
            (reason, clock), self._over = self._over, None
            self.done.callback(
                SpliceReport(self.forward, self.backward, reason, clock.seconds() - self._began)
            )

    def look(self, now: float) -> None:
        """
        End it if nothing has moved for too long.
        """
        assert self._round is not None
        moved = self.first.count + self.second.count
        if moved != self._moved:
            self._moved = moved
            self._moved_at = now
            return
        limits = self._round.limits
        if now - self._moved_at >= (limits.half_closed if self._half_closed else limits.idle):
            self._end_both()
            self.over(HALF_CLOSED_IDLE if self._half_closed else IDLE)

    def _end_both(self) -> None:
        """
        Reset both channels.
        """
        raise NotImplementedError
