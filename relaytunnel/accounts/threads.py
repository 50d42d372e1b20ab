"""
A few threads of one's own, for calls that block.

They are apart from the reactor's pool, where a slow resolver could hold them
up.  What they run is not known here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from relaytunnel.errors import AccountError

__all__ = ["Threads", "shielded"]

_P = ParamSpec("_P")
_T = TypeVar("_T")


def shielded(work: Deferred[_T]) -> Deferred[_T]:
    """
    Give the result on, so that whoever cancels what is returned stops waiting
    without touching the work: a thread cannot be called off.
    """
    answer: Deferred[_T] = Deferred()
    work.chainDeferred(answer)
    return answer


class Threads:
    """
    Up to a number of threads, started when they are needed.  L{close} must be
    called: the process would not end before them.
    """

    def __init__(self, reactor: IReactorFromThreads, at_most: int, name: str) -> None:
        """
        @param at_most: how many threads.
        @param name: what they are called in listings.
        """
        self._reactor = reactor
        self._pool = ThreadPool(0, at_most, name)
        self._pool.start()
        self._busy = 0
        self._idle: Deferred[None] | None = None
        self._closers: list[Deferred[None]] = []

    def run(
        self, function: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs
    ) -> Deferred[_T]:
        """
        Call a function in a thread.

        @return: what it returns or raises; L{AccountError} after L{close}.
        """
        if self._idle is not None:
            return fail(AccountError("the accounts are closed"))
        self._busy += 1
        work = deferToThreadPool(self._reactor, self._pool, function, *args, **kwargs)
        work.addBoth(self._over)
        return shielded(work)

    def close(self, last: Callable[[], None] = lambda: None) -> Deferred[None]:
        """
        Finish what was begun, then end the threads.

        @param last: called in a thread, when nothing else runs any more.
        @return: fires when no thread is left, with the failure of C{last} if
            there was one.
        """
        closed: Deferred[None] = Deferred()
        self._closers.append(closed)
        if self._idle is None:
            self._idle = Deferred()
            self._idle.addCallback(lambda _: deferToThreadPool(self._reactor, self._pool, last))
            self._idle.addBoth(self._stop)
            if not self._busy:
                self._idle.callback(None)
        elif self._pool.joined:
            self._stop(None)
        return closed

    def _over(self, result: _T) -> _T:
        self._busy -= 1
        if self._idle is not None and not self._busy:
            self._idle.callback(None)
        return result

    def _stop(self, result: Failure | None) -> None:
        if not self._pool.joined:
            # It joins the threads, which are idle: nothing to wait for.
            self._pool.stop()
        closers, self._closers = self._closers, []
        for closed in closers:
            closed.callback(result)
