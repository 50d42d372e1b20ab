"""
The reactor's time, shared among channels whose peers have much to say.

A channel may take what its allowance is worth, and that of all, as it comes in.  What its peer
says beyond that it takes in turn with all others of the kind, a little in each
turn of the reactor, and meanwhile it is read no more: so the peer is held up
by TCP, and those who say little are not.  Where nobody else has anything to do
the turns are short, and nothing is held up; but for channels that have had more
than any good peer needs: they have a turn each millisecond, and leave the
processor to others.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime

__all__ = ["Allowance", "Worker", "Workload"]

_EACH_TURN = 8
"""What all workers may do in a turn of the reactor, in units: a tenth of a millisecond or two."""
_RATE, _BURST = 5000.0, 64
"""What a channel may do by itself, in units a second and at once."""
_RATE_OF_ALL, _BURST_OF_ALL = 10_000.0, 256
"""What all channels may do so: about a tenth of a processor's time."""
_CREDIT_RATE, _CREDIT = 1000.0, 10_000
"""What a channel may do in turns of the reactor before it has to wait longer for them."""
_PAUSE = 0.001
"""Seconds between two turns of those that have done more."""


class Allowance:
    """
    So many units of work a second, and a burst.
    """

    __slots__ = ("_burst", "_clock", "_level", "_rate", "_then")

    def __init__(self, clock: IReactorTime, rate: float = _RATE, burst: float = _BURST) -> None:
        self._clock = clock
        self._rate = rate
        self._burst = self._level = float(burst)
        self._then = clock.seconds()

    def left(self) -> float:
        """
        @return: how many units may be done at once; none if it is not positive.
        """
        now = self._clock.seconds()
        self._level = min(self._burst, self._level + max(0.0, now - self._then) * self._rate)
        self._then = now
        return self._level

    def spend(self, units: float) -> None:
        """
        So many were done, perhaps on credit.
        """
        self._level -= units


class Worker(Protocol):
    """
    Who has more to do than is done at once.

    @ivar credit: what it may do without longer pauses.
    """

    credit: Allowance

    def work(self, units: int) -> tuple[int, bool]:
        """
        Do some of it, at least one thing and no more than so many units, but
        for the last one.

        @return: how many it took, and whether there is more.
        """


class Workload:
    """
    What is left to be done by all workers of a reactor.

    @ivar allowance: what they may do by themselves, all together.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self.allowance = Allowance(clock, _RATE_OF_ALL, _BURST_OF_ALL)
        self._workers: deque[Worker] = deque()
        self._without_credit: deque[Worker] = deque()
        self._paused_until = 0.0
        self._call: IDelayedCall | None = None
        self._debt = 0

    def new_credit(self) -> Allowance:
        """
        @return: the credit of a worker.
        """
        return Allowance(self._clock, _CREDIT_RATE, _CREDIT)

    def add(self, worker: Worker) -> None:
        """
        Let a worker work from the next turn on, until it has no more to do.
        """
        has_credit = self._queue(worker)
        if self._call is not None and has_credit:
            self._call.cancel()  # that may be the one behind a pause
            self._call = None
        self._next()

    def _queue(self, worker: Worker) -> bool:
        has_credit = worker.credit.left() > 0
        (self._workers if has_credit else self._without_credit).append(worker)
        return has_credit

    def remove(self, worker: Worker) -> None:
        """
        A worker has no more to do after all.
        """
        for workers in (self._workers, self._without_credit):
            if worker in workers:
                workers.remove(worker)
        if self._call is not None and not (self._workers or self._without_credit):
            self._call.cancel()
            self._call = None

    def _next(self) -> None:
        if self._call is not None:
            return
        if self._workers:
            self._call = self._clock.callLater(0, self._turn)
        elif self._without_credit:
            pause = max(0.0, self._paused_until - self._clock.seconds())
            self._call = self._clock.callLater(pause, self._turn)

    def _turn(self) -> None:
        self._call = None
        now = self._clock.seconds()
        # One thing may take more than there is for a turn: later turns are shorter.
        left = self._work(self._workers, _EACH_TURN - self._debt)
        if self._without_credit and now >= self._paused_until:
            left = self._work(self._without_credit, left)
            self._paused_until = now + _PAUSE
        self._debt = max(0, -left)
        self._next()

    def _work(self, workers: deque[Worker], left: int) -> int:
        """
        Let some of these work.

        @return: how much of what was left for a turn is left.
        """
        while left > 0 and workers:
            worker = workers.popleft()
            took, more = worker.work(left)
            worker.credit.spend(took)
            left -= took
            if more:
                self._queue(worker)
        return left
