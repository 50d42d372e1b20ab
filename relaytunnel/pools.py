"""
Pools of places that sources share.

A source may have twice as many places as are free, which is the dynamic
threshold of shared buffers (Choudhury and Hahne, 1998): alone it gets two
thirds of a pool, of two that want all each gets two fifths, and however many
there are, some places are left for one more.  Where there is plenty nobody
notices.
"""

from __future__ import annotations

import sys
from collections import Counter, OrderedDict
from collections.abc import Iterator
from typing import Generic, TypeVar

__all__ = ["Pool", "Reclaimable"]

_OF_FREE = 2

T = TypeVar("T")


class Pool:
    """
    So many places, counted in all and by source.

    @ivar most: how many there are.
    @ivar most_of_source: how many one source may have, whatever is free.
    @ivar taken: how many are taken.
    """

    __slots__ = ("_by_source", "most", "most_of_source", "taken")

    def __init__(self, most: int, most_of_source: int = sys.maxsize) -> None:
        self.most = most
        self.most_of_source = most_of_source
        self.taken = 0
        self._by_source: Counter[str] = Counter()

    def of(self, source: str) -> int:
        """
        @return: how many places this source has.
        """
        return self._by_source[source]

    @property
    def sources(self) -> int:
        """How many sources have any."""
        return len(self._by_source)

    def is_full(self, beside: int = 0) -> bool:
        """
        Whether no place is left for anybody.

        @param beside: how many places others have that are not counted here.
        """
        return self.taken + beside >= self.most

    def has_room(self, source: str, beside: int = 0) -> bool:
        """
        Whether there is a place for one more of this source.

        @param beside: as above.
        """
        mine = self._by_source[source]
        free = self.most - self.taken - beside
        return mine < self.most_of_source and mine < _OF_FREE * free

    def take(self, source: str) -> None:
        """
        One more of this source is here, whether there was room or not.
        """
        self.taken += 1
        self._by_source[source] += 1

    def give_back(self, source: str) -> None:
        """
        One of this source has gone.
        """
        self.taken -= 1
        self._by_source[source] -= 1
        if not self._by_source[source]:
            del self._by_source[source]


class Reclaimable(Generic[T]):
    """
    Things of little worth that have a place in a pool.  Where there is no room
    the oldest has to go, of the source that wants one more, if it has any.
    """

    __slots__ = ("_all", "_by_source", "pool")

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self._all: OrderedDict[T, str] = OrderedDict()
        self._by_source: dict[str, OrderedDict[T, None]] = {}

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[T]:
        return iter(list(self._all))

    def add(self, thing: T, source: str) -> T | None:
        """
        Give something a place.

        @return: what has lost its own for it, and is to be let go of.
        """
        victim: T | None = None
        if self._all and not self.pool.has_room(source):
            victim = next(iter(self._by_source.get(source) or self._all))
            self.discard(victim)
        self.pool.take(source)
        self._all[thing] = source
        self._by_source.setdefault(source, OrderedDict())[thing] = None
        return victim

    def discard(self, thing: T) -> None:
        """
        Something has gone, or is of worth again.
        """
        source = self._all.pop(thing, None)
        if source is not None:
            self.pool.give_back(source)
            things = self._by_source[source]
            del things[thing]
            if not things:
                del self._by_source[source]
