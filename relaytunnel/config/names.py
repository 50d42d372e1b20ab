"""
The names that configurations, invitations and messages are made of.

Pure checks of text: connection IDs, agent IDs, host names, publish patterns,
port ranges and ways to reach a server.  Each function gives the text back in
its one canonical form or raises L{ValueError} with a reason that quotes what
was given.  Endpoint descriptions live in C{endpoints}, networks in C{access},
secrets and their hashes elsewhere.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv6Address

import idna

__all__ = [
    "PortRange",
    "Reach",
    "agent_id",
    "connection_id",
    "host",
    "host_name",
    "host_pattern",
    "matches",
    "port_number",
    "printable",
    "publish_pattern",
    "shown",
]

_LONGEST_SHOWN = 80
_LONGEST_NAME = 253  # RFC 1035, section 2.3.4, written without the dot at the end
_LAST_PORT = 65535

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_AGENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DIGITS = re.compile(r"[0-9]{1,5}")


def shown(text: str) -> str:
    """
    Quote a text for a message: one line, ASCII only, cut at 80 characters.
    """
    return ascii(text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "...")


def printable(text: str, most: int = 256) -> str:
    """
    Make what somebody else said fit for the log: one line, in which what
    cannot be printed is escaped, cut at so many characters.
    """
    if text.isprintable() and len(text) <= most:
        return text
    cut = text[:most]
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in cut)[:most]


def _labels(text: str, original: str) -> str:
    for label in text.split("."):
        if not _LABEL.fullmatch(label):
            raise ValueError(
                f"{shown(original)}: each label between the dots is 1 to 63 of a-z, 0-9 and '-',"
                " with no '-' at its ends"
            )
    return text


def connection_id(text: str) -> str:
    """
    Check a connection ID: labels joined by dots, 253 characters at most.

    @return: the ID in lower case.
    @raise ValueError: it cannot be one.
    """
    if not text:
        raise ValueError("a connection ID cannot be empty")
    if len(text) > _LONGEST_NAME:
        raise ValueError(f"{shown(text)}: a connection ID has 253 characters at most")
    return _labels(text.lower() if text.isascii() else text, text)


def agent_id(text: str) -> str:
    """
    Check an agent ID: 1 to 64 of letters, digits, C{._-}; case matters.

    @raise ValueError: it cannot be one.
    """
    if not _AGENT.fullmatch(text):
        raise ValueError(
            f"{shown(text)}: an agent ID is 1 to 64 of A-Z, a-z, 0-9, '.', '_' and '-',"
            " and begins with a letter or digit"
        )
    return text


def host_name(text: str) -> str:
    """
    Bring a DNS host name into its one form: A-labels (RFC 5891), lower case,
    no dot at the end.

    @raise ValueError: it is no host name.
    """
    bare = text.removesuffix(".")
    if not bare:
        raise ValueError("a host name cannot be empty")
    if len(bare) > _LONGEST_NAME:
        raise ValueError(f"{shown(text)}: a host name has 253 characters at most")
    if bare.isascii() and "xn--" not in bare.lower():
        # Not by way of IDNA, which refuses the "--" of names that are in use.
        return _labels(bare.lower(), text)
    try:
        encoded = idna.encode(bare, uts46=True).decode("ascii").rstrip(".")
    except UnicodeError as error:
        raise ValueError(f"{shown(text)}: not an internationalized host name") from error
    if len(encoded) > _LONGEST_NAME:
        raise ValueError(f"{shown(text)}: a host name has 253 characters at most when encoded")
    return _labels(encoded.lower(), text)


def host_pattern(text: str) -> str:
    """
    Check a host name that may begin with C{*.}, for one label of any name.

    @raise ValueError: it is neither a host name nor C{*.} and one.
    """
    if text.startswith("*."):
        return "*." + host_name(text[2:])
    return host_name(text)


def host(text: str) -> str:
    """
    Check the place where a relay is found: a host name or an IP address.

    @return: the name as by L{host_name}, or the address in its short form.
    @raise ValueError: it is neither.
    """
    if ":" not in text:
        return host_name(text)
    try:
        address = IPv6Address(text)
    except ValueError:
        raise ValueError(f"{shown(text)}: neither a host name nor an IP address") from None
    if address.scope_id is not None:
        raise ValueError(f"{shown(text)}: an address with a zone is known to this machine only")
    return str(address)


def port_number(text: str, lowest: int = 1) -> int:
    """
    Read a TCP port.

    @param lowest: the least port that makes sense here; 0 where it means "any".
    @raise ValueError: it is no number, or out of range.
    """
    if not _DIGITS.fullmatch(text) or not lowest <= int(text) <= _LAST_PORT:
        raise ValueError(f"{shown(text)}: a port is a number from {lowest} to 65535")
    return int(text)


def publish_pattern(text: str) -> str:
    """
    Check a pattern of connection IDs: C{*}, C{*.SUFFIX} or one exact ID.

    @raise ValueError: it is none of these.
    """
    if text == "*":
        return text
    if text.startswith("*."):
        return "*." + connection_id(text[2:])
    return connection_id(text)


def matches(pattern: str, connection_id: str) -> bool:
    """
    Tell whether a publish pattern covers a connection ID, both in canonical
    form.  C{*.SUFFIX} covers everything below the suffix at any depth, but
    not the suffix itself.
    """
    if pattern == "*":
        return True
    if pattern.startswith("*."):
        return connection_id.endswith(pattern[1:]) and len(connection_id) >= len(pattern)
    return connection_id == pattern


@dataclass(frozen=True)
class PortRange:
    """
    TCP ports from C{first} to C{last}, both included.

    @raise ValueError: a port is not from 1 to 65535, or first is after last.
    """

    first: int
    last: int

    def __post_init__(self) -> None:
        if not 1 <= self.first <= self.last <= _LAST_PORT:
            raise ValueError(f"'{self}': ports go upwards, from 1 to 65535")

    @classmethod
    def parse(cls, text: str) -> PortRange:
        """
        Read C{20000-20999}, or C{20001} for a single port.

        @raise ValueError: it is neither.
        """
        first, dash, last = text.partition("-")
        try:
            return cls(port_number(first), port_number(last if dash else first))
        except ValueError:
            raise ValueError(
                f"{shown(text)}: a port range is FIRST-LAST, upwards, from 1 to 65535"
            ) from None

    def __contains__(self, port: int) -> bool:
        return self.first <= port <= self.last

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


@dataclass(frozen=True)
class Reach:
    """
    One way in which clients may reach a server.

    @ivar kind: C{host}, C{sni}, C{port}, or C{name} for "by its connection ID".
    @ivar value: the host pattern, the port in decimal, or nothing.
    @raise ValueError: the value does not fit the kind.
    """

    kind: str
    value: str = ""

    def __post_init__(self) -> None:
        if self.kind in ("host", "sni"):
            value = host_pattern(self.value)
        elif self.kind == "port":
            value = str(port_number(self.value, lowest=0))
        elif self.kind == "name":
            if self.value:
                raise ValueError(
                    f"{shown(self.value)}: 'name' stands alone, with nothing behind it"
                )
            value = ""
        else:
            raise ValueError(
                f"{shown(self.kind)}: expected host:NAME, sni:NAME, port:NUMBER or name"
            )
        object.__setattr__(self, "value", value)

    @classmethod
    def parse(cls, text: str) -> Reach:
        """
        Read C{host:web.example.net}, C{sni:*.example.net}, C{port:20001} or C{name}.

        @raise ValueError: it is none of these.
        """
        kind, colon, value = text.partition(":")
        if kind == "name" and colon:
            raise ValueError(f"{shown(text)}: 'name' stands alone, with nothing behind it")
        return cls(kind, value)

    @property
    def port(self) -> int:
        """
        The port of a C{port} reach; 0 is any free port of the relay's range.

        @raise ValueError: this is another kind of reach.
        """
        if self.kind != "port":
            raise ValueError(f"'{self}' has no port")
        return int(self.value)

    def __str__(self) -> str:
        return self.kind if self.kind == "name" else f"{self.kind}:{self.value}"
