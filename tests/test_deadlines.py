"""
Many deadlines share a delayed call, and each is as exact as with its own.
"""

from __future__ import annotations

from functools import partial

from hypothesis import given
from hypothesis import strategies as st

from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.deadlines import Deadline, Deadlines


class DeadlinesTests(SynchronousTestCase):
    """
    Deadlines that pass, and those that are called off.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.deadlines = Deadlines(self.clock)
        self.late: list[object] = []

    def begin(self, name: object, seconds: float = 10) -> Deadline:
        return self.deadlines.within(seconds, lambda: self.late.append(name))

    def test_too_late(self) -> None:
        """
        Each is told when its own time has passed, not before.
        """
        first = self.begin("first")
        self.clock.advance(4)
        second = self.begin("second")
        self.clock.advance(5.9)
        self.assertEqual(self.late, [])
        self.clock.advance(0.1)
        self.assertEqual(self.late, ["first"])
        self.assertFalse(first.active())
        self.assertTrue(second.active())
        self.clock.advance(4)
        self.assertEqual(self.late, ["first", "second"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_called_off(self) -> None:
        """
        Who has called it off, once or more often, is not told, and nothing of
        it is left.
        """
        deadline = self.begin("first")
        deadline.cancel()
        deadline.cancel()
        self.assertFalse(deadline.active())
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.clock.advance(20)
        self.assertEqual(self.late, [])

    def test_first_called_off(self) -> None:
        """
        When the first one is called off the others are still told in time.
        """
        first = self.begin("first")
        self.clock.advance(1)
        self.begin("second")
        first.cancel()
        self.clock.advance(9.5)
        self.assertEqual(self.late, [])
        self.clock.advance(0.5)
        self.assertEqual(self.late, ["second"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_one_delayed_call(self) -> None:
        """
        However many there are of one length, there is one delayed call.
        """
        deadlines = [self.begin(number) for number in range(100)]
        self.begin("shorter", 5)
        self.assertEqual(len(self.clock.getDelayedCalls()), 2)
        for deadline in deadlines:
            deadline.cancel()
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)

    def test_late_ones_begin_others(self) -> None:
        """
        Who is told may begin another, and call off one that is late as well.
        """

        def too_late() -> None:
            self.late.append("first")
            second.cancel()
            self.begin("third")

        self.deadlines.within(10, too_late)
        second = self.begin("second")
        self.clock.advance(10)
        self.assertEqual(self.late, ["first"])
        self.clock.advance(10)
        self.assertEqual(self.late, ["first", "third"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_fault(self) -> None:
        """
        One that fails takes no other along.
        """

        def fail() -> None:
            raise RuntimeError("on purpose")

        self.deadlines.within(10, fail)
        self.begin("second")
        self.assertRaises(RuntimeError, self.clock.advance, 10)
        self.clock.advance(0)
        self.assertEqual(self.late, ["second"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["begin", "call off", "wait"]),
                st.integers(0, 5),
                st.sampled_from([1.0, 3.0]),
            ),
            max_size=40,
        )
    )
    def test_as_with_own_calls(self, history: list[tuple[str, int, float]]) -> None:
        """
        Whatever begins and is called off, the same are told in the same second
        as with a delayed call for each.
        """
        clock = Clock()
        deadlines = Deadlines(clock)
        told: list[tuple[int, float]] = []
        expected: list[tuple[int, float]] = []

        def note(notes: list[tuple[int, float]], name: int) -> None:
            notes.append((name, clock.seconds()))

        ours: list[Deadline] = []
        theirs: list[IDelayedCall] = []
        for what, number, seconds in history:
            if what == "begin":
                name = len(ours)
                ours.append(deadlines.within(seconds, partial(note, told, name)))
                theirs.append(clock.callLater(seconds, note, expected, name))
            elif what == "wait":
                for _ in range(number):
                    clock.advance(0.5)
            elif ours:
                ours[number % len(ours)].cancel()
                call = theirs[number % len(theirs)]
                if call.active():
                    call.cancel()
        for _ in range(7):
            clock.advance(0.5)
        self.assertEqual(sorted(told), sorted(expected))
        self.assertEqual(clock.getDelayedCalls(), [])
