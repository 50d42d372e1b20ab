"""
Changes of accounts, also by other processes: whoever lost a right while
present is looked at again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from relaytunnel.accounts import Account, IAccounts, Rights
from relaytunnel.errors import AccountError, Code
from relaytunnel.relay.claims import Reservations
from relaytunnel.relay.registry import Agent, Registry

__all__ = ["Rechecking", "reserved"]

_EVERY = 0.5


def reserved(
    accounts: Iterable[Account],
) -> Iterator[tuple[str, Iterable[str], Iterable[str]]]:
    """
    Yield of each account what L{Reservations.load} takes.
    """
    for account in accounts:
        yield account.agent, account.rights.publish, account.rights.hosts


class Rechecking:
    """
    Asks for the revision of the accounts, and for all of them when it is
    another.
    """

    _log = Logger()

    def __init__(
        self,
        clock: Any,
        accounts: IAccounts,
        registry: Registry,
        reservations: Reservations,
        absent: Callable[[Mapping[str, Rights]], object] = lambda rights: None,
    ) -> None:
        """
        @param reservations: kept true to what the accounts have a right to.
        @param absent: told what the accounts allow, for what is left of agents
            that are not present.
        """
        self._absent = absent
        self._accounts = accounts
        self._registry = registry
        self._reservations = reservations
        self._revision: int | None = None
        self._silent = False
        self._poll = LoopingCall(self._look)
        self._poll.clock = clock

    def start(self) -> None:
        """
        Look twice a second from now on.
        """
        self._poll.start(_EVERY, now=True)

    def stop(self) -> None:
        """
        Look no more.
        """
        if self._poll.running:
            self._poll.stop()

    def _look(self) -> Deferred[Any]:
        asked: Deferred[Any] = self._accounts.revision()
        return asked.addCallback(self._compare).addErrback(self._failed)

    def _compare(self, revision: int) -> Deferred[None] | None:
        self._silent = False
        if revision == self._revision:
            return None
        first, self._revision = self._revision is None, revision
        return None if first else self._recheck_all()

    @inlineCallbacks
    def _recheck_all(self) -> Any:
        present = list(self._registry.agents.values())
        accounts: list[Account] = yield self._accounts.agents()
        self._reservations.load(reserved(accounts))
        rights = {account.agent: account.rights for account in accounts}
        # An agent that came meanwhile has an answer of its own, perhaps a newer one.
        for agent in present:
            self._recheck(agent, rights.get(agent.agent_id))
        self._absent(rights)

    @staticmethod
    def _recheck(agent: Agent, rights: Rights | None) -> None:
        if rights is None:
            agent.dismiss(Code.REVOKED, "the account was revoked")
        else:
            agent.recheck(rights)

    def _failed(self, failure: Failure) -> None:
        failure.trap(AccountError)
        self._revision = -1  # whatever it was, look at everybody when it answers again
        if not self._silent:
            self._silent = True
            self._log.error("the accounts do not answer: {fault}", fault=str(failure.value))
