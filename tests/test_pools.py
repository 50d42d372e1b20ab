"""
Tests of places that sources share.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.pools import Pool, Reclaimable


def fill(pool: Pool, *sources: str) -> None:
    """
    Have each source, in turn, take all it gets.
    """
    while any(pool.has_room(source) for source in sources):
        for source in sources:
            if pool.has_room(source):
                pool.take(source)


class PoolTests(SynchronousTestCase):
    """
    How many places a source gets.
    """

    def test_alone(self) -> None:
        """
        A source that wants all gets two thirds, and some are left.
        """
        pool = Pool(300)
        fill(pool, "one")
        self.assertEqual(pool.of("one"), 200)
        fill(pool, "two")
        self.assertEqual(pool.of("two"), 67)
        self.assertTrue(pool.has_room("three"))

    def test_many(self) -> None:
        """
        Sources that want all get the same.
        """
        pool = Pool(300)
        fill(pool, "one", "two")
        self.assertEqual((pool.of("one"), pool.of("two")), (120, 120))

    def test_small(self) -> None:
        """
        A single place is for whoever comes.
        """
        pool = Pool(1)
        fill(pool, "one")
        self.assertEqual((pool.taken, pool.is_full()), (1, True))
        self.assertFalse(pool.has_room("two"))
        pool.give_back("one")
        self.assertTrue(pool.has_room("two"))
        self.assertEqual(pool.sources, 0)

    def test_beside(self) -> None:
        """
        Places that others have, elsewhere, are not free.
        """
        pool = Pool(10)
        self.assertTrue(pool.has_room("one", 9))
        self.assertFalse(pool.has_room("one", 10))
        self.assertTrue(pool.is_full(10))

    def test_most_of_source(self) -> None:
        """
        A source may have a limit of its own.
        """
        pool = Pool(300, 5)
        fill(pool, "one")
        self.assertEqual(pool.of("one"), 5)

    @settings(deadline=None, max_examples=50)
    @given(st.integers(1, 200), st.lists(st.sampled_from("abcdef"), max_size=400))
    def test_something_is_left(self, most: int, sources: list[str]) -> None:
        """
        Whoever wants how many, no more are taken than there are, and a source
        that has none gets one while any is free.
        """
        pool = Pool(most)
        for source in sources:
            if pool.has_room(source):
                pool.take(source)
        self.assertLessEqual(pool.taken, most)
        self.assertEqual(pool.has_room("new"), pool.taken < most)


class ReclaimableTests(SynchronousTestCase):
    """
    What goes where there is no room.
    """

    def test_own_first(self) -> None:
        """
        The oldest of the source that wants one more has to go.
        """
        things: Reclaimable[str] = Reclaimable(Pool(6))
        self.assertIsNone(things.add("b1", "b"))
        for number in range(1, 5):
            things.add(f"a{number}", "a")
        self.assertEqual(things.add("a5", "a"), "a1")
        self.assertEqual(things.add("a6", "a"), "a2")
        self.assertEqual(list(things), ["b1", "a3", "a4", "a5", "a6"][: len(things)])

    def test_oldest_of_all(self) -> None:
        """
        For a source that has none it is the oldest of all.
        """
        things: Reclaimable[str] = Reclaimable(Pool(3))
        for source in "abc":
            things.add(source, source)
        self.assertEqual(things.add("d", "d"), "a")
        self.assertEqual(list(things), ["b", "c", "d"])

    def test_gone(self) -> None:
        """
        What is gone makes room, and may go twice.
        """
        things: Reclaimable[str] = Reclaimable(Pool(1))
        things.add("a", "a")
        things.discard("a")
        things.discard("a")
        self.assertIsNone(things.add("b", "b"))
        self.assertEqual(things.pool.taken, 1)
