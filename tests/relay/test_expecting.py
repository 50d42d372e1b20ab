"""
Tests for L{relaytunnel.relay.expecting}.
"""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.relay.expecting import Expectation


class ExpectationTests(SynchronousTestCase):
    """
    Two agents are expected within 10 s.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.ended: list[float] = []
        self.looked: list[bool] = []
        self.expected = Expectation(
            self.clock, ["office", "home"], 10, lambda: self.ended.append(self.clock.seconds())
        )

    def pass_time(self, seconds: float) -> None:
        self.clock.pump([0.01] * round(seconds / 0.01))

    def test_server_came(self) -> None:
        """
        Whoever waits looks again when a server has come, in the next turn.
        """
        self.expected.wait("client", self.looked.append)
        self.expected.server_came()
        self.assertEqual(self.looked, [])
        self.clock.advance(0.05)
        self.assertEqual(self.looked[:1], [False])

    def test_now_and_then(self) -> None:
        """
        It looks again now and then anyway, until it is forgotten.
        """
        self.expected.wait("client", self.looked.append)
        self.pass_time(1)
        self.assertGreater(len(self.looked), 5)
        self.expected.forget("client")
        self.looked.clear()
        self.pass_time(1)
        self.assertEqual(self.looked, [])

    def test_never_come(self) -> None:
        """
        When the time is over it looks a last time.
        """
        self.expected.wait("client", self.looked.append)
        self.pass_time(10.1)
        self.assertEqual(self.looked[-1], True)
        self.assertEqual(self.looked.count(True), 1)
        self.assertTrue(self.expected.over)
        self.assertEqual(len(self.ended), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_all_are_here(self) -> None:
        """
        It is over a moment after the last agent has come.
        """
        self.expected.agent_came("office")
        self.expected.agent_came("somebody else")
        self.pass_time(2)
        self.assertEqual(self.ended, [])
        self.expected.agent_came("home")
        self.pass_time(0.4)
        self.assertEqual(self.ended, [])
        self.pass_time(0.2)
        self.assertEqual(len(self.ended), 1)

    def test_nobody(self) -> None:
        """
        Where no agent was, nobody is waited for longer than that.
        """
        ended: list[bool] = []
        Expectation(self.clock, [], 10, lambda: ended.append(True))
        self.clock.advance(0.6)
        self.assertEqual(ended, [True])
        self.expected.end()

    def test_ended(self) -> None:
        """
        It can be ended, once.
        """
        self.expected.wait("client", self.looked.append)
        self.expected.end()
        self.expected.end()
        self.expected.server_came()
        self.expected.agent_came("home")
        self.assertEqual(self.looked, [True])
        self.assertEqual(len(self.ended), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])
