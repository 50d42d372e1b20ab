"""
Accounts that stand in the configuration file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from zope.interface.verify import verifyObject

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.accounts import (
    FileAccounts,
    IAccounts,
    Rights,
    hash_chosen,
    hash_generated,
    verify,
)
from relaytunnel.accounts.fairness import Lane
from relaytunnel.errors import AccountError, Code, Rejection

CHOSEN = hash_chosen("horse", cost=2**4)


@dataclass(frozen=True)
class Entry:
    id: str
    secret_hash: str = CHOSEN
    publish: tuple[str, ...] = ()
    ports: tuple[Any, ...] = ()
    hosts: tuple[str, ...] = ()


class Span(NamedTuple):
    first: int
    last: int


class Held:
    """
    Stands for threads: keeps calls until the test lets them go.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[Deferred[Any], Any, tuple[Any, ...]]] = []
        self.lanes: list[Lane] = []

    def run(self, lane: Lane, function: Any, *args: Any) -> Deferred[Any]:
        answer: Deferred[Any] = Deferred()
        self.calls.append((answer, function, args))
        self.lanes.append(lane)
        return answer

    def let_go(self) -> None:
        answer, function, args = self.calls.pop(0)
        answer.callback(function(*args))


def at_once(lane: Lane, function: Any, *args: Any) -> Deferred[Any]:
    return succeed(function(*args))


class FileTests(SynchronousTestCase):
    """
    Accounts that stand in the configuration file.
    """

    def setUp(self) -> None:
        self.file = FileAccounts(
            [Entry("office", publish=("web", "*.office"), ports=((20, 29), Span(40, 49)))],
            at_once,
            created=7.0,
        )

    def test_interface(self) -> None:
        """
        It is what everybody takes for accounts.
        """
        self.assertTrue(verifyObject(IAccounts, self.file))

    def test_right_secret(self) -> None:
        """
        The agent is let in, with the rights of the file.
        """
        account = self.successResultOf(self.file.authenticate("office", "horse"))
        assert account is not None
        self.assertEqual(account.rights, Rights(("web", "*.office"), ((20, 29), (40, 49))))
        self.assertEqual((account.source, account.created), ("file", 7.0))

    def test_wrong_secret(self) -> None:
        """
        A wrong secret is not let in.
        """
        self.assertIsNone(self.successResultOf(self.file.authenticate("office", "house")))

    def test_unknown_agent(self) -> None:
        """
        An unknown agent is not let in, after a check of the same cost.
        """
        held = Held()
        file = FileAccounts([Entry("fast", hash_generated("x")), Entry("office")], held.run)
        answer = file.authenticate("nobody", "horse")
        (_, function, (_, stored)) = held.calls[0]
        self.assertIs(function, verify)
        self.assertEqual(stored.split(":")[:5], CHOSEN.split(":")[:5])
        held.let_go()
        self.assertIsNone(self.successResultOf(answer))

    def test_no_accounts(self) -> None:
        """
        A file without accounts lets nobody in.
        """
        self.assertIsNone(self.successResultOf(FileAccounts([], at_once).authenticate("a", "b")))

    def test_generated(self) -> None:
        """
        A stored form that costs nothing needs no thread.
        """
        held = Held()
        file = FileAccounts([Entry("office", hash_generated("horse"))], held.run)
        self.assertIsNotNone(self.successResultOf(file.authenticate("office", "horse")))
        self.assertEqual(held.calls, [])

    def test_lanes(self) -> None:
        """
        Each source takes its turn among those of its class, apart from all
        servers' clients.
        """
        held = Held()
        file = FileAccounts([Entry("office")], held.run)
        file.authenticate("office", "horse", ("known", "198.51.100.1"))
        file.authenticate("office", "house")
        self.assertEqual(held.lanes, [("", "", "known", "198.51.100.1"), ("", "", "", "")])

    def test_cancelled(self) -> None:
        """
        A check that nobody waits for any more is called off.
        """
        held = Held()
        file = FileAccounts([Entry("office")], held.run)
        answer = file.authenticate("office", "horse")
        answer.cancel()
        self.failureResultOf(answer, CancelledError)
        self.assertTrue(held.calls[0][0].called)

    def test_too_many(self) -> None:
        """
        Where there is no room for one more, that is the answer.
        """

        def full(*given: object) -> Deferred[Any]:
            raise Rejection(Code.BUSY, "too many")

        file = FileAccounts([Entry("office")], full)
        self.failureResultOf(file.authenticate("office", "horse"), Rejection)

    def test_read_only(self) -> None:
        """
        Nothing can be changed, and the error says where to.
        """
        for answer in (self.file.invite("office"), self.file.revoke("office")):
            told = str(self.failureResultOf(answer, AccountError).value)
            self.assertIn("office stands in the configuration file", told)

    def test_no_invitation(self) -> None:
        """
        A new account cannot be made in the file either.
        """
        told = str(self.failureResultOf(self.file.invite("home"), AccountError).value)
        self.assertIn("these accounts stand in the configuration file", told)
        self.assertFalse(self.successResultOf(self.file.revoke("home")))

    def test_seen(self) -> None:
        """
        When an agent was last here is listed.
        """
        self.successResultOf(self.file.seen("office", 9.0))
        self.successResultOf(self.file.seen("nobody", 9.0))
        listed = self.successResultOf(self.file.agents())
        self.assertEqual([(found.agent, found.last_seen) for found in listed], [("office", 9.0)])

    def test_bad_entries(self) -> None:
        """
        An entry that can never be used is an error that names the agent.
        """
        for entries in (
            [Entry("office", "secret in clear")],
            [Entry("office", publish=("w*b",))],
            [Entry("office", ports=((9, 1),))],
            [Entry("office"), Entry("office")],
        ):
            with self.assertRaises(AccountError) as caught:
                FileAccounts(entries, at_once)
            self.assertIn("agent office", str(caught.exception))
            self.assertNotIn("in clear", str(caught.exception))
