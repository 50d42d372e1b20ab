"""
Clients whose server's agent is about to come back, because this process has
taken over from another one a moment ago.

They wait for it, and are told that it is away only when it does not come.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

__all__ = ["Expectation"]

_LAST_WORDS = 0.5
"""Seconds that the last agent has for registering its servers."""
_LOOK_EVERY = 0.05


class Expectation:
    """
    What is expected after a handover.

    @ivar over: whether nothing is any more.
    """

    def __init__(
        self,
        clock: IReactorTime,
        agents: Iterable[str],
        seconds: float,
        ended: Callable[[], object],
    ) -> None:
        """
        @param agents: those that have to come back.
        @param seconds: how long they have.
        @param ended: called when it is over.
        """
        self._clock = clock
        self._agents = set(agents)
        self._ended = ended
        self._waiting: dict[object, Callable[[bool], object]] = {}
        self._soon: IDelayedCall | None = None
        self.over = False
        self._alarm: IDelayedCall = clock.callLater(seconds, self.end)
        self._all_are_here()

    def wait(self, who: object, again: Callable[[bool], object]) -> None:
        """
        Have a client wait.

        @param who: by what it is forgotten when it leaves.
        @param again: called now and then, above all when a server has come, with
            whether this is the last time.
        """
        self._waiting[who] = again
        self._look_in(_LOOK_EVERY)

    def forget(self, who: object) -> None:
        """
        A client waits no more.
        """
        self._waiting.pop(who, None)

    def server_came(self) -> None:
        """
        Some server is published; its agent is told so before anybody comes.
        """
        self._look_in(0)

    def _look_in(self, seconds: float) -> None:
        if not self.over and self._waiting and self._soon is None:
            self._soon = self._clock.callLater(seconds, self._look)

    def _look(self) -> None:
        self._soon = None
        for again in list(self._waiting.values()):
            again(False)
        self._look_in(_LOOK_EVERY)

    def agent_came(self, agent: str) -> None:
        """
        An agent is here, and is about to register its servers.
        """
        if agent in self._agents:
            self._agents.discard(agent)
            self._all_are_here()

    def _all_are_here(self) -> None:
        if not self._agents and not self.over:
            self._alarm.reset(_LAST_WORDS)

    def end(self) -> None:
        """
        Whoever still waits, waits for nobody.
        """
        if self.over:
            return
        self.over = True
        for call in (self._alarm, self._soon):
            if call is not None and call.active():
                call.cancel()
        waiting, self._waiting = list(self._waiting.values()), {}
        for again in waiting:
            again(True)
        self._ended()
