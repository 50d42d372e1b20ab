"""
Waiting for what runs to come to its end, before a process does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall

__all__ = ["quiet"]

_LOOK_EVERY = 0.05


def quiet(clock: Any, over: Callable[[], bool], seconds: float) -> Deferred[bool]:
    """
    Wait until something is over, or the time is.

    @param clock: the reactor.
    @param over: asked now and then, so it should not cost much.
    @return: fires with whether it is, also when it is cancelled.
    """
    until = clock.seconds() + seconds

    def look() -> None:
        if over() or clock.seconds() >= until:
            looking.stop()

    looking = LoopingCall(look)
    looking.clock = clock
    waiting: Deferred[bool] = Deferred(lambda _: looking.stop())

    def looked(_: object) -> None:
        if not waiting.called:
            waiting.callback(bool(over()))

    looking.start(_LOOK_EVERY).addCallback(looked)
    return waiting
