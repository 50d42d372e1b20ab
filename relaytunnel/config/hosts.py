"""
Host names as rights and claims, and the names of the relay itself.

A I{claim} is the host name, or C{*.} and one, by which a server wants to be
reached; a I{right} is a pattern of claims that an account has.  Pure: who has
which right is known to C{accounts}, who claims what to C{relay.registry}.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache
from ipaddress import ip_address
from typing import TYPE_CHECKING

from relaytunnel.config.names import host, host_pattern

if TYPE_CHECKING:
    from publicsuffixlist import PublicSuffixList

__all__ = [
    "ID_ANYWHERE_WARNING",
    "LOCALHOST",
    "RelayNames",
    "claim_fault",
    "host_right",
    "is_address",
    "parents",
]

LOCALHOST = "localhost"
"""A name of every relay (RFC 6761, section 6.3): it leads to this machine."""

ID_ANYWHERE_WARNING = (
    "[relay] id-anywhere is on: whoever may publish an ID gets the clients of every host name"
    " that begins with it and that nobody has claimed; list the names that lead here in [relay]"
    " names instead"
)
"""What to say of a relay where an ID is looked for in any host name."""

_WILDCARD = "*."
_BELOW = "names below the relay's own belong to the servers with these IDs"

# What the URL Standard calls "ends in a number": programs take such a host for
# an IPv4 address, in one of several spellings.
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")


def host_right(text: str) -> str:
    """
    Check a pattern of claims: a host name, C{*.SUFFIX} or C{*}.

    C{*.SUFFIX} covers every name below the suffix at any depth and the claim
    C{*.SUFFIX}, but not the suffix itself; see
    L{relaytunnel.config.names.matches}.

    @return: the pattern with its name as of L{host_name}.
    @raise ValueError: it is none of these, or an address.
    """
    if text == "*":
        return text
    pattern = host_pattern(text)
    if _ends_in_number(pattern):
        raise ValueError(f"'{pattern}': an address is no name that a server can have")
    return pattern


def is_address(name: str) -> bool:
    """
    Whether this is an IP address, as text.
    """
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def parents(name: str) -> Iterator[str]:
    """
    Yield the names above this one, the nearest first.
    """
    while name := name.partition(".")[2]:
        yield name


def claim_fault(claim: str) -> str | None:
    """
    Why no server whatever may have this claim, or L{None}.

    @param claim: in the form of L{host_pattern}.
    """
    if _ends_in_number(claim):
        return "it is an address, or stands for addresses"
    suffix = claim.removeprefix(_WILDCARD)
    if suffix != claim and _is_public_suffix(suffix):
        return f"the names below {suffix} are registered by many, so it stands for all of these"
    return None


def _ends_in_number(name: str) -> bool:
    return _NUMBER.fullmatch(name.rpartition(".")[2]) is not None


_PRIVATE = frozenset({"home.arpa"})
"""In the list, and yet everybody's own (RFC 8375)."""


@cache
def _suffixes() -> PublicSuffixList:
    # 60 ms and 4 MiB, for those who need it.
    from publicsuffixlist import PublicSuffixList

    return PublicSuffixList(accept_unknown=False, only_icann=True)


def _is_public_suffix(name: str) -> bool:
    """
    Whether this is a suffix of the public DNS (publicsuffix.org, the part of
    the registries).  Names of private networks, such as C{lan}, are not in the
    list and so are none.
    """
    return name not in _PRIVATE and bool(_suffixes().is_public(name))


class RelayNames:
    """
    The names of a relay, and which servers go by names below them.

    @ivar names: the names, C{localhost} among them.
    @ivar id_anywhere: whether an ID also names a server at the start of any
        other host name.
    """

    def __init__(self, names: Iterable[str] = (), id_anywhere: bool = False) -> None:
        """
        @param names: names or addresses of the relay.
        @raise ValueError: one of them is neither.
        """
        self.names = frozenset({*map(host, names), LOCALHOST})
        self.id_anywhere = id_anywhere
        # Of two names that end a third, the longer is meant.
        self._below = sorted((f".{name}" for name in self.names), key=len, reverse=True)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RelayNames):
            return NotImplemented
        return (self.names, self.id_anywhere) == (other.names, other.id_anywhere)

    def __hash__(self) -> int:
        return hash((self.names, self.id_anywhere))

    def own(self, name: str) -> bool:
        """
        Whether this means the relay itself: one of its names, or an address,
        which is no server's name.
        """
        return name in self.names or is_address(name)

    def below(self, name: str) -> str | None:
        """
        @return: the connection ID that a name below one of the relay's stands
            for, which is all that comes before that; L{None} for any other name.
        """
        for suffix in self._below:
            if name.endswith(suffix):
                return name[: -len(suffix)]
        return None

    def of(self, connection_id: str) -> set[str]:
        """
        @return: the host names that belong to this ID.
        """
        return {connection_id, *(connection_id + suffix for suffix in self._below)}

    def ids(self, name: str) -> Iterator[str]:
        """
        Yield what may be the ID in a name, the likeliest first; one at most
        unless an ID is looked for anywhere.

        @param name: none of the relay's own.
        """
        below = self.below(name)
        if below is not None:
            yield below
            return
        yield name
        while self.id_anywhere and (name := name.rpartition(".")[0]):
            yield name

    def id_fault(self, connection_id: str) -> str | None:
        """
        Why no server at this relay can have this ID, or L{None}.
        """
        if self.own(connection_id):
            return f"{connection_id} means the relay itself"
        for suffix in self._below:
            if connection_id.endswith(suffix):
                return f"an ID cannot end in {suffix[1:]}, which is a name of the relay"
            name = connection_id + suffix
            if self.own(name) or self.below(name) != connection_id:
                return f"{name} means something else at this relay"
        return None

    def right_fault(self, pattern: str) -> str | None:
        """
        Why a right to these host names would have no effect here, or L{None}.

        @param pattern: as of L{host_right}.
        """
        name = pattern.removeprefix(_WILDCARD)
        if name in self.names or self.below(name) is not None:
            return f"{_BELOW}; a right to publish ID gives ID.RELAYNAME"
        return None

    def claim_fault(self, claim: str, connection_id: str) -> str | None:
        """
        Why the server of this ID may not have this claim, whatever its account
        allows; L{None} if it may, or if it is its own name already.
        """
        if claim in self.of(connection_id):
            return None
        name = claim.removeprefix(_WILDCARD)
        if name in self.names:
            return "it is the relay's own name" if name == claim else _BELOW
        if self.below(name) is not None:
            return _BELOW
        return claim_fault(claim)
