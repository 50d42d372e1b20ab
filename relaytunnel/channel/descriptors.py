"""
How many descriptors there are, and when to take no more.

Whoever accepts until none is left takes them from those who are served
already: a splice that needs a pipe, a file that has to be read.  So accepting
stops while there are some, and goes on when there are enough again.
"""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

__all__ = [
    "Descriptors",
    "attainable_limit",
    "descriptor_limit",
    "descriptors_in_use",
    "raise_descriptor_limit",
]

_FULL, _ROOM_AGAIN = 0.9, 0.8
_LOOK_EVERY = 0.25
_SAY_EVERY = 10.0
_FAR = 1 << 30
_ENOUGH = 1 << 20
"""No more are asked for: what is without bounds bounds nothing."""
_FOLDERS = ("/proc/self/fd", "/dev/fd")


def descriptor_limit() -> int | None:
    """
    @return: how many descriptors this process may have; C{None} for any number.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def descriptors_in_use() -> int:
    """
    @return: how many descriptors this process has, or at least has.
    """
    with contextlib.suppress(OSError):
        size = os.stat(_FOLDERS[0]).st_size  # since Linux 6.2
        if size:
            return size
    for folder in _FOLDERS:
        with contextlib.suppress(OSError):
            found = len(os.listdir(folder)) - 1  # but for the one that looks
            if found > 3:  # FreeBSD may show no others
                return found
    try:
        lowest_free = os.open(os.devnull, os.O_RDONLY)
    except OSError:
        return descriptor_limit() or _FAR
    os.close(lowest_free)
    return lowest_free


def attainable_limit(most: int = _ENOUGH) -> int:
    """
    @param most: no more than so many are asked for.
    @return: how many descriptors this process may have once it has raised its
        limit.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY in (soft, hard):
        return most
    return max(soft, min(hard, most))


def raise_descriptor_limit(most: int = _ENOUGH) -> None:
    """
    Allow this process as many descriptors as it may allow itself, if that is
    more than it is allowed.

    @param most: no more than so many.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = attainable_limit(most)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        # macOS has a limit of its own below a hard one without bounds.
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class Descriptors:
    """
    Says when to stop accepting, and when to go on.

    Descriptors are counted now and then: the nearer the mark, the more often,
    so that an accept costs next to nothing.

    @ivar paused: whether nothing is to be accepted.
    @ivar pauses: how often that came about.
    @ivar unlooked: how many may be accepted before it is looked how many there
        are; whoever accepts takes one away for each.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        full: float = _FULL,
        room_again: float = _ROOM_AGAIN,
        limit: Callable[[], int | None] = descriptor_limit,
        in_use: Callable[[], int] = descriptors_in_use,
    ) -> None:
        """
        @param full: stop at this part of the limit.
        @param room_again: go on at this part of it.
        """
        self._clock = clock
        self._full = full
        self._room_again = room_again
        self.limit = limit
        self.in_use = in_use
        self.paused = False
        self.pauses = 0
        self.unlooked = 1
        self._waiting: dict[Callable[[], None], None] = {}
        self._alarm: IDelayedCall | None = None
        self._said_at: float | None = None
        self._said = False

    def look(self) -> None:
        """
        See how many there are, and stop if they are many.
        """
        limit = self.limit()
        if limit is None:
            self.unlooked = _FAR
            return
        left = int(limit * self._full) - self.in_use()
        if left <= 0:
            self.pause("too many descriptors are in use")
        else:
            # Whatever is accepted may need a second one.
            self.unlooked = max(1, left // 2, limit // 100)

    def pause(self, why: str) -> None:
        """
        Accept nothing until there is room.
        """
        if self.paused:
            return
        self.paused = True
        self.pauses += 1
        now = self._clock.seconds()
        self._said = self._said_at is None or now - self._said_at >= _SAY_EVERY
        if self._said:
            self._said_at = now
            self._log.warn(
                "no connections are accepted for a while: {why}"
                " ({used} of {limit} descriptors, {pauses} times since the start)",
                why=why,
                used=self.in_use(),
                limit=self.limit(),
                pauses=self.pauses,
            )
        self._alarm = self._clock.callLater(_LOOK_EVERY, self._look_again)

    def when_again(self, go_on: Callable[[], None]) -> None:
        """
        Call this when there is room; once, however often it is said.
        """
        self._waiting[go_on] = None

    def _look_again(self) -> None:
        limit = self.limit()
        if limit is not None and self.in_use() > limit * self._room_again:
            self._alarm = self._clock.callLater(_LOOK_EVERY, self._look_again)
            return
        self._alarm = None
        self.paused = False
        self.unlooked = 1
        if self._said:
            self._log.info("connections are accepted again")
        waiting, self._waiting = self._waiting, {}
        for go_on in waiting:
            go_on()

    def close(self) -> None:
        """
        Look no more.
        """
        self._waiting.clear()
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
