"""
Hashes that take long, computed in a few threads and in a fair order.

A hash that runs cannot be called off, so what one may cost is bounded where
its parameters are taken in (L{relaytunnel.config.users}).  All that wait can:
whoever cancels leaves the queue.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from relaytunnel.accounts.fairness import FairQueue, Lane, QueueFull
from relaytunnel.accounts.threads import Threads
from relaytunnel.errors import AccountError, Code, Rejection

__all__ = ["Hashing", "hashing_threads"]

_BOUNDS = (1024, 256, 64, 64, 8)
"""Waiting in all, of one group, of one of its servers, of one class of sources, of one source."""

_THREADS = 2
"""Each takes the memory that its hash asks for; with one, no group could be kept from all."""

_STOPPING_TIME = 1.0
"""Seconds for which a stop waits for a hash that runs."""


def hashing_threads(reactor: Any) -> Threads:
    """
    The threads for L{Hashing}.
    """
    return Threads(reactor, _THREADS, "passwords", _STOPPING_TIME)


class _Job:
    __slots__ = ("answer", "arguments", "function", "group")

    def __init__(
        self, group: str, function: Callable[..., Any], arguments: tuple[Any, ...]
    ) -> None:
        self.group = group
        self.function = function
        self.arguments = arguments
        self.answer: Deferred[Any] | None = None


class Hashing:
    """
    Computes hashes for groups of servers, each group in its turn.

    A group has all threads but one at most: whatever it asks for, another one
    does not wait for it.
    """

    def __init__(self, threads: Threads) -> None:
        """
        @param threads: where they are computed; closed by C{close}.
        """
        self._threads = threads
        self._queue: FairQueue[_Job] = FairQueue(_BOUNDS)
        self._running: list[str] = []
        self._draining = ""
        self._most_of_group = max(1, threads.at_most - 1)

    def run(self, lane: Lane, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        """
        Call a function that computes a hash.

        @param lane: group, server, class of sources, and source.
        @return: what it returns or raises; cancelled, it is not begun any more.
            Fails with L{Rejection} if others need the place more.
        @raise Rejection: too many of this lane are waiting.
        """
        job = _Job(lane[0], function, arguments)
        try:
            evicted = self._queue.add(lane, job)
        except QueueFull:
            raise _busy() from None
        answer: Deferred[Any] = Deferred(lambda _: self._cancelled(job))
        job.answer = answer
        self._begin()
        if self._draining:
            self._refuse_waiting()
        if evicted is not None:
            _fail(evicted, Failure(_busy()))
        return answer

    def drain(self, reason: str) -> None:
        """
        Let those that run go on, and refuse with L{Rejection} those that wait,
        or would have to wait from now on.
        """
        self._draining = reason
        self._refuse_waiting()

    def _refuse_waiting(self) -> None:
        for job in self._queue.clear():
            _fail(job, Failure(Rejection(Code.SHUTDOWN, self._draining)))

    def close(self) -> Deferred[None]:
        """
        Begin no more, and wait for a moment for those that run.
        """
        for job in self._queue.clear():
            _fail(job, Failure(AccountError("the accounts are closed")))
        return self._threads.close()

    def _begin(self) -> None:
        while len(self._running) < self._threads.at_most:
            job = self._queue.take(self._crowded())
            if job is None:
                return
            self._running.append(job.group)
            work = self._threads.run(job.function, *job.arguments)
            work.addBoth(self._over, job)

    def _crowded(self) -> list[str]:
        """
        @return: the groups that have all the threads that they may.
        """
        return [
            group
            for group in set(self._running)
            if self._running.count(group) >= self._most_of_group
        ]

    def _over(self, result: Any, job: _Job) -> None:
        self._running.remove(job.group)
        self._begin()
        answer, job.answer = job.answer, None
        if answer is not None:
            answer.callback(result)

    def _cancelled(self, job: _Job) -> None:
        job.answer = None
        self._queue.discard(job)


def _fail(job: _Job, failure: Failure) -> None:
    answer, job.answer = job.answer, None
    if answer is not None:
        answer.errback(failure)


def _busy() -> Rejection:
    return Rejection(Code.BUSY, "too many passwords are being compared; try again soon")
