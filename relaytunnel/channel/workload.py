"""
The reactor's time, shared among channels whose peers have much to say.

A channel may take what its allowance is worth as it comes in.  What its peer
says beyond that it takes in turn with all others of the kind, a little in each
turn of the reactor, and meanwhile it is read no more: so the peer is held up
by TCP, and those who say little are not.  Where nobody else has anything to do
the turns are short, and nothing is held up.
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


class Allowance:
    """
    So many units of work a second, and a burst.
    """

    __slots__ = ("_clock", "_level", "_then")

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._level = float(_BURST)
        self._then = clock.seconds()

    def left(self) -> float:
        """
        @return: how many units may be done at once; none if it is not positive.
        """
        now = self._clock.seconds()
        self._level = min(_BURST, self._level + max(0.0, now - self._then) * _RATE)
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
    """

    def work(self, units: int) -> tuple[int, bool]:
        """
        Do some of it, at least one thing and no more than so many units, but
        for the last one.

        @return: how many it took, and whether there is more.
        """


class Workload:
    """
    What is left to be done by all workers of a reactor.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._workers: deque[Worker] = deque()
        self._call: IDelayedCall | None = None
        self._debt = 0

    def add(self, worker: Worker) -> None:
        """
        Let a worker work from the next turn on, until it has no more to do.
        """
        self._workers.append(worker)
        if self._call is None:
            self._call = self._clock.callLater(0, self._turn)

    def remove(self, worker: Worker) -> None:
        """
        A worker has no more to do after all.
        """
        if worker in self._workers:
            self._workers.remove(worker)
            if not self._workers and self._call is not None:
                self._call.cancel()
                self._call = None

    def _turn(self) -> None:
        self._call = None
        workers = self._workers
        # One thing may take more than there is for a turn: later turns are shorter.
        left = _EACH_TURN - self._debt
        while left > 0 and workers:
            worker = workers.popleft()
            took, more = worker.work(left)
            left -= took
            if more:
                workers.append(worker)
        self._debt = max(0, -left)
        if workers and self._call is None:
            self._call = self._clock.callLater(0, self._turn)
