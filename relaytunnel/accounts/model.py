"""
Who may register what: rights, accounts, and what is asked of those who keep them.

Pure: nothing here reads a file, a clock or a database.  Secrets and their
stored forms are in L{relaytunnel.accounts.secrets}; what keeps accounts is in
C{database} and C{combined}.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from zope.interface import Interface

from twisted.internet.defer import Deferred

from relaytunnel.config.hosts import host_right
from relaytunnel.config.names import matches
from relaytunnel.errors import AccountError

__all__ = ["ANYWHERE", "Account", "IAccounts", "Origin", "Rights", "Verdict", "agent_fault"]

_T = TypeVar("_T")

_LONGEST_AGENT = 255
_LAST_PORT = 65535


@dataclass(frozen=True)
class Rights:
    """
    What an agent may register.  What is not named here is denied.

    @ivar publish: patterns of connection IDs: C{"web"} is that one,
        C{"*.office"} is everything below C{office} at any depth but not
        C{office} itself, C{"*"} is everything.
    @ivar ports: ranges of ports that its servers may ask for, as first and
        last port, both included.
    @ivar hosts: patterns of the host names that its servers may claim, as of
        L{host_right}: C{"*"} is every name that no other account has a right
        to.  Names that belong to a connection ID need none.
    @raise AccountError: for a pattern or a range that can never mean anything.
    """

    publish: tuple[str, ...] = ()
    ports: tuple[tuple[int, int], ...] = ()
    hosts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "hosts", tuple(map(host_right, self.hosts)))
        except ValueError as fault:
            raise AccountError(str(fault)) from None
        for pattern in self.publish:
            _check_pattern(pattern)
        for first, last in self.ports:
            if not 1 <= first <= last <= _LAST_PORT:
                raise AccountError(
                    f"{first}-{last} is not a range of ports: "
                    f"write first-last, within 1-{_LAST_PORT}"
                )

    def may_publish(self, connection_id: str, expressly: bool = False) -> bool:
        """
        Whether a server may be registered under this connection ID.

        @param expressly: whether C{*} does not count.
        """
        return bool(connection_id) and _covered(self.publish, connection_id, expressly)

    def may_claim(self, claim: str, expressly: bool = False) -> bool:
        """
        Whether a server may claim this host name, or wildcard of host names.

        @param expressly: whether C{*} does not count.
        """
        return _covered(self.hosts, claim, expressly)

    def with_more(self, more: Rights) -> Rights:
        """
        @return: these rights and those.
        """
        return Rights(
            _once(self.publish + more.publish),
            _once(self.ports + more.ports),
            _once(self.hosts + more.hosts),
        )

    def without(self, less: Rights) -> Rights:
        """
        @return: these rights, but for those.
        @raise AccountError: a pattern is not among these, so that it cannot be
            taken out; what C{*} or a wildcard covers cannot be taken out of that.
        """
        ports = self.ports
        for first, last in less.ports:
            cut = [
                ((low, min(high, first - 1)), (max(low, last + 1), high)) for low, high in ports
            ]
            ports = tuple(part for pair in cut for part in pair if part[0] <= part[1])
        return Rights(
            _left(self.publish, less.publish, "publish"),
            ports,
            _left(self.hosts, less.hosts, "claim"),
        )

    def may_use_port(self, port: int) -> bool:
        """
        Whether a server may have this port of the relay for its own.
        """
        return any(first <= port <= last for first, last in self.ports)


def _check_pattern(pattern: str) -> None:
    """
    @raise AccountError: when the pattern has none of the three forms.
    """
    exact = pattern.removeprefix("*.")
    if pattern != "*" and (not exact or "*" in exact):
        raise AccountError(
            f"{pattern!r} is not a pattern of connection IDs: write a whole ID, '*.SUFFIX' or '*'"
        )


def _once(rights: tuple[_T, ...]) -> tuple[_T, ...]:
    return tuple(dict.fromkeys(rights))


def _left(had: tuple[str, ...], less: tuple[str, ...], what: str) -> tuple[str, ...]:
    for pattern in less:
        if pattern not in had:
            granted = ", ".join(had) or "nothing"
            raise AccountError(
                f"no right to {what} {pattern} was granted, so none can be taken; granted is:"
                f" {granted}"
            )
    return tuple(pattern for pattern in had if pattern not in less)


def _covered(patterns: tuple[str, ...], name: str, expressly: bool) -> bool:
    return any(
        matches(pattern, name) for pattern in patterns if not (expressly and pattern == "*")
    )


def agent_fault(agent: str) -> str | None:
    """
    Why this cannot be the name of an agent, or L{None} if it can.
    """
    if not agent:
        return "an agent needs a name"
    if len(agent) > _LONGEST_AGENT:
        return f"the name of an agent has at most {_LONGEST_AGENT} characters"
    if not agent.isprintable() or " " in agent:
        return f"{agent!r} cannot name an agent: it has blanks or unprintable characters"
    return None


@dataclass(frozen=True)
class Account:
    """
    One agent that may authenticate.

    @ivar agent: its name.
    @ivar rights: what it may register.
    @ivar last_seen: when it was last here, in seconds since the epoch;
        L{None} if never.
    @ivar created: when the account was made (of the file: when the file was
        read), in seconds since the epoch.
    @ivar source: C{"database"}, or C{"file"} for one that stands in relay.toml.
    """

    agent: str
    rights: Rights = field(default_factory=Rights)
    last_seen: float | None = None
    created: float = 0.0
    source: Literal["database", "file"] = "database"


# The account that was proven, or None, which does not say what was wrong.
Verdict = Account | None

Origin = tuple[str, str]
"""Where a secret was given: a class of sources, and the source."""

ANYWHERE: Origin = ("", "")
"""The origin of what is asked in the relay's own name."""


