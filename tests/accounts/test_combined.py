"""
Accounts of the configuration file beside a database.
"""

from __future__ import annotations

import threading
from typing import Any, cast

from zope.interface.verify import verifyObject

from twisted.internet import reactor as _reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.trial.unittest import TestCase

from relaytunnel.accounts import (
    CombinedAccounts,
    DatabaseAccounts,
    FileAccounts,
    IAccounts,
    Rights,
    hash_chosen,
)
from relaytunnel.accounts.fairness import Lane
from relaytunnel.accounts.hashing import Hashing, hashing_threads
from relaytunnel.errors import AccountError
from tests.accounts.test_file import Entry, Held

reactor = cast(IReactorFromThreads, _reactor)


class CombinedTests(TestCase):
    """
    The file's accounts first, then those of the database.
    """

    async def setUp(self) -> None:  # type: ignore[override]
        self.database = await DatabaseAccounts.open(self.mktemp(), reactor)
        self.addCleanup(self.database.close)
        self.hashing = Hashing(hashing_threads(reactor))
        self.addCleanup(self.hashing.close)
        self.file = FileAccounts([Entry("office", publish=("web",))], self.hashing.run)
        self.accounts = CombinedAccounts(self.file, self.database)

    def test_interface(self) -> None:
        """
        It is what everybody takes for accounts.
        """
        self.assertTrue(verifyObject(IAccounts, self.accounts))

    async def test_from_the_file(self) -> None:
        """
        An agent of the file is let in.
        """
        account = await self.accounts.authenticate("office", "horse")
        assert account is not None
        self.assertEqual(account.source, "file")

    async def test_from_the_database(self) -> None:
        """
        An agent of the database is let in.
        """
        secret = await self.accounts.invite("home", ["tv"])
        account = await self.accounts.authenticate("home", secret)
        assert account is not None
        self.assertEqual(account.source, "database")
        self.assertEqual(await self.accounts.rights("home"), Rights(("tv",)))

    async def test_file_first(self) -> None:
        """
        A name that stands in both means the file's account alone.
        """
        secret = await self.database.invite("office", ["*"])
        self.assertIsNone(await self.accounts.authenticate("office", secret))
        self.assertEqual(await self.accounts.rights("office"), Rights(("web",)))
        self.assertEqual([found.source for found in await self.accounts.agents()], ["file"])

    async def test_all_turned_down_alike(self) -> None:
        """
        Whoever is turned down has cost one slow check, wherever it is known.
        """
        held = Held()
        self.accounts.reload(FileAccounts([Entry("office")], held.run))
        await self.accounts.invite("home")
        for agent in ("office", "home", "nobody"):
            answer = self.accounts.authenticate(agent, "wrong")
            while not held.calls:
                await self.database.revision()
            self.assertEqual(len(held.calls), 1)
            held.let_go()
            self.assertIsNone(await answer)

    async def test_file_account_stays(self) -> None:
        """
        An account of the file cannot be invited again or revoked.
        """
        for answer in (self.accounts.invite("office"), self.accounts.revoke("office")):
            with self.assertRaises(AccountError) as caught:
                await answer
            self.assertIn("configuration file", str(caught.exception))

    async def test_revoke(self) -> None:
        """
        An account of the database can be revoked.
        """
        await self.accounts.invite("home")
        self.assertTrue(await self.accounts.revoke("home"))
        self.assertFalse(await self.accounts.revoke("home"))

    async def test_agents(self) -> None:
        """
        Both are listed, by name, each with when it was last here.
        """
        await self.accounts.invite("zoo")
        await self.accounts.invite("home")
        await self.accounts.seen("home", 1.0)
        await self.accounts.seen("office", 2.0)
        self.assertEqual(
            [(found.agent, found.last_seen) for found in await self.accounts.agents()],
            [("home", 1.0), ("office", 2.0), ("zoo", None)],
        )

    async def test_given_up(self) -> None:
        """
        Who gives up has nothing checked for it any more, in the database or in
        the file.
        """
        held = Held()
        self.accounts.reload(FileAccounts([Entry("office")], held.run))
        for turns in range(3):
            answer = self.accounts.authenticate("nobody", "wrong", ("new", "198.51.100.1"))
            for _ in range(turns):
                await self.database.revision()
            answer.cancel()
            self.failureResultOf(answer, CancelledError)
        await self.database.revision()
        self.assertEqual([each for each, *_ in held.calls if not each.called], [])

    async def test_reload(self) -> None:
        """
        A file that was read again counts as a change and takes effect.
        """
        before = await self.accounts.revision()
        self.accounts.reload(FileAccounts([], self.hashing.run))
        self.assertNotEqual(await self.accounts.revision(), before)
        self.assertIsNone(await self.accounts.rights("office"))

    async def test_reactor_is_free(self) -> None:
        """
        A check at full cost runs in a thread, beside which the database answers.
        """
        where: list[threading.Thread] = []

        def run(lane: Lane, function: Any, *args: Any) -> Deferred[Any]:
            def noted() -> Any:
                where.append(threading.current_thread())
                return function(*args)

            return self.hashing.run(lane, noted)

        stored = hash_chosen("horse")
        self.accounts.reload(FileAccounts([Entry("office", stored)], run))
        slow = [self.accounts.authenticate("office", "horse") for _ in range(2)]
        await self.accounts.revision()
        self.assertNoResult(slow[1])
        for answer in slow:
            self.assertIsNotNone(await answer)
        self.assertNotIn(threading.current_thread(), where)

    async def test_close(self) -> None:
        """
        Closing closes the database, with its threads.
        """
        await self.accounts.close()
        with self.assertRaises(AccountError):
            await self.database.revision()
        left = [thread for thread in threading.enumerate() if "accounts" in thread.name]
        self.assertEqual(left, [])
