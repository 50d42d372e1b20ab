"""
Tests of looking again at who is present when accounts have changed.
"""

from __future__ import annotations

from functools import partial
from typing import cast

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.accounts.model import Account, IAccounts, Rights
from relaytunnel.errors import AccountError, Code
from relaytunnel.relay.claims import Reservations
from relaytunnel.relay.rechecking import Rechecking
from relaytunnel.relay.registry import Agent, Registry, RightsView

OFFICE = Rights(("web",), ())


class FakeAccounts:
    """
    Accounts that say what a test tells them to.
    """

    def __init__(self) -> None:
        self.now: int | AccountError = 1
        self.known: dict[str, Rights] = {"office": OFFICE}

    def revision(self) -> Deferred[int]:
        return fail(self.now) if isinstance(self.now, AccountError) else succeed(self.now)

    def agents(self) -> Deferred[list[Account]]:
        return succeed([Account(agent, rights) for agent, rights in self.known.items()])


class RecheckingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.accounts = FakeAccounts()
        self.seen: list[tuple[str, Code | RightsView]] = []
        registry = Registry()
        for name in ("office", "shed"):
            registry.agents[name] = Agent(
                name,
                1,
                OFFICE,
                lambda message: None,
                partial(self._dismiss, name),
                partial(self._recheck, name),
                peer="192.0.2.1:4000",
            )
        self.reservations = Reservations()
        self.rechecking = Rechecking(
            self.clock, cast(IAccounts, self.accounts), registry, self.reservations
        )
        self.rechecking.start()
        self.addCleanup(self.rechecking.stop)

    def _dismiss(self, name: str, code: Code, reason: str) -> None:
        self.seen.append((name, code))

    def _recheck(self, name: str, rights: RightsView) -> None:
        self.seen.append((name, rights))

    def test_nothing_has_changed(self) -> None:
        """
        Nobody is looked at while the revision is the same.
        """
        self.clock.pump([0.5] * 10)
        self.assertEqual(self.seen, [])

    def test_another_revision(self) -> None:
        """
        Within half a second, who has no account any more has to go, and the
        others hear of their rights, once.
        """
        self.accounts.now = 2
        self.clock.pump([0.5] * 3)
        self.assertEqual(self.seen, [("office", OFFICE), ("shed", Code.REVOKED)])

    def test_reservations(self) -> None:
        """
        What accounts have a right to is known, also of those who are not here.
        """
        self.accounts.known["away"] = Rights(hosts=("www.example.net",))
        self.accounts.now = 2
        self.clock.advance(0.5)
        self.assertTrue(self.reservations.claim("www.example.net", "office"))
        self.assertFalse(self.reservations.claim("www.example.net", "away"))
        del self.accounts.known["away"]
        self.accounts.now = 3
        self.clock.advance(0.5)
        self.assertFalse(self.reservations.claim("www.example.net", "office"))

    def test_no_answer(self) -> None:
        """
        Accounts that do not answer are named in the log, once, and change
        nothing; when they answer again everybody is looked at, since what was
        missed cannot be known.
        """
        self.accounts.now = AccountError("the disk is gone")
        with capturedLogs() as logged:
            self.clock.pump([0.5] * 4)
        told = [event for event in logged if event["log_level"] is LogLevel.error]
        self.assertEqual([event["fault"] for event in told], ["the disk is gone"])
        self.assertEqual(self.seen, [])
        self.accounts.now = 1
        self.clock.pump([0.5] * 3)
        self.assertEqual(self.seen, [("office", OFFICE), ("shed", Code.REVOKED)])

    def test_said_again(self) -> None:
        """
        A second silence is in the log like the first.
        """
        with capturedLogs() as logged:
            for now in (AccountError("one"), 1, AccountError("two")):
                self.accounts.now = now
                self.clock.advance(0.5)
        self.assertEqual([event["fault"] for event in logged], ["one", "two"])

    def test_stopped(self) -> None:
        """
        After the end nothing is asked, and no delayed call is left; it may be
        stopped twice.
        """
        self.rechecking.stop()
        self.rechecking.stop()
        self.accounts.now = 2
        self.clock.advance(5)
        self.assertEqual(self.seen, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])
