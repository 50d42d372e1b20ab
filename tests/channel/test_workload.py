"""
Tests for L{relaytunnel.channel.workload}.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.channel import workload
from relaytunnel.channel.workload import Allowance, Workload

EACH_TURN = workload._EACH_TURN


class AllowanceTests(SynchronousTestCase):
    """
    What a channel may do by itself.
    """

    def test_burst_and_rate(self) -> None:
        """
        At first it is the burst, then what the rate gives, and never more than
        the burst; what was done on credit is made good first.
        """
        clock = Clock()
        allowance = Allowance(clock)
        self.assertEqual(allowance.left(), workload._BURST)
        allowance.spend(workload._BURST + 10)
        self.assertEqual(allowance.left(), -10)
        clock.advance(10 / workload._RATE)
        self.assertAlmostEqual(allowance.left(), 0)
        clock.advance(3600)
        self.assertEqual(allowance.left(), workload._BURST)

    def test_of_all(self) -> None:
        """
        That of all channels is larger, and not as much as that of all of many.
        """
        clock = Clock()
        of_all = Workload(clock).allowance
        self.assertEqual(of_all.left(), workload._BURST_OF_ALL)
        of_all.spend(2 * workload._BURST_OF_ALL)
        clock.advance(workload._BURST_OF_ALL / workload._RATE_OF_ALL)
        self.assertAlmostEqual(of_all.left(), 0)


class _Worker:
    """
    A worker with so many things to do, of so many units each.
    """

    def __init__(
        self, name: str, done: list[str], things: int, units: int, credit: Allowance
    ) -> None:
        self.name = name
        self.credit = credit
        self._done = done
        self.things = things
        self._units = units

    def work(self, units: int) -> tuple[int, bool]:
        took = 0
        while took < units and self.things:
            self._done.append(self.name)
            took += self._units
            self.things -= 1
        return took, bool(self.things)


class _Turns(Clock):
    """
    A clock whose calls of no delay come a turn later each, as a reactor's do.

    @ivar pause: how long a turn takes.
    """

    pause = workload._PAUSE

    def turn(self) -> None:
        """
        Let the next turn come.
        """
        self.advance(self.pause)

    def callLater(
        self,
        delay: float,
        callable: Callable[..., object],  # noqa: A002
        *args: object,
        **kw: object,
    ) -> Any:
        return super().callLater(max(delay, self.pause), callable, *args, **kw)


class WorkloadTests(SynchronousTestCase):
    """
    Who works when.
    """

    def setUp(self) -> None:
        self.clock = _Turns()
        self.workload = Workload(self.clock)
        self.done: list[str] = []

    def add(self, name: str, things: int, units: int = 1) -> _Worker:
        worker = _Worker(name, self.done, things, units, self.workload.new_credit())
        self.workload.add(worker)
        return worker

    def turn(self) -> str:
        """
        @return: who did something in the next turn.
        """
        self.done.clear()
        self.clock.turn()
        return "".join(self.done)

    def idle(self) -> None:
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_little_each_turn(self) -> None:
        """
        One with much to do does a little of it in each turn, and nothing
        before the next one.
        """
        self.add("a", 2 * EACH_TURN + 1)
        self.assertEqual(self.done, [])
        self.assertEqual(
            [self.turn(), self.turn(), self.turn()], ["a" * EACH_TURN, "a" * EACH_TURN, "a"]
        )
        self.idle()

    def test_together(self) -> None:
        """
        However many there are, they do no more in a turn, and take turns.
        """
        for name in "abc":
            self.add(name, 2 * EACH_TURN)
        turns = [self.turn() for _ in range(6)]
        self.assertEqual(turns, [name * EACH_TURN for name in "abcabc"])
        self.idle()

    def test_small_ones_share_a_turn(self) -> None:
        """
        Those that have little left make room for the next.
        """
        for name in "abc":
            self.add(name, 3)
        self.assertEqual(self.turn(), "aaabbbcc")
        self.assertEqual(self.turn(), "c")
        self.idle()

    def test_debt(self) -> None:
        """
        One thing that took more than a turn has makes the next turns shorter,
        or empty.
        """
        self.add("a", 3, 2 * EACH_TURN)
        self.assertEqual([self.turn() for _ in range(5)], ["a", "", "a", "", "a"])
        self.idle()

    def test_without_credit(self) -> None:
        """
        One that has done more than it has credit for has longer pauses, in
        which others work as before; in the end it is done, too.
        """
        self.clock.pause = workload._PAUSE / 4
        flood = _Worker("f", self.done, 3 * EACH_TURN, 1, self.workload.new_credit())
        flood.credit.spend(workload._CREDIT + 3)
        self.workload.add(flood)
        turns = [self.turn()]
        self.add("a", 3 * EACH_TURN)
        turns += [self.turn() for _ in range(12)]
        self.assertEqual("".join(turns).count("f"), 3 * EACH_TURN)
        self.assertEqual("".join(turns).count("a"), 3 * EACH_TURN)
        self.assertEqual(turns[:4], ["f" * EACH_TURN] + ["a" * EACH_TURN] * 3)
        self.idle()

    def test_credit_again(self) -> None:
        """
        After a while of silence it has credit again.
        """
        flood = self.add("f", 1)
        flood.credit.spend(2 * workload._CREDIT)
        self.turn()
        self.idle()
        self.clock.advance(3 * workload._CREDIT / workload._CREDIT_RATE)
        self.assertEqual(flood.credit.left(), workload._CREDIT)

    def test_removed(self) -> None:
        """
        Who has nothing to do any more is not asked.
        """
        a, b = self.add("a", 100), self.add("b", 1)
        self.workload.remove(a)
        self.workload.remove(a)
        self.assertEqual(self.turn(), "b")
        self.workload.add(b)
        self.workload.remove(b)
        self.idle()
