"""
The accounts in a database, for a running relay: nothing here blocks.

L{DatabaseAccounts} hands every call to an
L{AccountStore<relaytunnel.accounts.store.AccountStore>} in a thread.  Callers
that may wait use the store itself.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

from zope.interface import implementer

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure

from relaytunnel.accounts.model import ANYWHERE, Account, IAccounts, Origin, Rights
from relaytunnel.accounts.store import BUSY_TIMEOUT, AccountStore
from relaytunnel.accounts.threads import Threads

__all__ = ["DatabaseAccounts"]

_AT_MOST = 2


@implementer(IAccounts)
class DatabaseAccounts:
    """
    Accounts in a database, asked in two threads of their own.  Made by L{open}.
    """

    def __init__(self, store: AccountStore, threads: Threads) -> None:
        """
        @param store: who answers; closed by C{close}.
        @param threads: where it answers; closed by C{close}.
        """
        self._store = store
        self._threads = threads

    @classmethod
    def open(
        cls,
        url_or_path: str | os.PathLike[str],
        reactor: IReactorFromThreads,
        clock: Callable[[], float] = time.time,
        busy_timeout: int = BUSY_TIMEOUT,
    ) -> Deferred[DatabaseAccounts]:
        """
        Open the database, and make it if it is not there.

        Call it when the reactor is about to run (C{startService}) and not in
        C{makeService}: neither threads nor connections survive the fork of
        C{twistd}, and the file would belong to the wrong user.

        @param url_or_path: the path of an SQLite file, or a URL of SQLAlchemy.
        @param clock: the time, in seconds since the epoch.
        @param busy_timeout: how long to wait for other processes, in milliseconds.
        @return: fails with L{AccountError} if it cannot be opened; nothing is
            left behind then.
        """
        threads = Threads(reactor, _AT_MOST, "accounts")

        def opened(store: AccountStore) -> DatabaseAccounts:
            return cls(store, threads)

        def failed(failure: Failure) -> Deferred[DatabaseAccounts]:
            return threads.close().addCallback(lambda _: failure)

        return threads.run(AccountStore, url_or_path, busy_timeout, clock).addCallbacks(
            opened, failed
        )

    def authenticate(
        self, agent: str, secret: str, origin: Origin = ANYWHERE
    ) -> Deferred[Account | None]:
        """
        See L{IAccounts.authenticate}; no check here takes long.
        """
        return self._threads.run(self._store.authenticate, agent, secret)

    def rights(self, agent: str) -> Deferred[Rights | None]:
        """
        See L{IAccounts.rights}.
        """
        return self._threads.run(self._store.rights, agent)

    def invite(
        self,
        agent: str,
        publish: Sequence[str] = (),
        ports: Sequence[tuple[int, int]] = (),
        hosts: Sequence[str] = (),
    ) -> Deferred[str]:
        """
        See L{IAccounts.invite}.
        """
        return self._threads.run(self._store.invite, agent, publish, ports, hosts)

    def rotate(self, agent: str) -> Deferred[str]:
        """
        See L{IAccounts.rotate}.
        """
        return self._threads.run(self._store.rotate, agent)

    def grant(self, agent: str, rights: Rights) -> Deferred[Rights]:
        """
        See L{IAccounts.grant}.
        """
        return self._threads.run(self._store.grant, agent, rights)

    def deny(self, agent: str, rights: Rights) -> Deferred[Rights]:
        """
        See L{IAccounts.deny}.
        """
        return self._threads.run(self._store.deny, agent, rights)

    def revoke(self, agent: str) -> Deferred[bool]:
        """
        See L{IAccounts.revoke}.
        """
        return self._threads.run(self._store.revoke, agent)

    def agents(self) -> Deferred[list[Account]]:
        """
        See L{IAccounts.agents}.
        """
        return self._threads.run(self._store.agents)

    def seen(self, agent: str, when: float) -> Deferred[None]:
        """
        See L{IAccounts.seen}.
        """
        return self._threads.run(self._store.seen, agent, when)

    def revision(self) -> Deferred[int]:
        """
        See L{IAccounts.revision}.
        """
        return self._threads.run(self._store.revision)

    def close(self) -> Deferred[None]:
        """
        See L{IAccounts.close}.
        """
        return self._threads.close(self._store.close)
