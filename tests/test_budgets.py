"""
Tests of what descriptors are for.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.budgets import AgentBudgets, RelayBudgets
from relaytunnel.config import Limits


class RelayTests(SynchronousTestCase):
    """
    The budgets of a relay.
    """

    def test_parts(self) -> None:
        """
        All of them together are less than there are, by what ports, agents and
        accounts need; however few there are, each has some.
        """
        for descriptors in (64, 128, 256, 1024, 4096, 20_000, 1 << 20):
            budgets = RelayBudgets(Limits(), descriptors)
            unauthenticated = budgets.unauthenticated.most
            together = (
                budgets.clients.most
                + budgets.lingering.most
                + 2 * unauthenticated
                + budgets.idle.most
                + budgets.pipes.most
            )
            self.assertLess(together, 0.9 * descriptors)
            self.assertLessEqual(2 * budgets.sessions.most, budgets.clients.most)
            self.assertTrue(all(budget.most >= 1 for _, budget in budgets.rows()))

    def test_few(self) -> None:
        """
        256 are enough for fifty sessions and more, 4,096 for a thousand clients
        of one address.
        """
        self.assertGreater(RelayBudgets(Limits(), 256).sessions.most, 50)
        budgets = RelayBudgets(Limits(), 4096)
        self.assertGreater(budgets.sessions.most, 1000)
        self.assertGreaterEqual(budgets.arriving_of_source.most, 1000)

    def test_cut(self) -> None:
        """
        A limit that there are too few for is cut, and so it is said; where
        there are enough nothing is.
        """
        budgets = RelayBudgets(Limits(sessions_per_relay=500), 1024)
        self.assertEqual(budgets.limits.unauthenticated, budgets.unauthenticated.most)
        self.assertEqual(budgets.limits.sessions_per_relay, budgets.sessions.most)
        self.assertIn("in place of 512", "; ".join(budgets.cut))
        self.assertIn("in place of 500", "; ".join(budgets.cut))
        enough = RelayBudgets(Limits(), 20_000)
        self.assertEqual(enough.cut, [])
        self.assertEqual(enough.unauthenticated, (512, "[limits] unauthenticated"))

    def test_any_number(self) -> None:
        """
        Where there may be any number only the limits bound.
        """
        budgets = RelayBudgets(Limits(), None)
        self.assertEqual(budgets.cut, [])
        self.assertEqual(budgets.limits.unauthenticated, 512)


class AgentTests(SynchronousTestCase):
    """
    The budgets of an agent.
    """

    def test_parts(self) -> None:
        """
        They are within what there is.
        """
        for descriptors in (64, 256, 1024, 1 << 20):
            budgets = AgentBudgets(Limits(), descriptors)
            together = 2 * budgets.sessions.most + budgets.parked.most + budgets.pipes.most
            self.assertLess(together, 0.9 * descriptors)
            self.assertTrue(all(budget.most >= 1 for _, budget in budgets.rows()))

    def test_limit(self) -> None:
        """
        The limit of the configuration holds where it is less.
        """
        budgets = AgentBudgets(Limits(sessions_per_agent=7), 1024)
        self.assertEqual(budgets.sessions, (7, "[limits] sessions-per-agent"))
        self.assertEqual(len(AgentBudgets(Limits(), 1024).cut), 1)
