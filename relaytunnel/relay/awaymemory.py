"""
The names of servers whose agent is away, which are remembered for a while:
their clients are told to try again, and not that there is no such server.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable

__all__ = ["AwayMemory"]

_MOST = 65_536
_SECONDS = 3600.0

Name = tuple[str, str]
"""A kind of name (C{name}, C{host}, C{sni}), and the name."""


class AwayMemory:
    """
    Names by agent, at most so many in all.  Where there are too many, the
    agent that has the most loses its oldest, so that none can have the names
    of others forgotten.
    """

    def __init__(
        self, seconds: Callable[[], float], most: int = _MOST, kept: float = _SECONDS
    ) -> None:
        """
        @param seconds: the clock.
        @param most: how many names are remembered.
        @param kept: for how many seconds a name is.
        """
        self._seconds = seconds
        self._most = most
        self._kept = kept
        self._whose: dict[Name, str] = {}
        self._until: dict[str, OrderedDict[Name, float]] = {}

    def __len__(self) -> int:
        return len(self._whose)

    def __contains__(self, name: Name) -> bool:
        agent = self._whose.get(name)
        if agent is None:
            return False
        if self._seconds() < self._until[agent][name]:
            return True
        self.forget([name])
        return False

    def remember(self, agent: str, names: Iterable[Name]) -> None:
        """
        The agent that published these is away.
        """
        until = self._seconds() + self._kept
        for name in names:
            self.forget([name])
            self._whose[name] = agent
            self._until.setdefault(agent, OrderedDict())[name] = until
            while len(self._whose) > self._most:
                largest = max(self._until.values(), key=len)
                self.forget([next(iter(largest))])

    def forget(self, names: Iterable[Name]) -> None:
        """
        These are published again, or were withdrawn.
        """
        for name in names:
            agent = self._whose.pop(name, None)
            if agent is not None:
                known = self._until[agent]
                del known[name]
                if not known:
                    del self._until[agent]

    def forget_agent(self, agent: str) -> None:
        """
        This one does not come back.
        """
        self.forget(list(self._until.get(agent, ())))

    def keep_only(self, agents: Collection[str]) -> None:
        """
        Only these agents have accounts; others do not come back.
        """
        for agent in self._until.keys() - set(agents):
            self.forget_agent(agent)
