"""
Tests for L{relaytunnel.relay.fairqueue}.
"""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.relay.fairqueue import Backlog, FairQueue


class FairQueueTests(SynchronousTestCase):
    """
    Who is taken next.
    """

    def queue(self, items: str) -> FairQueue[str]:
        """
        @param items: words, the first letter of each its source.
        """
        queue: FairQueue[str] = FairQueue()
        for item in items.split():
            queue.add(item[0], item)
        return queue

    def taken(self, queue: FairQueue[str], passed_over: str = "") -> str:
        """
        @return: all that can be taken, in order.
        """
        found = []
        while (item := queue.take(lambda item: item[0] not in passed_over)) is not None:
            found.append(item)
        return " ".join(found)

    def test_in_turn(self) -> None:
        """
        Sources take turns, however many items one has; those of one go in order.
        """
        queue = self.queue("a1 a2 a3 a4 b1 b2 c1")
        self.assertTrue(queue)
        self.assertEqual(self.taken(queue), "a1 b1 c1 a2 b2 a3 a4")
        self.assertFalse(queue)

    def test_comes_later(self) -> None:
        """
        A source that comes later has its turn with the next round.
        """
        queue = self.queue("a1 a2 a3")
        queue.take(lambda item: True)
        queue.add("b", "b1")
        self.assertEqual(self.taken(queue), "a2 b1 a3")

    def test_passed_over(self) -> None:
        """
        Who may not go keeps its place, and holds nobody up.
        """
        queue = self.queue("a1 a2 b1 b2")
        self.assertEqual(self.taken(queue, "a"), "b1 b2")
        self.assertEqual(self.taken(queue), "a1 a2")

    def test_remove(self) -> None:
        """
        Items leave from anywhere.
        """
        queue = self.queue("a1 a2 a3 b1")
        for item in ("a2", "b1"):
            queue.remove(item[0], item)
        self.assertEqual(self.taken(queue), "a1 a3")


class BacklogTests(SynchronousTestCase):
    """
    Who pays when there is no more room.
    """

    def test_largest_pays(self) -> None:
        """
        The last item of the source that has the most pays for one that has less.
        """
        backlog: Backlog[str] = Backlog()
        for item in ("a1", "b1", "b2", "b3"):
            backlog.add(item[0], item)
        self.assertEqual(backlog.newest_of_largest("a"), "b3")
        self.assertEqual(backlog.newest_of_largest("c"), "b3")
        self.assertIsNone(backlog.newest_of_largest("b"))
        backlog.remove("b", "b3")
        # Nobody pays for one that would have as much.
        self.assertIsNone(backlog.newest_of_largest("a"))
        self.assertEqual(backlog.newest_of_largest("c"), "b2")

    def test_weights(self) -> None:
        """
        One large item may be more than several small ones.
        """
        backlog: Backlog[str] = Backlog()
        backlog.add("a", "a1", 5)
        for item in ("b1", "b2", "b3"):
            backlog.add("b", item)
        self.assertEqual(backlog.newest_of_largest("b"), "a1")
        self.assertIsNone(backlog.newest_of_largest("c", 5))

    @settings(deadline=None, max_examples=100)
    @given(st.integers(0, 1 << 30))
    def test_any_history(self, seed: int) -> None:
        """
        Whatever comes and goes, the largest source is known.
        """
        chance = random.Random(seed)
        backlog: Backlog[int] = Backlog()
        there: dict[int, tuple[str, int]] = {}
        for number in range(120):
            if there and chance.random() < 0.5:
                gone = chance.choice(list(there))
                backlog.remove(there.pop(gone)[0], gone)
            else:
                source, weight = chance.choice("abcd"), chance.choice((1, 1, 2, 9))
                backlog.add(source, number, weight)
                there[number] = (source, weight)
            weights: Counter[str] = Counter()
            for source, weight in there.values():
                weights[source] += weight
            self.assertEqual(len(backlog), len(there))
            found = backlog.newest_of_largest("e", 0)
            if not there:
                self.assertIsNone(found)
                continue
            assert found is not None
            largest = there[found][0]
            self.assertEqual(weights[largest], max(weights.values()))
            self.assertEqual(
                found, max(n for n, (source, _) in there.items() if source == largest)
            )
        for number, (source, _) in there.items():
            backlog.remove(source, number)
        self.assertEqual((backlog._items, backlog._weights, backlog._sources), ({}, {}, {}))
