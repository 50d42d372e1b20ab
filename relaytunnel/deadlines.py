"""
Deadlines that are mostly met: many of them on one delayed call.

A session has several, all of the same few lengths, and nearly every one is
called off in time.  Those of one length come due in the order in which they
began, so the first one's delayed call is enough for all, and to begin one or
to call it off takes no look at the others.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

__all__ = ["Deadline", "Deadlines"]


class Deadline:
    """
    Something that has to happen in time.
    """

    __slots__ = ("_queue", "due", "too_late")

    def __init__(self, queue: _Queue, due: float, too_late: Callable[[], object]) -> None:
        self._queue = queue
        self.due = due
        self.too_late: Callable[[], object] | None = too_late

    def active(self) -> bool:
        """
        @return: whether it is neither over nor called off.
        """
        return self.too_late is not None

    def cancel(self) -> None:
        """
        It has happened.  To say so again does nothing.
        """
        if self.too_late is not None:
            self.too_late = None
            self._queue.remove(self)


class _Queue:
    """
    The deadlines of one length, while there are any.
    """

    __slots__ = ("_call", "_clock", "_empty", "_looking", "_seconds", "_waiting")

    def __init__(
        self, clock: IReactorTime, seconds: float, empty: Callable[[float], object]
    ) -> None:
        self._clock = clock
        self._seconds = seconds
        self._empty = empty
        self._looking = False
        self._waiting: dict[Deadline, None] = {}
        self._call: IDelayedCall | None = None

    def add(self, too_late: Callable[[], object]) -> Deadline:
        deadline = Deadline(self, self._clock.seconds() + self._seconds, too_late)
        self._waiting[deadline] = None
        if self._call is None and not self._looking:
            self._call = self._clock.callLater(self._seconds, self._look)
        return deadline

    def remove(self, deadline: Deadline) -> None:
        del self._waiting[deadline]
        if not self._waiting and self._call is not None:
            self._call.cancel()
            self._call = None
            self._empty(self._seconds)

    def _look(self) -> None:
        """
        See who is too late; each of them may begin and call off others.
        """
        self._call = None
        self._looking = True
        now = self._clock.seconds()
        try:
            for deadline in self._those_before(now):
                too_late = deadline.too_late
                if too_late is not None:
                    deadline.cancel()
                    too_late()
        finally:
            self._looking = False
            if not self._waiting:
                self._empty(self._seconds)
            else:
                first = next(iter(self._waiting))
                self._call = self._clock.callLater(max(0.0, first.due - now), self._look)

    def _those_before(self, now: float) -> list[Deadline]:
        late = []
        for deadline in self._waiting:
            if deadline.due > now:
                break
            late.append(deadline)
        return late


class Deadlines:
    """
    The deadlines of a process.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._queues: dict[float, _Queue] = {}

    def within(self, seconds: float, too_late: Callable[[], object]) -> Deadline:
        """
        Call C{too_late} after so many seconds, unless it is called off.  It is
        for lengths of which there are few: limits, not what is left of them.
        """
        queue = self._queues.get(seconds)
        if queue is None:
            queue = self._queues[seconds] = _Queue(self._clock, seconds, self._queues.pop)
        return queue.add(too_late)
