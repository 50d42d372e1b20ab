"""
Comparing passwords without holding anybody up.
"""

from __future__ import annotations

import threading
from typing import Any, cast

from twisted.internet import reactor as _reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from relaytunnel.accounts import passwords as passwords_module
from relaytunnel.accounts.fairness import Lane
from relaytunnel.accounts.hashing import Hashing, hashing_threads
from relaytunnel.accounts.passwords import Passwords
from relaytunnel.accounts.secrets import hash_chosen, hash_generated, is_slow
from relaytunnel.errors import AccountError, Code, Rejection

reactor = cast(Any, _reactor)

CHOSEN = hash_chosen("pass", cost=2**10)
USERS = {"alice": CHOSEN}
SOURCE = "203.0.113.9"
SERVER = ("agent", "web")


class HeldHashing:
    """
    Compares when it is told to.

    @ivar calls: what was to be compared, and what waits for it.
    @ivar lanes: in which lanes.
    @ivar cancelled: what is not to be compared any more.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, Deferred[bool]]] = []
        self.lanes: list[Lane] = []
        self.cancelled: list[str] = []

    def run(self, lane: Lane, function: object, password: str, stored: str) -> Deferred[bool]:
        answer: Deferred[bool] = Deferred(lambda _: self.cancelled.append(password))
        self.calls.append((password, stored, answer))
        self.lanes.append(lane)
        return answer

    def answer(self, right: bool = True) -> None:
        """
        Answer all.
        """
        calls, self.calls = self.calls, []
        for _, _, answer in calls:
            answer.callback(right)


class HeldCase(SynchronousTestCase):
    """
    Passwords whose threads and clock are in the hands of the test.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.threads = HeldHashing()
        self.passwords = self.fresh()

    def fresh(self) -> Passwords:
        return Passwords(cast(Any, self.threads), self.clock)

    def check(
        self,
        password: str = "pass",
        user: str = "alice",
        source: str = SOURCE,
        users: dict[str, str] | None = None,
    ) -> Deferred[bool]:
        return self.passwords.check(users or USERS, user, password, source, SERVER)


class RememberingTests(HeldCase):
    """
    One that was right is remembered for a while.
    """

    def right(self, **given: Any) -> None:
        """
        One is found right.
        """
        checking = self.check(**given)
        self.assertNoResult(checking)
        self.threads.answer()
        self.assertTrue(self.successResultOf(checking))

    def test_remembered(self) -> None:
        """
        The same one is right at once, wherever it is given.
        """
        self.right()
        self.assertTrue(self.successResultOf(self.check()))
        self.assertTrue(self.successResultOf(self.check(source="198.51.100.1")))
        self.assertEqual(self.threads.calls, [])

    def test_for_a_while(self) -> None:
        """
        After five minutes it is compared again.
        """
        self.right()
        self.clock.advance(299.9)
        self.successResultOf(self.check())
        self.clock.advance(0.1)
        self.right()
        self.clock.advance(299.9)
        self.successResultOf(self.check())

    def test_others_are_compared(self) -> None:
        """
        Another password, another user and another hash are not the same one.
        """
        self.right()
        users = {"alice": CHOSEN, "bob": CHOSEN}
        for given in (
            {"password": "Pass"},
            {"password": ""},
            {"user": "bob", "users": users},
            {"user": "alicepass", "password": "", "users": {"alicepass": CHOSEN}},
            {"users": {"alice": hash_chosen("pass", cost=2**10)}},
        ):
            self.assertNoResult(self.check(**cast(Any, given)))
            self.threads.answer(False)

    def test_changed(self) -> None:
        """
        One that was changed meanwhile is right no more, one that was taken
        back neither.
        """
        self.right()
        checking = self.check(users={"alice": hash_chosen("new", cost=2**10)})
        self.threads.answer(False)
        self.assertFalse(self.successResultOf(checking))
        checking = self.check(users={"bob": CHOSEN})
        self.threads.answer(False)
        self.assertFalse(self.successResultOf(checking))

    def test_wrong_is_not_remembered(self) -> None:
        """
        One that was wrong is compared each time.
        """
        for _ in range(2):
            checking = self.check("wrong")
            self.assertNoResult(checking)
            self.threads.answer(False)
            self.assertFalse(self.successResultOf(checking))

    def test_failure_is_not_remembered(self) -> None:
        """
        Nor is one that could not be compared.
        """
        checking = self.check()
        self.threads.calls.pop()[2].errback(AccountError("the accounts are closed"))
        self.failureResultOf(checking, AccountError)
        self.right()

    def test_bounded(self) -> None:
        """
        So many are remembered and no more: the oldest is forgotten.
        """
        self.patch(passwords_module, "_REMEMBERED", 2)
        self.passwords = self.fresh()
        for password in ("a", "b", "c"):
            self.right(password=password)
        self.successResultOf(self.check("b"))
        self.successResultOf(self.check("c"))
        self.right(password="a")

    def test_nothing_to_read(self) -> None:
        """
        What is kept is of no use to somebody who reads it, or has it from
        another process.
        """
        self.right()
        other = self.fresh()
        checking = other.check(USERS, "alice", "pass", SOURCE, SERVER)
        self.threads.answer()
        self.successResultOf(checking)
        self.assertNotEqual(list(other._right._until), list(self.passwords._right._until))
        self.assertNotIn("pass", repr(self.passwords._right._until))


