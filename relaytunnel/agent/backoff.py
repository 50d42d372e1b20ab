"""
How long the agent waits before it dials the relay again.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Backoff"]

_FIRST = 0.5
_MOST = 30.0
_HEALTHY_AFTER = 60.0
_DENIED = (60.0, 300.0)


class Backoff:
    """
    Full jitter: anything from nothing to a bound that doubles from 0.5 s to
    30 s, and starts over after a minute of health.

    A relay that denied the agent, or names a time of its own, is given that.

    @param seconds: the clock.
    @param random: a number from 0 to 1.
    """

    def __init__(self, seconds: Callable[[], float], random: Callable[[], float]) -> None:
        self._seconds = seconds
        self._random = random
        self._failures = 0
        self._welcomed_at: float | None = None
        self._asked: tuple[float, float] | None = None

    def welcomed(self) -> None:
        """
        The relay let the agent in.
        """
        self._welcomed_at = self._seconds()

    def denied(self, retry_after: float) -> None:
        """
        The relay denied the agent: it needs a person, or a long while.

        @param retry_after: what the relay asked for, in seconds; 0 if nothing.
        """
        self._asked = (retry_after, 2 * retry_after) if retry_after else _DENIED

    def restarting(self, reconnect_in: float) -> None:
        """
        The relay restarts as planned and wants its agents back spread over
        this time, in seconds.
        """
        self._asked = (0.0, max(_FIRST, reconnect_in))

    def delay(self) -> float:
        """
        @return: seconds to wait now.  Each call counts as one more failure,
            but for those that give the relay the time it asked for.
        """
        now = self._seconds()
        if self._welcomed_at is not None and now - self._welcomed_at >= _HEALTHY_AFTER:
            self._failures = 0
        self._welcomed_at = None
        if self._asked is not None:
            (least, most), self._asked = self._asked, None
            return least + self._random() * (most - least)
        bound = min(_MOST, _FIRST * 2.0**self._failures)
        self._failures = min(self._failures + 1, 16)
        return self._random() * bound
