"""
Turns, and room, in a queue that is fair.
"""

from __future__ import annotations

import contextlib
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.accounts.fairness import FairQueue, QueueFull

WIDE = (1000, 1000, 1000)


class TurnTests(SynchronousTestCase):
    """
    Who is next.
    """

    def setUp(self) -> None:
        self.queue: FairQueue[str] = FairQueue(WIDE)

    def fill(self, lanes: str, of_each: int) -> None:
        """
        Put so many items in each of these lanes: C{"A1"} is the one of the
        source 1 at the server A.
        """
        for lane in lanes.split():
            for number in range(of_each):
                self.queue.add((lane[0], lane[1]), f"{lane}.{number}")

    def taken(self) -> str:
        """
        @return: all that is left, in the order in which it comes.
        """
        items = []
        while (item := self.queue.take()) is not None:
            items.append(item)
        return " ".join(items)

    def test_one_lane(self) -> None:
        """
        In a lane the first that came is the first that goes.
        """
        self.fill("A1", 3)
        self.assertEqual(self.taken(), "A1.0 A1.1 A1.2")

    def test_turns(self) -> None:
        """
        Sources of a server take turns.
        """
        self.fill("A1 A2", 2)
        self.assertEqual(self.taken(), "A1.0 A2.0 A1.1 A2.1")

    def test_turns_at_each_level(self) -> None:
        """
        Servers take turns, too, however many sources one of them has.
        """
        self.fill("A1 A2 A3 B1", 2)
        self.assertEqual(self.taken(), "A1.0 B1.0 A2.0 B1.1 A3.0 A1.1 A2.1 A3.1")

    def test_newcomer(self) -> None:
        """
        One who comes when many of others wait is before all that have had a
        turn in this round.
        """
        self.fill("A1 B1 C1", 100)
        for taken in range(20, 30):
            for _ in range(taken):
                self.queue.take()
            self.queue.add((f"N{taken}", "1"), "newcomer")
            waited = 1
            while self.queue.take() != "newcomer":
                waited += 1
            self.assertLessEqual(waited, 3)

    def test_comes_back(self) -> None:
        """
        One that had a turn in this round gets no more of them by coming again
        and again with a single item.
        """
        self.fill("A1 B1", 10)
        order = []
        for number in range(9):
            self.queue.add(("C", "1"), f"C{number}")
            while True:
                order.append(str(self.queue.take())[0])
                if order[-1] == "C":
                    break
        self.assertLessEqual(order.count("C"), min(order.count("A"), order.count("B")) + 1)

    def test_without_number(self) -> None:
        """
        Keys that come without number do not keep one from its next turn.
        """
        self.fill("A1", 2)
        self.queue.take()
        for number in range(1000):
            self.queue.add((f"N{number}", "1"), f"N{number}")
            if self.queue.take() == "A1.1":
                break
        self.assertLess(number, 20)

    def test_passed_over(self) -> None:
        """
        Those of the first level that have no turn now are passed over, and
        keep their place.
        """
        self.fill("A1 B1", 1)
        self.assertEqual(self.queue.take("A"), "B1.0")
        self.assertIsNone(self.queue.take("AB"))
        self.assertEqual(self.queue.take(), "A1.0")

    def test_key_of_another_level(self) -> None:
        """
        A key of another level is none of them.
        """
        self.fill("A1", 1)
        self.assertEqual(self.queue.take("1"), "A1.0")

    def test_discarded(self) -> None:
        """
        What is taken out has no turn, and leaves nothing behind.
        """
        self.fill("A1 A2", 2)
        self.assertTrue(self.queue.discard("A1.0"))
        self.assertFalse(self.queue.discard("A1.0"))
        self.assertEqual(self.taken(), "A1.1 A2.0 A2.1")
        self.assertEqual((len(self.queue), list(self.queue._root.nodes())), (0, []))

    def test_cleared(self) -> None:
        """
        All are taken out, or some, in the order in which they came.
        """
        self.fill("A1 B1", 2)
        self.assertEqual(self.queue.clear(lambda item: item.endswith("0")), ["A1.0", "B1.0"])
        self.assertEqual(self.queue.clear(), ["A1.1", "B1.1"])
        self.assertEqual(len(self.queue), 0)

    def test_lanes_alike(self) -> None:
        """
        Each lane has as many keys as there are levels.
        """
        self.assertRaises(ValueError, self.queue.add, ("A",), "item")