class IAccounts(Interface):
    """
    Whoever knows the accounts.  Every answer is a Deferred, and fails with
    L{AccountError} when the accounts cannot be read or changed.
    """

    def authenticate(agent: str, secret: str, origin: Origin) -> Deferred[Verdict]:
        """
        Check what an agent says of itself (S2).

        The first use of a rotated secret ends the one before it.

        @param origin: who takes turns where a check takes long.
        @return: its account; L{None} for an unknown or revoked agent and for
            a wrong secret, all after the same work.  Cancelled, a check that
            has not begun is not done.  Fails with L{Rejection} if there are
            too many.
        """

    def rights(agent: str) -> Deferred[Rights | None]:
        """
        What this agent may register now; L{None} if it is gone or revoked.
        """

    def invite(
        agent: str,
        publish: Sequence[str] = (),
        ports: Sequence[tuple[int, int]] = (),
        hosts: Sequence[str] = (),
    ) -> Deferred[str]:
        """
        Make an account.

        @param publish: patterns of connection IDs.
        @param ports: ranges of ports.
        @param hosts: patterns of host names.
        @return: its secret in clear, which is stored nowhere; fails with
            L{AccountError} if there is such an account.
        """

    def rotate(agent: str) -> Deferred[str]:
        """
        Make a new secret for an account, whose rights stay as they are.

        The secret in use before stays valid until the new one is first used,
        for 24 hours at most.  No more than two are ever valid: one that was
        handed out but not used yet makes place for the new one.

        @return: the new secret in clear, which is stored nowhere; fails with
            L{AccountError} if there is no such account.
        """

    def grant(agent: str, rights: Rights) -> Deferred[Rights]:
        """
        Give an account more rights; its secret stays as it is.

        @return: its rights now; fails with L{AccountError} if there is no such
            account.
        """

    def deny(agent: str, rights: Rights) -> Deferred[Rights]:
        """
        Take rights from an account; its secret stays as it is.

        @param rights: patterns that it has, and ranges of ports, of which it
            need not have all.
        @return: its rights now; fails with L{AccountError} if there is no such
            account, or if it has no such pattern.
        """

    def revoke(agent: str) -> Deferred[bool]:
        """
        Remove an account with its rights and secrets.

        @return: L{False} if there is no such account.
        """

    def agents() -> Deferred[list[Account]]:
        """
        All accounts, by name.
        """

    def seen(agent: str, when: float) -> Deferred[None]:
        """
        Remember when an agent was last here, in seconds since the epoch.
        An unknown agent is passed over.
        """

    def revision() -> Deferred[int]:
        """
        A number that changes when anybody, also another process, changes who
        may register what.  It is cheap enough to be asked for twice a second;
        C{seen} and C{authenticate} do not change it.
        """

    def close() -> Deferred[None]:
        """
        Finish what was begun and let go of files and threads.  Any other call
        fails from now on; a second close does nothing.
        """
