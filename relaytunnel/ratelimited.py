"""
A log that cannot be flooded: of lines of one kind so many are written, the rest
is counted.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Any, Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import LogLevel, formatEvent

__all__ = ["RateLimitedLog"]

_BURST = 100
_INTERVAL = 10.0
_MOST_KINDS = 1024


class _Kind:
    """
    Lines of one kind.

    @ivar since: when the first of them came.
    @ivar count: how many have been written since then.
    @ivar suppressed: how many have not.
    @ivar last: the last of those, as it would have been written.
    """

    __slots__ = ("count", "last", "level", "since", "suppressed")

    def __init__(self, since: float) -> None:
        self.since = since
        self.count = self.suppressed = 0
        self.level = LogLevel.info
        self.last: dict[str, object] = {}


class Emitter(Protocol):
    """
    What lines are written to: a L{Logger}, or what is quicker.
    """

    def emit(self, level: Any, format: str, **fields: Any) -> None:  # noqa: A002
        """Write a line."""


class RateLimitedLog:
    """
    A log of which nobody else decides how long it gets.

    At most a hundred lines of one kind are written in ten seconds.  What came
    beyond that is told in one line behind them: the last of them, and how many
    more there were like it.
    """

    def __init__(
        self,
        clock: IReactorTime,
        log: Emitter,
        burst: int = _BURST,
        interval: float = _INTERVAL,
    ) -> None:
        """
        @param burst: how many lines of a kind are written in an interval.
        @param interval: its length in seconds.
        """
        self._clock = clock
        self._log = log
        self._burst = burst
        self._interval = interval
        self._kinds: OrderedDict[Hashable, _Kind] = OrderedDict()
        self._alarm: IDelayedCall | None = None

    def emit(self, level: Any, kind: Hashable, format: str, **fields: Any) -> None:  # noqa: A002
        """
        Write a line, or count it.

        @param kind: what is counted together; who causes it belongs to it.
        @param format: as of C{Logger.emit}.
        """
        now = self._clock.seconds()
        found = self._kinds.get(kind)
        if found is None or (now - found.since >= self._interval and not found.suppressed):
            self._kinds.pop(kind, None)
            found = self._kinds[kind] = _Kind(now)
            self._forget(now)
        if found.count < self._burst:
            found.count += 1
            self._log.emit(level, format, **fields)
            return
        found.suppressed += 1
        found.level = level
        found.last = {"log_format": format, **fields}
        if self._alarm is None:
            self._alarm = self._clock.callLater(self._interval, self._tell)

    def _forget(self, now: float) -> None:
        """
        Forget kinds that are over, the oldest first; and some that are not,
        when there are too many.
        """
        while self._kinds:
            kind, first = next(iter(self._kinds.items()))
            over = now - first.since >= self._interval and not first.suppressed
            if not over and len(self._kinds) <= _MOST_KINDS:
                return
            del self._kinds[kind]
            self._summarize(first)

    def _tell(self) -> None:
        self._alarm = None
        kinds, self._kinds = self._kinds, OrderedDict()
        for found in kinds.values():
            self._summarize(found)

    def _summarize(self, found: _Kind) -> None:
        if found.suppressed == 1:
            self._log.emit(found.level, "{line}", line=formatEvent(found.last))
        elif found.suppressed:
            self._log.emit(
                found.level,
                "{line}; and {count:,} more like it in the last {seconds:g} s",
                line=formatEvent(found.last),
                count=found.suppressed - 1,
                seconds=self._clock.seconds() - found.since,
            )

    def close(self) -> None:
        """
        Tell what was suppressed, and wait for nothing any more.
        """
        if self._alarm is not None:
            self._alarm.cancel()
            self._tell()