class RoomTests(SynchronousTestCase):
    """
    Who gives way where there is no room.
    """

    def setUp(self) -> None:
        self.queue: FairQueue[str] = FairQueue((6, 4, 3))

    def fill(self, *items: str) -> None:
        for item in items:
            self.assertIsNone(self.queue.add((item[0], item[1]), item))

    def full(self, item: str) -> None:
        self.assertRaises(QueueFull, self.queue.add, (item[0], item[1]), item)
        self.assertNotIn(item, self.queue)

    def test_of_a_lane(self) -> None:
        """
        Of a lane that is full none gives way.
        """
        self.fill("A1a", "A1b", "A1c")
        self.full("A1d")

    def test_longest_gives_way(self) -> None:
        """
        The newest of the longest lane gives way to another lane's.
        """
        self.fill("A1a", "A1b", "A1c", "A2a")
        self.assertEqual(self.queue.add(("A", "3"), "A3a"), "A1c")
        self.assertEqual(len(self.queue), 4)

    def test_alike(self) -> None:
        """
        Where all are as long none gives way: the newcomer of one more lane
        would be put out by the next one.
        """
        self.fill("A1a", "A2a", "A3a", "A4a")
        self.full("A5a")

    def test_own_lane_is_the_longest(self) -> None:
        """
        Who has as many as the longest lane gets no more at others' expense.
        """
        self.fill("A1a", "A1b", "A2a", "A2b")
        self.full("A1c")

    def test_of_all(self) -> None:
        """
        Where all is full, the longest lane of the one that has most gives way.
        """
        self.fill("A1a", "A1b", "A2a", "A1c", "B1a", "B2a")
        self.assertEqual(self.queue.add(("C", "1"), "C1a"), "A1c")
        self.assertEqual(self.queue.add(("C", "2"), "C2a"), "A1b")
        self.full("C3a")

    @given(
        st.lists(st.tuples(st.sampled_from("AB"), st.sampled_from("123"), st.booleans())),
        st.tuples(st.integers(1, 12), st.integers(1, 6), st.integers(1, 4)),
    )
    @settings(deadline=None, max_examples=200)
    def test_whatever_comes(
        self, steps: list[tuple[str, str, bool]], bounds: tuple[int, int, int]
    ) -> None:
        """
        The bounds hold, the counts are right, and nothing is lost or comes
        twice; a lane that is refused is as long as others, or full.
        """
        queue: FairQueue[int] = FairQueue(bounds)
        there: dict[int, tuple[str, str]] = {}
        for number, (server, source, takes) in enumerate(steps):
            lane = (server, source)
            if takes:
                item = queue.take()
                self.assertEqual(item is None, not there)
                if item is not None:
                    del there[item]
            else:
                lanes = Counter(there.values())
                with contextlib.suppress(QueueFull):
                    evicted = queue.add(lane, number)
                    there[number] = lane
                    if evicted is not None:
                        # Never in favour of one who has as many.
                        self.assertTrue(
                            lanes[there.pop(evicted)] > lanes[lane]
                            or len({each[0] for each in lanes}) > 1
                        )
            self.assertEqual(len(queue), len(there))
            self.assertLessEqual(len(there), bounds[0])
            servers = Counter(lane[0] for lane in there.values())
            self.assertLessEqual(max(servers.values(), default=0), bounds[1])
            self.assertLessEqual(max(Counter(there.values()).values(), default=0), bounds[2])
        self.assertEqual(sorted(queue.clear()), sorted(there))
        self.assertEqual(list(queue._root.nodes()), [])
