"""
Accounts of the configuration file beside those of a database.

Who comes first is decided here; how either is kept is in C{file} and C{database}.
"""

from __future__ import annotations

from collections.abc import Sequence

from zope.interface import implementer

from twisted.internet.defer import Deferred

from relaytunnel.accounts.file import FileAccounts, by_name
from relaytunnel.accounts.model import ANYWHERE, Account, IAccounts, Origin, Rights

__all__ = ["CombinedAccounts", "FileAccounts"]


@implementer(IAccounts)
class CombinedAccounts:
    """
    Accounts of the configuration file beside those of a database.  A name
    that stands in the file means the file's account.
    """

    def __init__(self, file: FileAccounts, database: IAccounts) -> None:
        """
        @param database: the others; closed by C{close}.
        """
        self._file = file
        self._database = database
        self._reloads = 0

    def reload(self, file: FileAccounts) -> None:
        """
        Take the accounts of a file that was read again.
        """
        self._file = file
        self._reloads += 1

    def authenticate(
        self, agent: str, secret: str, origin: Origin = ANYWHERE
    ) -> Deferred[Account | None]:
        """
        See L{IAccounts.authenticate}.
        """
        return Deferred.fromCoroutine(self._authenticate(agent, secret, origin))

    async def _authenticate(self, agent: str, secret: str, origin: Origin) -> Account | None:
        if agent not in self._file:
            account = await self._database.authenticate(agent, secret, origin)
            if account is not None:
                return account
        # Whoever is turned down waits as long as for a wrong secret of the
        # file, or time would tell which names stand there.
        return await self._file.authenticate(agent, secret, origin)

    def rights(self, agent: str) -> Deferred[Rights | None]:
        """
        See L{IAccounts.rights}.
        """
        return self._whose(agent).rights(agent)

    def invite(
        self,
        agent: str,
        publish: Sequence[str] = (),
        ports: Sequence[tuple[int, int]] = (),
        hosts: Sequence[str] = (),
    ) -> Deferred[str]:
        """
        See L{IAccounts.invite}; fails for an account of the file.
        """
        return self._whose(agent).invite(agent, publish, ports, hosts)

    def rotate(self, agent: str) -> Deferred[str]:
        """
        See L{IAccounts.rotate}; fails for an account of the file.
        """
        return self._whose(agent).rotate(agent)

    def grant(self, agent: str, rights: Rights) -> Deferred[Rights]:
        """
        See L{IAccounts.grant}; fails for an account of the file.
        """
        return self._whose(agent).grant(agent, rights)

    def deny(self, agent: str, rights: Rights) -> Deferred[Rights]:
        """
        See L{IAccounts.deny}; fails for an account of the file.
        """
        return self._whose(agent).deny(agent, rights)

    def revoke(self, agent: str) -> Deferred[bool]:
        """
        See L{IAccounts.revoke}; fails for an account of the file.
        """
        return self._whose(agent).revoke(agent)

    def agents(self) -> Deferred[list[Account]]:
        """
        See L{IAccounts.agents}.
        """
        return Deferred.fromCoroutine(self._agents())

    async def _agents(self) -> list[Account]:
        return self.listed(await self._database.agents())

    def listed(self, stored: list[Account]) -> list[Account]:
        """
        @param stored: the accounts of the database.
        @return: these and those of the file, by name.
        """
        listed = self._file.accounts()
        listed.extend(account for account in stored if account.agent not in self._file)
        return sorted(listed, key=by_name)

    def seen(self, agent: str, when: float) -> Deferred[None]:
        """
        See L{IAccounts.seen}.
        """
        return self._whose(agent).seen(agent, when)

    def revision(self) -> Deferred[int]:
        """
        See L{IAccounts.revision}; it changes with L{reload} too.
        """
        return self._database.revision().addCallback(lambda count: count + self._reloads)

    def close(self) -> Deferred[None]:
        """
        See L{IAccounts.close}.
        """
        return self._database.close()

    def _whose(self, agent: str) -> IAccounts:
        return self._file if agent in self._file else self._database
