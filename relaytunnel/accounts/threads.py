"""
A few threads of one's own, for calls that block.

They are apart from the reactor's pool, where a slow resolver could hold them
up.  What they run is not known here.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread
from typing import Any, ParamSpec, TypeVar

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from relaytunnel.errors import AccountError

__all__ = ["Threads"]

_P = ParamSpec("_P")
_T = TypeVar("_T")


class _Daemon(Thread):
    """
    A thread that does not keep the process from ending.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs, daemon=True)


class Threads:
    """
    Up to a number of threads, started when they are needed.  L{close} must be
    called: the process would not end before them.

    @ivar at_most: how many threads.
    """

    def __init__(
        self, reactor: Any, at_most: int, name: str, stopping_time: float | None = None
    ) -> None:
        """
        @param reactor: also with a clock, where there is a C{stopping_time}.
        @param at_most: how many threads.
        @param name: what they are called in listings.
        @param stopping_time: for how many seconds a close waits for what runs;
            the process may end before what takes longer.  L{None} waits for
            all of it.
        """
        self._reactor = reactor
        self.at_most = at_most
        self._stopping_time = stopping_time
        self._pool = ThreadPool(0, at_most, name)
        if stopping_time is not None:
            self._pool.threadFactory = _Daemon
        self._pool.start()
        self._busy = 0
        self._idle: Deferred[None] | None = None
        self._patience: IDelayedCall | None = None
        self._left = False
        self._closers: list[Deferred[None]] = []

    def run(
        self, function: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs
    ) -> Deferred[_T]:
        """
        Call a function in a thread.

        @return: what it returns or raises; L{AccountError} after L{close}.
            Cancelled, it is not called if it waits for a thread.
        """
        if self._idle is not None:
            return fail(AccountError("the accounts are closed"))
        called_off = False

        def call() -> _T:
            if called_off:
                raise CancelledError
            return function(*args, **kwargs)

        def call_off(answer: Deferred[_T]) -> None:
            nonlocal called_off
            called_off = True

        self._busy += 1
        answer: Deferred[_T] = Deferred(call_off)
        work = deferToThreadPool(self._reactor, self._pool, call)
        work.addBoth(self._over)
        work.addBoth(lambda result: None if called_off else answer.callback(result))
        return answer

    def close(self, last: Callable[[], None] = lambda: None) -> Deferred[None]:
        """
        Finish what was begun, then end the threads.

        @param last: called in a thread, when nothing else runs any more.
        @return: fires when no thread is left, with the failure of C{last} if
            there was one; or when the stopping time is over.
        """
        closed: Deferred[None] = Deferred()
        self._closers.append(closed)
        if self._idle is None:
            self._idle = Deferred()
            self._idle.addCallback(lambda _: deferToThreadPool(self._reactor, self._pool, last))
            self._idle.addBoth(self._stop)
            if not self._busy:
                self._idle.callback(None)
            elif self._stopping_time is not None:
                self._patience = self._reactor.callLater(self._stopping_time, self._leave)
        elif self._pool.joined or self._left:
            self._answer(None)
        return closed

    def _over(self, result: _T) -> _T:
        self._busy -= 1
        if self._idle is not None and not self._busy:
            self._idle.callback(None)
        return result

    def _leave(self) -> None:
        """
        Wait no longer.  The threads end by themselves if the process lives on.
        """
        self._patience = None
        self._left = True
        self._answer(None)

    def _stop(self, result: Failure | None) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        if not self._pool.joined:
            # It joins the threads, which are idle: nothing to wait for.
            self._pool.stop()
        self._answer(result)

    def _answer(self, result: Failure | None) -> None:
        closers, self._closers = self._closers, []
        for closed in closers:
            closed.callback(result)
