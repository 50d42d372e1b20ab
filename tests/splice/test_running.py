"""
One timer looks at all splices; what is quiet for too long is ended.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.config.limits import Limits
from relaytunnel.splice.report import CLOSED, FAILED, HALF_CLOSED_IDLE, IDLE, SpliceReport
from relaytunnel.splice.running import Rounds, RunningSplice


class _Leg:
    count = 0


class _Splice(RunningSplice):
    """
    A splice without channels.
    """

    reset = 0

    def __init__(self, round_: Any) -> None:
        super().__init__(round_)
        self.first, self.second = _Leg(), _Leg()
        self.reports: list[SpliceReport] = []
        self.done.addCallback(self.reports.append)

    def _end_both(self) -> None:
        self.reset += 1


class _Lingering:
    """
    A channel that lingers.
    """

    def __init__(self, gone: Any = lambda _: None) -> None:
        self.aborted = 0
        self._gone = gone

    def abort(self) -> None:
        self.aborted += 1
        self._gone(self)


class RunningTests(SynchronousTestCase):
    """
    Splices without bytes, and with some.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.limits = Limits(idle=100, half_closed=20)
        self.rounds = Rounds()

    def start(self) -> _Splice:
        return _Splice(self.rounds.of(self.limits, self.clock))

    def pass_time(self, seconds: int) -> None:
        for _ in range(seconds):
            self.clock.advance(1)

    def test_idle(self) -> None:
        """
        It is ended when nothing has moved for the idle limit, and a look later
        at the most.
        """
        splice = self.start()
        self.pass_time(99)
        self.assertEqual((splice.reset, splice.reports), (0, []))
        self.pass_time(6)
        self.assertEqual(splice.reset, 1)
        self.assertEqual([each.reason for each in splice.reports], [IDLE])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_busy(self) -> None:
        """
        A byte in either direction, and it begins anew.
        """
        splice = self.start()
        for leg in (splice.first, splice.second, splice.first):
            self.pass_time(90)
            leg.count += 1
        self.pass_time(90)
        self.assertEqual(splice.reset, 0)
        self.assertEqual((splice.forward, splice.backward), (2, 1))
        splice.close()

    def test_half_closed(self) -> None:
        """
        There is less patience once a direction has ended.
        """
        splice = self.start()
        self.pass_time(50)
        splice.half_closed()
        self.pass_time(19)
        self.assertEqual(splice.reset, 0)
        self.pass_time(6)
        self.assertEqual([each.reason for each in splice.reports], [HALF_CLOSED_IDLE])

    def test_close(self) -> None:
        """
        It is ended from outside, once, and says how long it was.
        """
        splice = self.start()
        self.pass_time(7)
        splice.first.count = 3
        splice.close()
        splice.close()
        self.assertEqual(splice.reset, 1)
        self.assertEqual(splice.reports, [SpliceReport(3, 0, CLOSED, 7)])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_one_that_fails(self) -> None:
        """
        One that cannot be ended is over, and those behind it are looked at.
        """
        failing, other = self.start(), self.start()

        def fails() -> None:
            raise ArithmeticError("our own fault")

        failing._end_both = fails  # type: ignore[method-assign]
        self.pass_time(126)
        self.assertEqual([each.reason for each in failing.reports], [FAILED])
        self.assertEqual([each.reason for each in other.reports], [IDLE])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(len(self.flushLoggedErrors(ArithmeticError)), 2)

    def test_until_the_last_channel_is_gone(self) -> None:
        """
        It is not reported, so it counts, while one of its channels lingers;
        how long it was includes that.
        """
        splice = self.start()
        one, two = _Lingering(), _Lingering()
        splice.leaving(one)
        splice.leaving(two)
        splice.over("first reset")
        self.pass_time(3)
        splice.left(two)
        self.assertEqual(splice.reports, [])
        self.pass_time(4)
        splice.left(one)
        splice.close()
        self.assertEqual(splice.reports, [SpliceReport(0, 0, "first reset", 7)])
        self.assertEqual((one.aborted, two.aborted), (0, 0))

    def test_close_while_one_lingers(self) -> None:
        """
        Closed from outside, a channel that lingers is aborted, and says so.
        """
        splice = self.start()
        one = _Lingering(splice.left)
        splice.leaving(one)
        splice.over("second reset")
        splice.close()
        self.assertEqual((one.aborted, splice.reset), (1, 0))
        self.assertEqual([each.reason for each in splice.reports], ["second reset"])

    def test_one_timer(self) -> None:
        """
        However many there are, one delayed call looks at all of them.
        """
        splices = [self.start() for _ in range(100)]
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        for splice in splices:
            splice.close()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_other_limits(self) -> None:
        """
        Splices with other limits, as after a change of them, have a round of
        their own, which goes when it is empty.
        """
        before = self.rounds.of(self.limits, self.clock)
        old = _Splice(before)
        new = self.rounds.of(Limits(idle=5, half_closed=5), self.clock)
        self.assertIsNot(new, before)
        self.assertIs(self.rounds.of(self.limits, self.clock), before)
        old.close()
        self.rounds.of(Limits(idle=6, half_closed=6), self.clock)
        self.assertIsNot(self.rounds.of(self.limits, self.clock), before)
