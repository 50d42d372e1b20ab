"""
Ports of servers whose agent has lost its control channel and is expected back.

They stay open, and clients that come to them wait: nobody else may have such a
port meanwhile.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from twisted.internet.interfaces import IDelayedCall, IReactorTime

__all__ = ["KeptPorts"]


@dataclass(eq=False)
class _Kept:
    """
    A port that is kept.

    @ivar waiting: what to call for each client that waits there, and what its
        address counts for.
    """

    agent: str
    connection_id: str
    alarm: IDelayedCall
    waiting: dict[object, tuple[Callable[[bool], object], str]] = field(default_factory=dict)
    sources: Counter[str] = field(default_factory=Counter)


class KeptPorts:
    """
    All such ports, by number.
    """

    def __init__(self, clock: IReactorTime, close: Callable[[int], object]) -> None:
        """
        @param close: stops listening on a port.
        """
        self._clock = clock
        self._close = close
        self._kept: dict[int, _Kept] = {}

    def __contains__(self, port: int) -> bool:
        return port in self._kept

    def keep(self, agent: str, connection_id: str, port: int, seconds: float, most: int) -> None:
        """
        Keep a port open for so long.

        @param most: as many may be kept for one agent; the oldest closes.
        """
        own = [number for number, kept in self._kept.items() if kept.agent == agent]
        if len(own) >= most:
            self._expire(own[0])
        alarm = self._clock.callLater(seconds, self._expire, port)
        self._kept[port] = _Kept(agent, connection_id, alarm)

    def of(self, agent: str, connection_id: str) -> list[int]:
        """
        @return: the ports that are kept for a server.
        """
        return [
            port
            for port, kept in self._kept.items()
            if (kept.agent, kept.connection_id) == (agent, connection_id)
        ]

    def holder(self, port: int) -> str | None:
        """
        @return: the agent that a port is kept for, if it is.
        """
        kept = self._kept.get(port)
        return None if kept is None else kept.agent

    def taken(self, port: int) -> None:
        """
        A server has this port now; who waits is told a turn later, when its
        agent has been.
        """
        kept = self._kept.pop(port, None)
        if kept is not None:
            kept.alarm.cancel()
            if kept.waiting:
                self._clock.callLater(0, self._tell, kept, False)

    def wait(
        self,
        port: int,
        who: object,
        source: str,
        again: Callable[[bool], object],
        most: int,
        most_of_source: int,
    ) -> bool:
        """
        Have a client wait at a port.

        @param source: what its address counts for.
        @param again: called when a server has the port, or with C{True} when
            none comes.
        @param most: how many may wait there.
        @param most_of_source: how many of one source may.
        @return: whether it may wait.
        """
        kept = self._kept.get(port)
        if kept is None or len(kept.waiting) >= most or kept.sources[source] >= most_of_source:
            return False
        kept.waiting[who] = again, source
        kept.sources[source] += 1
        return True

    def forget(self, port: int, who: object) -> None:
        """
        A client waits no more.
        """
        kept = self._kept.get(port)
        if kept is not None:
            found = kept.waiting.pop(who, None)
            if found is not None:
                kept.sources[found[1]] -= 1

    def keep_only(self, agents: Collection[str]) -> None:
        """
        Only these agents have accounts; others do not come back.
        """
        for port, kept in list(self._kept.items()):
            if kept.agent not in agents:
                self._expire(port)

    def end(self) -> None:
        """
        Keep nothing any more.
        """
        for port in list(self._kept):
            self._expire(port)

    def _expire(self, port: int) -> None:
        kept = self._kept.pop(port, None)
        if kept is not None:
            if kept.alarm.active():
                kept.alarm.cancel()
            self._close(port)
            self._tell(kept, True)

    @staticmethod
    def _tell(kept: _Kept, last: bool) -> None:
        waiting, kept.waiting = kept.waiting, {}
        for again, _ in waiting.values():
            again(last)
