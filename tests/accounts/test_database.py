"""
The accounts of a running relay.
"""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import cast

from zope.interface.verify import verifyObject

from twisted.internet import reactor as _reactor
from twisted.internet.interfaces import IReactorFromThreads
from twisted.trial.unittest import TestCase

from relaytunnel.accounts import AccountStore, DatabaseAccounts, IAccounts, Rights
from relaytunnel.errors import AccountError

reactor = cast(IReactorFromThreads, _reactor)


def account_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if "accounts" in thread.name]


class DatabaseTests(TestCase):
    """
    The store behind Deferreds.
    """

    async def setUp(self) -> None:  # type: ignore[override]
        directory = Path(self.mktemp())
        directory.mkdir()
        self.path = str(directory / "accounts.db")
        self.accounts = await DatabaseAccounts.open(self.path, reactor, busy_timeout=500)
        self.addCleanup(self.accounts.close)

    def test_interface(self) -> None:
        """
        It is what everybody takes for accounts.
        """
        self.assertTrue(verifyObject(IAccounts, self.accounts))

    async def test_whole_life(self) -> None:
        """
        An agent is invited, let in, seen, listed, given and denied rights, given
        another secret, and revoked.
        """
        accounts = self.accounts
        secret = await accounts.invite("office", ["web"])
        account = await accounts.authenticate("office", secret)
        assert account is not None
        self.assertEqual(account.rights, Rights(("web",)))
        await accounts.seen("office", 5.0)
        self.assertEqual([found.last_seen for found in await accounts.agents()], [5.0])
        self.assertEqual(await accounts.rights("office"), Rights(("web",)))
        shop = Rights(hosts=("shop.example",))
        more = Rights(("web",), hosts=("shop.example",))
        self.assertEqual(await accounts.grant("office", shop), more)
        self.assertEqual(await accounts.rights("office"), more)
        self.assertEqual(await accounts.deny("office", shop), Rights(("web",)))
        new = await accounts.rotate("office")
        self.assertIsNotNone(await accounts.authenticate("office", new))
        self.assertIsNone(await accounts.authenticate("office", secret))
        self.assertTrue(await accounts.revoke("office"))
        self.assertIsNone(await accounts.rights("office"))

    async def test_wrong_secret(self) -> None:
        """
        A wrong secret and an unknown agent look the same.
        """
        await self.accounts.invite("office")
        self.assertIsNone(await self.accounts.authenticate("office", "wrong"))
        self.assertIsNone(await self.accounts.authenticate("nobody", "wrong"))

    async def test_revision(self) -> None:
        """
        A change by the command line is seen.
        """
        before = await self.accounts.revision()
        store = AccountStore(self.path)
        store.invite("office")
        store.close()
        self.assertNotEqual(await self.accounts.revision(), before)

    async def test_locked(self) -> None:
        """
        A lock fails the call in words and leaves the reactor free meanwhile.
        """
        with closing(sqlite3.connect(self.path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            call = self.accounts.invite("office")
            self.assertNoResult(call)
            self.assertIsInstance(await self.accounts.revision(), int)
            with self.assertRaises(AccountError) as caught:
                await call
        self.assertIn(f"{self.path} is locked by another process", str(caught.exception))

    async def test_many_at_once(self) -> None:
        """
        Many calls at once are all answered, by two threads at most.
        """
        calls = [self.accounts.invite(f"agent{number}") for number in range(20)]
        self.assertLessEqual(len(account_threads()), 2)
        secrets = [await call for call in calls]
        self.assertEqual(len(set(secrets)), 20)
        self.assertEqual(await self.accounts.revision(), 20)

    async def test_close(self) -> None:
        """
        Closing finishes what was begun and leaves no thread and no log behind.
        """
        call = self.accounts.invite("office")
        await self.accounts.close()
        self.assertEqual(account_threads(), [])
        self.assertEqual(len(self.successResultOf(call)), 43)
        self.assertEqual([path.name for path in Path(self.path).parent.iterdir()], ["accounts.db"])

    async def test_closed(self) -> None:
        """
        A call after closing fails, and closing again does not.
        """
        await self.accounts.close()
        with self.assertRaises(AccountError):
            await self.accounts.revision()
        await self.accounts.close()


class OpenTests(TestCase):
    """
    Opening that fails.
    """

    async def test_no_thread_left(self) -> None:
        """
        A database that cannot be opened fails and leaves no thread behind.
        """
        path = Path(self.mktemp())
        path.write_bytes(b"no database" * 1000)
        with self.assertRaises(AccountError):
            await DatabaseAccounts.open(path, reactor)
        self.assertEqual(account_threads(), [])
