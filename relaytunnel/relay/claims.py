"""
Which host names an agent's server may have: what its account allows, what
belongs to an ID or to the relay, and what other accounts have a right to.

Pure: rights come as values.  Which server has which name now is in
C{registry}.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from shlex import quote
from typing import Protocol

from relaytunnel.config.hosts import RelayNames, parents
from relaytunnel.config.names import Reach
from relaytunnel.errors import Code, Rejection

__all__ = ["ClaimRights", "NotGranted", "Reservations", "check_names", "claimed", "grant_command"]

_WILDCARD = "*."
_LONGEST_REASON = 256


class ClaimRights(Protocol):
    """
    What an account allows, as far as names go.
    """

    def may_publish(self, connection_id: str, expressly: bool = False) -> bool:
        """Whether it may have this ID; C{expressly} leaves the pattern C{*} out."""

    def may_claim(self, claim: str, expressly: bool = False) -> bool:
        """The same for a claim."""


class NotGranted(Rejection):
    """
    The account has no right to some of the claims.

    @ivar claims: which ones.
    """

    def __init__(self, agent: str, claims: tuple[str, ...]) -> None:
        names = ", ".join(claims)
        command = grant_command(agent, claims)
        reason = f"the account {agent} may not claim {names}; '{command}' at the relay allows it"
        if len(reason) > _LONGEST_REASON:
            reason = (
                f"the account {agent} may not claim {len(claims)} of these names; 'relaytunnel"
                " agents' at the relay lists them with the command that allows it"
            )
        super().__init__(Code.NOT_ALLOWED, reason)
        self.claims = claims


def grant_command(agent: str, claims: Iterable[str]) -> str:
    """
    @return: the command that gives an account the right to these claims, to
        be typed in a shell.
    """
    hosts = (f"--host {quote(claim)}" for claim in claims)
    return " ".join((f"relaytunnel grant {quote(agent)}", *hosts))


def claimed(names: RelayNames, connection_id: str, reach: Iterable[Reach]) -> tuple[str, ...]:
    """
    @return: the claims of a server that its account needs a right to: all but
        the names of its own ID.
    """
    own = names.of(connection_id)
    claims = (way.value for way in reach if way.kind in ("host", "sni"))
    return tuple(dict.fromkeys(claim for claim in claims if claim not in own))


class _Index:
    """
    Patterns by what they cover; C{*} is left out.
    """

    def __init__(self) -> None:
        self._exact: defaultdict[str, set[str]] = defaultdict(set)
        self._beside: defaultdict[str, set[str]] = defaultdict(set)
        self._below: defaultdict[str, set[str]] = defaultdict(set)

    def add(self, pattern: str, agent: str) -> None:
        if pattern.startswith(_WILDCARD):
            self._below[pattern[2:]].add(agent)
        elif pattern != "*":
            self._exact[pattern].add(agent)
            self._beside[pattern.partition(".")[2]].add(agent)

    def meets(self, claim: str, agent: str) -> bool:
        """
        Whether a pattern of somebody else covers a name that the claim stands for.
        """
        if claim.startswith(_WILDCARD):
            found = [self._beside.get(claim[2:])]
        else:
            found = [self._exact.get(claim)]
        found += (self._below.get(name) for name in parents(claim))
        return any(agents and agents != {agent} for agents in found)


class Reservations:
    """
    What any account has a right to, whether or not its agent is present, so
    that one with the right C{*} gets only what is left.
    """

    def __init__(self) -> None:
        self.load(())

    def load(self, accounts: Iterable[tuple[str, Iterable[str], Iterable[str]]]) -> None:
        """
        These are all the accounts from now on.

        @param accounts: of each its agent, its patterns of IDs and its
            patterns of claims.
        """
        self._ids, self._hosts = _Index(), _Index()
        for agent, publish, hosts in accounts:
            for pattern in publish:
                self._ids.add(pattern, agent)
            for pattern in hosts:
                self._hosts.add(pattern, agent)

    def claim(self, claim: str, agent: str) -> bool:
        """
        Whether another account has a right to a name that this claim stands
        for, as a claim or as an ID.
        """
        return self._hosts.meets(claim, agent) or self._ids.meets(claim, agent)

    def host(self, name: str, agent: str) -> bool:
        """
        Whether another account has a right to claim this name.
        """
        return self._hosts.meets(name, agent)


def check_names(
    names: RelayNames,
    reservations: Reservations,
    agent: str,
    rights: ClaimRights,
    connection_id: str,
    reach: Iterable[Reach],
) -> tuple[str, ...]:
    """
    Look whether an agent may have a server with this ID and these names (S3).

    @return: its claims, as of L{claimed}.
    @raise Rejection: it may not, and why.
    """
    reach = tuple(reach)
    if not rights.may_publish(connection_id):
        raise Rejection(Code.NOT_ALLOWED, f"the account {agent} may not publish {connection_id}")
    fault = names.id_fault(connection_id)
    if fault is not None:
        raise Rejection(Code.NOT_ALLOWED, fault)
    if (
        any(way.kind == "name" or way.value == connection_id for way in reach)
        and reservations.host(connection_id, agent)
        and not rights.may_publish(connection_id, expressly=True)
        and not rights.may_claim(connection_id, expressly=True)
    ):
        raise Rejection(
            Code.NOT_ALLOWED, f"another account has a right to the host name {connection_id}"
        )
    claims = claimed(names, connection_id, reach)
    for claim in claims:
        fault = names.claim_fault(claim, connection_id)
        if fault is not None:
            raise Rejection(Code.NOT_ALLOWED, f"{claim} cannot be claimed: {fault}")
    missing = tuple(claim for claim in claims if not rights.may_claim(claim))
    if missing:
        raise NotGranted(agent, missing)
    taken = tuple(
        claim
        for claim in claims
        if not rights.may_claim(claim, expressly=True) and reservations.claim(claim, agent)
    )
    if taken:
        raise NotGranted(agent, taken)
    return claims
