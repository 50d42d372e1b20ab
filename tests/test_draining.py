"""
Tests for L{relaytunnel.draining}.
"""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.draining import quiet


class QuietTests(SynchronousTestCase):
    """
    Waiting for up to 10 s.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.over = False
        self.waiting = quiet(self.clock, lambda: self.over, 10)

    def tearDown(self) -> None:
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_over(self) -> None:
        """
        It fires soon after the thing is over.
        """
        self.clock.pump([0.1] * 20)
        self.assertNoResult(self.waiting)
        self.over = True
        self.clock.pump([0.1])
        self.assertTrue(self.successResultOf(self.waiting))

    def test_time_is(self) -> None:
        """
        It fires when the time is over, and says that the thing is not.
        """
        self.clock.pump([0.1] * 101)
        self.assertFalse(self.successResultOf(self.waiting))

    def test_at_once(self) -> None:
        """
        What is over already is not waited for.
        """
        self.assertTrue(self.successResultOf(quiet(self.clock, lambda: True, 10)))
        self.waiting.cancel()

    def test_cancelled(self) -> None:
        """
        Whoever does not want to wait any more cancels it, and is told how things
        stand.
        """
        self.waiting.cancel()
        self.assertFalse(self.successResultOf(self.waiting))
