"""
How long a peer that is being left may take what is still for it.

Behind the end of the other side came a reset: nobody is there to hear this peer
any more, and it has to learn of that at once, but not before it has what was
sent to it.  The kernel tells nobody when the last byte was acknowledged, so it
is asked, soon and then less and less often.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from relaytunnel.interfaces import SpliceLimits

__all__ = ["Lingering"]

_SOON = 0.01
_AT_THE_LATEST = 0.25
"""Seconds until the next look."""


class Lingering:
    """
    Looks at how much a peer has not taken yet, until it has taken all of it, or
    takes nothing any more, or takes too long.
    """

    def __init__(
        self,
        clock: IReactorTime,
        limits: SpliceLimits,
        waits: Callable[[], int],
        over: Callable[[bool], None],
    ) -> None:
        """
        @param waits: how many bytes the peer has not taken.
        @param over: called once, with whether it has taken all of them; not if
            it is stopped before.
        """
        self._clock = clock
        self._limits = limits
        self._asked: tuple[Callable[[], int], Callable[[bool], None]] | None = (waits, over)
        self._call: IDelayedCall | None = None
        self._pause = _SOON
        self._left = -1
        self._began = self._taken_at = clock.seconds()

    def look(self) -> None:
        """
        Look now, and again later if that was not the end.
        """
        if self._asked is None:
            return
        waits, over = self._asked
        if self._call is not None:
            self._call.cancel()
            self._call = None
        now, left = self._clock.seconds(), waits()
        if left != self._left:
            self._left, self._taken_at = left, now
        quiet_at = self._taken_at + self._limits.linger_idle
        due = min(quiet_at, self._began + self._limits.linger)
        if not left or now >= due:
            self._asked = None  # whoever asks has us, too
            over(not left)
            return
        pause = min(self._pause, max(due - now, 0.0))
        self._pause = min(2 * self._pause, _AT_THE_LATEST)
        self._call = self._clock.callLater(pause, self._look_again)

    def _look_again(self) -> None:
        self._call = None
        self.look()

    def stop(self) -> None:
        """
        Look no more.
        """
        self._asked = None
        if self._call is not None:
            self._call.cancel()
            self._call = None
