"""
Comparing passwords without holding anybody up.
"""

from __future__ import annotations

import threading
from typing import Any, cast

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from relaytunnel.accounts import passwords as passwords_module
from relaytunnel.accounts.passwords import Passwords
from relaytunnel.accounts.secrets import hash_chosen, hash_generated, is_slow
from relaytunnel.accounts.threads import Threads
from relaytunnel.errors import AccountError, Code, Rejection

reactor = cast(IReactorFromThreads, _reactor)

CHOSEN = hash_chosen("pass", cost=2**10)
USERS = {"alice": CHOSEN}
SOURCE = "203.0.113.9"


class HeldThreads:
    """
    Threads that answer when they are told to.

    @ivar calls: what was to be compared, and what waits for it.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, Deferred[bool]]] = []

    def run(self, function: object, password: str, stored: str) -> Deferred[bool]:
        answer: Deferred[bool] = Deferred()
        self.calls.append((password, stored, answer))
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
        self.threads = HeldThreads()
        self.passwords = self.fresh()

    def fresh(self) -> Passwords:
        return Passwords(cast(Any, self.threads), self.clock.seconds)

    def check(
        self,
        password: str = "pass",
        user: str = "alice",
        source: str = SOURCE,
        users: dict[str, str] | None = None,
    ) -> Deferred[bool]:
        return self.passwords.check(users or USERS, user, password, source)

    def busy(self, source: str = SOURCE) -> None:
        """
        Assert that no more are compared for this source.
        """
        rejection = self.assertRaises(Rejection, self.check, "another", source=source)
        self.assertIs(rejection.code, Code.BUSY)


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
        checking = other.check(USERS, "alice", "pass", SOURCE)
        self.threads.answer()
        self.successResultOf(checking)
        self.assertNotEqual(list(other._right), list(self.passwords._right))
        self.assertNotIn("pass", repr(self.passwords._right))


class ShareTests(HeldCase):
    """
    So many at a time.
    """

    def test_of_a_source(self) -> None:
        """
        Each source has four; another has its own.
        """
        for number in range(4):
            self.check(f"guess {number}")
        self.busy()
        self.check("a", source="198.51.100.1")
        self.assertEqual(len(self.threads.calls), 5)

    def test_of_all(self) -> None:
        """
        There are 32 in all, from however many sources.
        """
        for number in range(32):
            self.check("a", source=f"198.51.100.{number}")
        self.busy("203.0.113.1")

    def test_given_back(self) -> None:
        """
        When one is compared, right or wrong, or could not be, another may be.
        """
        for right in (True, False, None):
            pending = [self.check(f"{right} {number}") for number in range(4)]
            self.busy()
            if right is None:
                for _, _, answer in self.threads.calls:
                    answer.errback(AccountError("the accounts are closed"))
                for checking in pending:
                    self.failureResultOf(checking, AccountError)
                self.threads.calls = []
            else:
                self.threads.answer(right)
            self.assertEqual(dict(self.passwords._pending), {})

    def test_remembered_is_free(self) -> None:
        """
        One that is remembered needs no place.
        """
        self.check()
        self.threads.answer()
        for number in range(4):
            self.check(f"guess {number}")
        self.successResultOf(self.check())


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
        for users in (robot | USERS, USERS | robot):
            self.assertNoResult(self.check("x", "nobody", users=users))
        self.assertEqual(len(self.threads.calls), 2)


class ThreadsTests(TestCase):
    """
    With threads and scrypt as they are.
    """

    def setUp(self) -> None:
        self.threads = Threads(reactor, 2, "passwords-under-test")
        self.addCleanup(self.threads.close)
        self.passwords = Passwords(self.threads, Clock().seconds)

    async def test_right(self) -> None:
        """
        A user's own password is right.
        """
        self.assertTrue(await self.passwords.check(USERS, "alice", "pass", SOURCE))

    async def test_wrong(self) -> None:
        """
        Others are wrong, also such as cannot be encoded.
        """
        for password in ("", "Pass", "pass ", "p\xe4ss", "\ud800", "x" * 10000):
            self.assertFalse(await self.passwords.check(USERS, "alice", password, SOURCE))

    async def test_unknown_user(self) -> None:
        """
        A user who does not exist has no password, not even an empty one.
        """
        for user in ("bob", "", "Alice", "\ud800"):
            for password in ("pass", ""):
                self.assertFalse(await self.passwords.check(USERS, user, password, SOURCE))

    async def test_closed(self) -> None:
        """
        When the threads are closed nothing is right or wrong.
        """
        await self.threads.close()
        with self.assertRaises(AccountError):
            await self.passwords.check(USERS, "alice", "pass", SOURCE)
        self.assertEqual(dict(self.passwords._pending), {})

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
        checking = self.passwords.check(USERS, "alice", "pass", SOURCE)
        self.assertNoResult(checking)
        gate.set()
        self.assertTrue(await checking)
        self.assertIn("passwords-under-test", used[0])
