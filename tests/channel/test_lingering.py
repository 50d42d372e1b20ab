"""
How long a peer that is being left is waited for.
"""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.channel.lingering import Lingering
from relaytunnel.config.limits import Limits


class LingeringTests(SynchronousTestCase):
    """
    A peer that has so many bytes to take.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.left = 100
        self.looks = 0
        self.over: list[bool] = []
        limits = Limits(linger_idle=5, linger=30)
        self.lingering = Lingering(self.clock, limits, self.look, self.over.append)

    def look(self) -> int:
        self.looks += 1
        return self.left

    def pass_time(self, seconds: float) -> None:
        self.clock.pump([0.01] * round(seconds * 100))

    def test_all_taken(self) -> None:
        """
        When everything is taken it is over at once, and nobody looks again.
        """
        self.left = 0
        self.lingering.look()
        self.lingering.look()
        self.assertEqual((self.over, self.looks), ([True], 1))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_noticed_soon(self) -> None:
        """
        Whenever that is, it is noticed within a quarter of a second; and it is
        not looked for more often than that if it takes long.
        """
        self.lingering.look()
        self.pass_time(4)
        self.assertLess(self.looks, 30)
        self.left = 0
        self.pass_time(0.26)
        self.assertEqual(self.over, [True])

    def test_nothing_taken(self) -> None:
        """
        Where nothing is taken for the idle limit, that was all.
        """
        self.lingering.look()
        self.pass_time(4.5)
        self.left = 99
        self.pass_time(4.5)
        self.assertEqual(self.over, [])
        self.pass_time(1)
        self.assertEqual(self.over, [False])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_taken_slowly(self) -> None:
        """
        Who takes some now and then has the whole limit, and no more.
        """
        self.lingering.look()
        for _ in range(29):
            self.pass_time(1)
            self.left -= 1
        self.assertEqual(self.over, [])
        self.pass_time(1.5)
        self.assertEqual(self.over, [False])

    def test_stop(self) -> None:
        """
        Whoever has stopped it hears nothing.
        """
        self.lingering.look()
        self.lingering.stop()
        self.left = 0
        self.lingering.look()
        self.pass_time(40)
        self.assertEqual((self.over, self.looks), ([], 1))
