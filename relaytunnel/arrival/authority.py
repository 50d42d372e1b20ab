"""
The authority: which host, and which port of it, a client names.

Route and access are both decided by the one L{Authority} that is parsed here,
so this is strict where others guess: a spelling that two programs could read
differently is not an authority at all.  Where in a protocol an authority
stands, and what an empty one means there, is the business of the ways.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address

from relaytunnel.errors import ProtocolError

__all__ = ["Authority", "parse_authority", "parse_host"]

# The underscore is in no host name (RFC 1123 2.1), but in many a container's.
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
# A name whose last label looks like a number is read as an IPv4 address by
# some programs ("127.1", "0x7f.1") and as a name by others.
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_MAX_NAME = 253
_PORT = re.compile(rb"[0-9]{1,5}")


@dataclass(frozen=True)
class Authority:
    """
    A host, and the port if one was given (RFC 3986 3.2, without userinfo).

    @ivar host: as in L{relaytunnel.arrival.Named.host}.
    @ivar port: 1 to 65535, or L{None} if none was given.
    """

    host: str
    port: int | None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port is None else f"{host}:{self.port}"

    def same_as(self, other: Authority, default_port: int) -> bool:
        """
        Whether both lead to the same place.

        @param default_port: the port that is meant where none is given (RFC
            9110 4.2.3).
        """
        return self.host == other.host and (self.port or default_port) == (
            other.port or default_port
        )


def parse_authority(data: bytes) -> Authority:
    """
    Read C{uri-host [ ":" port ]} (RFC 9110 7.2).

    @raise ProtocolError: if it is anything else; the message says why.
    """
    if not data.isascii():
        raise ProtocolError("the host is not ASCII; a name in another script needs its xn-- form")
    if b"@" in data:
        raise ProtocolError("the host carries a user name")
    if data.startswith(b"["):
        literal, bracket, rest = data[1:].partition(b"]")
        if not bracket or (rest and not rest.startswith(b":")):
            raise ProtocolError("the IPv6 address in brackets is not complete")
        return Authority(_ipv6(literal.decode("ascii")), _port(rest[1:]))
    host, _, port = data.partition(b":")
    return Authority(parse_host(host), _port(port))


def parse_host(data: bytes) -> str:
    """
    Read a domain name (RFC 1123 2.1) or an IPv4 address, without a port.

    @return: the name in lower case, without a trailing dot.

    @raise ProtocolError: if it is neither; the message says why.
    """
    if not data.isascii():
        raise ProtocolError("the host is not ASCII; a name in another script needs its xn-- form")
    name = data.decode("ascii").lower().removesuffix(".")
    if not name:
        raise ProtocolError("the host is empty")
    if len(name) > _MAX_NAME:
        raise ProtocolError(f"the host is longer than {_MAX_NAME} characters")
    labels = name.split(".")
    for label in labels:
        if not label:
            raise ProtocolError("the host has an empty label")
        if not _LABEL.fullmatch(label):
            raise ProtocolError("the host has a label that is not one of a domain name")
    if _NUMBER.fullmatch(labels[-1]):
        return _ipv4(name)
    return name


def _ipv4(text: str) -> str:
    try:
        return str(IPv4Address(text))
    except AddressValueError:
        raise ProtocolError("the host ends in a number, but is no IPv4 address") from None


def _ipv6(text: str) -> str:
    # A zone is of meaning on one machine only (RFC 4007 6), never to a relay.
    if "%" in text:
        raise ProtocolError("the IPv6 address has a zone")
    try:
        return str(IPv6Address(text))
    except AddressValueError:
        raise ProtocolError("what stands in brackets is no IPv6 address") from None


def _port(data: bytes) -> int | None:
    # "host:" is a valid spelling of "host" (RFC 3986 3.2.3).
    if not data:
        return None
    if not _PORT.fullmatch(data) or not 0 < int(data) < 65536:
        raise ProtocolError("the port is not a number from 1 to 65535")
    return int(data)
