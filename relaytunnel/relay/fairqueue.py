"""
Queues that are fair among sources.

However many wait, an operation takes the same time; L{FairQueue.take} looks at
each source once at most.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Backlog", "FairQueue"]

T = TypeVar("T")


class FairQueue(Generic[T]):
    """
    A queue that serves its sources in turn (round robin), and what one of them
    has queued in order.
    """

    __slots__ = ("_sources",)

    def __init__(self) -> None:
        self._sources: OrderedDict[str, dict[T, None]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._sources)

    def add(self, source: str, item: T) -> None:
        """
        Queue an item behind those of its source.
        """
        self._sources.setdefault(source, {})[item] = None

    def remove(self, source: str, item: T) -> None:
        """
        Take an item out, wherever it stands.
        """
        items = self._sources[source]
        del items[item]
        if not items:
            del self._sources[source]

    def take(self, may: Callable[[T], bool]) -> T | None:
        """
        Dequeue the first item of the source whose turn it is; one whose first
        item may not go is passed over.

        @return: C{None} if none may go.
        """
        for _ in range(len(self._sources)):
            source, items = next(iter(self._sources.items()))
            self._sources.move_to_end(source)
            first = next(iter(items))
            if may(first):
                self.remove(source, first)
                return first
        return None


class Backlog(Generic[T]):
    """
    All queued items by source, what they weigh, and which source has the most.
    """

    def __init__(self) -> None:
        self._items: dict[str, dict[T, int]] = {}
        self._weights: dict[str, int] = {}
        self._sources: dict[int, dict[str, None]] = {}  # by their weight
        self._most = 0
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, source: str, item: T, weight: int = 1) -> None:
        """
        An item is queued.
        """
        self._items.setdefault(source, {})[item] = weight
        self._count += 1
        self._weigh(source, weight)

    def remove(self, source: str, item: T) -> None:
        """
        An item is queued no more.
        """
        items = self._items[source]
        weight = items.pop(item)
        if not items:
            del self._items[source]
        self._count -= 1
        self._weigh(source, -weight)

    def _weigh(self, source: str, more: int) -> None:
        before = self._weights.pop(source, 0)
        if before:
            others = self._sources[before]
            del others[source]
            if not others:
                del self._sources[before]
        now = before + more
        if now:
            self._weights[source] = now
            self._sources.setdefault(now, {})[source] = None
        self._most = max(self._most, now)
        while self._most and self._most not in self._sources:
            self._most -= 1

    def newest_of_largest(self, source: str, weight: int = 1) -> T | None:
        """
        Find who pays for another item of this source when there is room for no
        more.

        @return: the newest item of a source that has more than this one would
            have; C{None} if there is none.
        """
        if self._most <= self._weights.get(source, 0) + weight:
            return None
        largest = next(iter(self._sources[self._most]))
        return next(reversed(self._items[largest]))
