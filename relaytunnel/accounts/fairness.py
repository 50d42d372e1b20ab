"""
A fair queue: hierarchical round robin with bounds at every level.

An item stands in a lane, which is a path of keys such as agent, server and
source.  At each level the keys take turns in rounds, so that however many
items one of them has, another waits for one item of each key at most; one that
had no turn yet in this round is before those that had.  Where a level is full
it is the longest of its lanes that gives way, never the newcomer of a short
one.

Pure: what the items are, and what they cost, is not known here.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import chain
from typing import Any, Generic, TypeVar

__all__ = ["FairQueue", "Lane", "QueueFull"]

_T = TypeVar("_T")

Lane = tuple[str, ...]
"""The keys of a lane, the most general one first."""


_JOINING = 8
"""As many newcomers at least may join a round that is under way."""


class QueueFull(Exception):
    """
    There is no room, and no longer lane that could give way.
    """


class _Node:
    """
    All lanes that begin with the same keys.

    @ivar count: the items in them.
    @ivar now: the next keys that have a turn in this round, in their order.
    @ivar later: those that have one in the next round.
    @ivar items: those of the lane itself, the oldest first; of leaves alone.
    """

    __slots__ = ("_joining", "_served", "count", "items", "later", "now")

    def __init__(self) -> None:
        self.count = 0
        self.now: OrderedDict[str, _Node] = OrderedDict()
        self.later: OrderedDict[str, _Node] = OrderedDict()
        self.items: dict[Any, None] = {}
        # Those that had their turn in this round, and have nothing left.
        self._served: set[str] = set()
        # As many more may join this round: it has an end though keys without
        # number come.
        self._joining = _JOINING

    def get(self, key: str) -> _Node | None:
        return self.now.get(key) or self.later.get(key)

    def nodes(self) -> Iterator[_Node]:
        return chain(self.now.values(), self.later.values())

    def make(self, key: str) -> _Node:
        node = _Node()
        if self._joining and key not in self._served:
            self._joining -= 1
            self.now[key] = node
        else:
            self.later[key] = node
        return node

    def remove(self, key: str) -> None:
        if self.now.pop(key, None) is None:
            del self.later[key]

    def turn(self, passed_over: Collection[str]) -> str | None:
        """
        @return: the key whose turn it is; its next one is in another round.
        """
        for key in chain(self.now, self.later):
            if key not in passed_over:
                if not self.now:
                    self.now, self.later = self.later, self.now
                    self._served.clear()
                    self._joining = max(_JOINING, len(self.now))
                node = self.now.pop(key, None) or self.later.pop(key)
                self.later[key] = node
                if node.count == 1:
                    self._served.add(key)
                return key
        return None


class FairQueue(Generic[_T]):
    """
    Items that wait for their turn, each in its lane.  An item is hashable and
    stands in the queue once.
    """

    def __init__(self, bounds: Sequence[int]) -> None:
        """
        @param bounds: how many items there may be in all, then below one key
            of each level.  Lanes have one key less than there are bounds.
        """
        self._bounds = tuple(bounds)
        self._root = _Node()
        self._lanes: dict[_T, Lane] = {}

    def __len__(self) -> int:
        return self._root.count

    def __contains__(self, item: object) -> bool:
        return item in self._lanes

    def add(self, lane: Lane, item: _T) -> _T | None:
        """
        Put an item at the end of its lane.

        @return: the item that gave way to it, if one had to: the newest of the
            longest lane where there was no room.
        @raise QueueFull: the lane itself is full, or is one of the longest.
        """
        if len(lane) != len(self._bounds) - 1:
            raise ValueError(f"a lane has {len(self._bounds) - 1} keys")
        evicted = self._make_room(lane)
        self._lanes[item] = lane
        node = self._root
        node.count += 1
        for key in lane:
            node = node.get(key) or node.make(key)
            node.count += 1
        node.items[item] = None
        return evicted

    def discard(self, item: _T) -> bool:
        """
        Take an item out.

        @return: whether it was waiting.
        """
        lane = self._lanes.pop(item, None)
        if lane is None:
            return False
        node = self._root
        node.count -= 1
        for key in lane:
            below = node.get(key)
            assert below is not None
            below.count -= 1
            if not below.count:
                node.remove(key)
            node = below
        del node.items[item]
        return True

    def take(self, passed_over: Collection[str] = ()) -> _T | None:
        """
        Take out the item whose turn it is.

        @param passed_over: keys of the first level that have no turn now.
        @return: the item; C{None} if there is none.
        """
        node = self._root
        for _ in self._bounds[1:]:
            key = node.turn(passed_over)
            if key is None:
                return None
            passed_over = ()
            node = node.later[key]
        item: _T = next(iter(node.items))
        self.discard(item)
        return item

    def clear(self, wanted: Callable[[_T], bool] = lambda item: True) -> list[_T]:
        """
        Take out all items, or those that are C{wanted}.

        @return: them, the oldest first.
        """
        taken = [item for item in self._lanes if wanted(item)]
        for item in taken:
            self.discard(item)
        return taken

    def _make_room(self, lane: Lane) -> _T | None:
        """
        Let an item give way at the deepest level that is full; that makes room
        at all levels above it, too.

        @raise QueueFull: none has to.
        """
        nodes = [self._root]
        for key in lane:
            below = nodes[-1].get(key)
            if below is None:
                break
            nodes.append(below)
        full = [depth for depth, node in enumerate(nodes) if node.count >= self._bounds[depth]]
        if not full:
            return None
        depth = full[-1]
        if depth == len(lane):
            raise QueueFull
        node = nodes[depth]
        own = nodes[depth + 1].count if depth + 1 < len(nodes) else 0
        longest = _longest(node)
        # One that is longer by one only would take the place back at once.
        if longest.count <= own + 1:
            raise QueueFull
        for _ in lane[depth + 1 :]:
            longest = _longest(longest)
        evicted: _T = next(reversed(longest.items))
        self.discard(evicted)
        return evicted


def _longest(node: _Node) -> _Node:
    return max(node.nodes(), key=lambda below: below.count)
