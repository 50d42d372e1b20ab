"""
Accounts that stand in relay.toml.

Reading the file is the business of C{config}; this takes what was read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, Protocol

from zope.interface import implementer

from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed

from relaytunnel.accounts.model import ANYWHERE, Account, IAccounts, Origin, Rights
from relaytunnel.accounts.secrets import is_slow, unmatched, verify
from relaytunnel.errors import AccountError

__all__ = ["FileAccounts", "FileEntry", "Run", "by_name"]

Run = Callable[..., Deferred[Any]]
"""
Calls a function with its arguments in a thread, when the turn of a lane has
come, as L{Hashing.run<relaytunnel.accounts.hashing.Hashing.run>} does.
"""

_GROUP = ("", "")
"""No agent and no server has this for its ID: the lanes of those who come to be agents."""


class FileEntry(Protocol):
    """
    An account as the configuration has it.
    """

    @property
    def id(self) -> str:
        """The agent's name."""

    @property
    def secret_hash(self) -> str:
        """The stored form of its secret, C{scrypt:...} or C{sha256:...}."""

    @property
    def publish(self) -> Sequence[str]:
        """Patterns of connection IDs."""

    @property
    def ports(self) -> Iterable[Any]:
        """Ranges of ports: pairs, or things with C{first} and C{last}."""

    @property
    def hosts(self) -> Sequence[str]:
        """Patterns of host names."""


def _pair(ports: Any) -> tuple[int, int]:
    if hasattr(ports, "first"):
        return ports.first, ports.last
    first, last = ports
    return first, last


@implementer(IAccounts)
class FileAccounts:
    """
    Accounts that only an editor can change.  When an agent was last here is
    remembered as long as this object lives.
    """

    def __init__(
        self,
        entries: Iterable[FileEntry],
        run: Run,
        created: float = 0.0,
    ) -> None:
        """
        @param run: where slow checks are done.
        @param created: when the file was read, in seconds since the epoch.
        @raise AccountError: for an entry that can never be used, with its name.
        """
        self._run = run
        self._accounts: dict[str, Account] = {}
        self._hashes: dict[str, str] = {}
        # Agents that do not exist are checked as slowly as one that does.
        self._nobody: str | None = None
        for entry in entries:
            if entry.id in self._accounts:
                raise AccountError(f"agent {entry.id} stands twice in the configuration file")
            try:
                slow = is_slow(entry.secret_hash)
                rights = Rights(
                    tuple(entry.publish), tuple(map(_pair, entry.ports)), tuple(entry.hosts)
                )
            except AccountError as error:
                raise AccountError(
                    f"agent {entry.id} of the configuration file: {error}"
                ) from error
            self._accounts[entry.id] = Account(entry.id, rights, None, created, "file")
            self._hashes[entry.id] = entry.secret_hash
            if self._nobody is None or (slow and not is_slow(self._nobody)):
                self._nobody = unmatched(entry.secret_hash)

    def __contains__(self, agent: object) -> bool:
        return agent in self._accounts

    def authenticate(
        self, agent: str, secret: str, origin: Origin = ANYWHERE
    ) -> Deferred[Account | None]:
        """
        See L{IAccounts.authenticate}.
        """
        stored = self._hashes.get(agent, self._nobody)
        if stored is None:
            return succeed(None)

        def judge(matches: bool) -> Account | None:
            return self._accounts.get(agent) if matches else None

        if not is_slow(stored):
            return succeed(judge(verify(secret, stored)))
        lane = (*_GROUP, *origin)
        return maybeDeferred(self._run, lane, verify, secret, stored).addCallback(judge)

    def rights(self, agent: str) -> Deferred[Rights | None]:
        """
        See L{IAccounts.rights}.
        """
        account = self._accounts.get(agent)
        return succeed(None if account is None else account.rights)

    def invite(
        self,
        agent: str,
        publish: Sequence[str] = (),
        ports: Sequence[tuple[int, int]] = (),
        hosts: Sequence[str] = (),
    ) -> Deferred[str]:
        """
        Fail: see L{IAccounts.invite}.
        """
        return fail(_read_only(agent, agent in self))

    def rotate(self, agent: str) -> Deferred[str]:
        """
        Fail: see L{IAccounts.rotate}.
        """
        return fail(_read_only(agent, agent in self))

    def grant(self, agent: str, rights: Rights) -> Deferred[Rights]:
        """
        Fail: see L{IAccounts.grant}.
        """
        return fail(_read_only(agent, agent in self))

    def deny(self, agent: str, rights: Rights) -> Deferred[Rights]:
        """
        Fail: see L{IAccounts.deny}.
        """
        return fail(_read_only(agent, agent in self))

    def revoke(self, agent: str) -> Deferred[bool]:
        """
        Fail, unless there is no such account: see L{IAccounts.revoke}.
        """
        return fail(_read_only(agent, True)) if agent in self else succeed(False)

    def agents(self) -> Deferred[list[Account]]:
        """
        See L{IAccounts.agents}.
        """
        return succeed(self.accounts())

    def accounts(self) -> list[Account]:
        """
        The same, at once.
        """
        return sorted(self._accounts.values(), key=by_name)

    def seen(self, agent: str, when: float) -> Deferred[None]:
        """
        See L{IAccounts.seen}.
        """
        if agent in self:
            self._accounts[agent] = replace(self._accounts[agent], last_seen=when)
        return succeed(None)

    def revision(self) -> Deferred[int]:
        """
        Always the same: see L{IAccounts.revision}.
        """
        return succeed(0)

    def close(self) -> Deferred[None]:
        """
        Nothing to let go of: see L{IAccounts.close}.
        """
        return succeed(None)


def by_name(account: Account) -> str:
    """
    The order in which accounts are listed.
    """
    return account.agent


def _read_only(agent: str, known: bool) -> AccountError:
    what = f"agent {agent} stands" if known else "these accounts stand"
    return AccountError(f"{what} in the configuration file: change it there and reload the relay")