class ShareTests(HeldCase):
    """
    Whose turn it is, and who waits for it.
    """

    def test_lanes(self) -> None:
        """
        Each source of each server of each agent has a lane of its own; one
        from which a password was right has it among those that are known.
        """
        self.check("guess")
        self.assertEqual(self.threads.lanes, [("agent", "web", "new", SOURCE)])
        self.check()
        self.threads.answer()
        self.check("another guess")
        self.assertEqual(self.threads.lanes[-1], ("agent", "web", "known", SOURCE))
        self.passwords.check(USERS, "alice", "a guess", SOURCE, ("agent", "wiki"))
        self.assertEqual(self.threads.lanes[-1], ("agent", "wiki", "new", SOURCE))
        self.check("yet another", source="198.51.100.1")
        self.assertEqual(self.threads.lanes[-1], ("agent", "web", "new", "198.51.100.1"))

    def test_wrong_makes_nobody_known(self) -> None:
        """
        A source whose passwords are wrong stays among the new ones.
        """
        self.check("guess")
        self.threads.answer(False)
        self.check("another guess")
        self.assertEqual(self.threads.lanes[-1][2], "new")

    def test_known_for_a_while(self) -> None:
        """
        A source is known for an hour.
        """
        for passed, known in ((3599.0, "known"), (3600.0, "new")):
            self.check()
            self.threads.answer()
            self.clock.advance(passed)
            self.check("guess")
            self.threads.answer(False)
            self.assertEqual(self.threads.lanes[-1][2], known)

    def test_same_at_once(self) -> None:
        """
        The same one that is given many times at once is compared once, and all
        have the answer.
        """
        for right in (True, False):
            password = f"given {right}"
            checking = [self.check(password, source=f"198.51.100.{at}") for at in range(50)]
            self.assertEqual(len(self.threads.calls), 1)
            self.threads.answer(right)
            for each in checking:
                self.assertIs(self.successResultOf(each), right)
        self.assertEqual(self.passwords._compared, {})

    def test_same_is_bounded(self) -> None:
        """
        So many wait for it and no more.
        """
        for _ in range(1024):
            self.check()
        self.assertIs(self.assertRaises(Rejection, self.check).code, Code.BUSY)

    def test_called_off(self) -> None:
        """
        Nothing is compared for one who does not wait any more.
        """
        checking = self.check()
        checking.cancel()
        self.failureResultOf(checking, CancelledError)
        self.assertEqual(self.threads.cancelled, ["pass"])
        self.assertEqual(self.passwords._compared, {})
        self.assertNoResult(self.check())

    def test_one_of_many_called_off(self) -> None:
        """
        It is, as long as another waits for the same.
        """
        first, second = self.check(), self.check()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.assertEqual(self.threads.cancelled, [])
        self.threads.answer()
        self.assertTrue(self.successResultOf(second))

    def test_turn_comes_too_late(self) -> None:
        """
        One whose turn does not come within ten seconds is to be given again.
        """
        checking = self.check()
        self.clock.advance(9.9)
        self.assertNoResult(checking)
        self.clock.advance(0.1)
        self.assertIs(self.failureResultOf(checking, Rejection).value.code, Code.BUSY)
        self.assertEqual(self.threads.cancelled, ["pass"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_nothing_left(self) -> None:
        """
        Nothing is left of one that was compared.
        """
        for answer in (True, False):
            self.check(f"{answer}")
            self.threads.answer(answer)
        self.assertEqual(self.passwords._compared, {})
        self.assertEqual(self.clock.getDelayedCalls(), [])


class FastTests(HeldCase):
    """
    Secrets that were generated need no thread.
    """

    def test_fast(self) -> None:
        """
        They are compared at once.
        """
        users = {"robot": hash_generated("secret")}
        self.assertTrue(self.successResultOf(self.check("secret", "robot", users=users)))
        self.assertFalse(self.successResultOf(self.check("Secret", "robot", users=users)))
        self.assertFalse(self.successResultOf(self.check("secret", "nobody", users=users)))
        self.assertEqual(self.threads.calls, [])


class UnknownTests(HeldCase):
    """
    Users who do not exist.
    """

    def test_costs_the_same(self) -> None:
        """
        One who does not exist takes as long as one who does: the same function,
        the same cost, the same salt.
        """
        self.check("x")
        self.check("x", "nobody")
        (_, known, _), (_, unknown, _) = self.threads.calls
        self.assertTrue(is_slow(unknown))
        self.assertEqual(known.rpartition(":")[0], unknown.rpartition(":")[0])
        self.assertNotEqual(known, unknown)

    def test_beside_generated(self) -> None:
        """
        Beside secrets that were generated, too, whichever stands first.
        """
        robot = {"robot": hash_generated("secret")}
        for given, users in (("x", robot | USERS), ("y", USERS | robot)):
            self.assertNoResult(self.check(given, "nobody", users=users))
        self.assertEqual(len(self.threads.calls), 2)


class ThreadsTests(TestCase):
    """
    With threads and scrypt as they are.
    """

    def setUp(self) -> None:
        self.hashing = Hashing(hashing_threads(reactor))
        self.addCleanup(self.hashing.close)
        self.passwords = Passwords(self.hashing, Clock())

    async def test_right(self) -> None:
        """
        A user's own password is right.
        """
        self.assertTrue(await self.passwords.check(USERS, "alice", "pass", SOURCE, SERVER))

    async def test_wrong(self) -> None:
        """
        Others are wrong, also such as cannot be encoded.
        """
        for password in ("", "Pass", "pass ", "p\xe4ss", "\ud800", "x" * 10000):
            self.assertFalse(await self.passwords.check(USERS, "alice", password, SOURCE, SERVER))

    async def test_unknown_user(self) -> None:
        """
        A user who does not exist has no password, not even an empty one.
        """
        for user in ("bob", "", "Alice", "\ud800"):
            for password in ("pass", ""):
                self.assertFalse(await self.passwords.check(USERS, user, password, SOURCE, SERVER))

    async def test_closed(self) -> None:
        """
        When the threads are closed nothing is right or wrong.
        """
        await self.hashing.close()
        with self.assertRaises(AccountError):
            await self.passwords.check(USERS, "alice", "pass", SOURCE, SERVER)
        self.assertEqual(self.passwords._compared, {})

    async def test_not_in_this_thread(self) -> None:
        """
        The reactor's thread is not held up.
        """
        gate = threading.Event()
        self.addCleanup(gate.set)
        used: list[str] = []

        def verify(password: str, stored: str) -> bool:
            gate.wait()
            used.append(threading.current_thread().name)
            return True

        self.patch(passwords_module, "verify", verify)
        checking = self.passwords.check(USERS, "alice", "pass", SOURCE, SERVER)
        self.assertNoResult(checking)
        gate.set()
        self.assertTrue(await checking)
        self.assertIn("passwords", used[0])
