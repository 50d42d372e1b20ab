"""
What connections are counted by: the sources that they come from.

A source is an IPv4 address or an IPv6 network.  Whoever has an IPv6 address
has a whole network of them (RFC 6177), so that a limit for one address would
be none.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address

__all__ = ["IPV6_PREFIX", "source_of"]

IPV6_PREFIX = 64
"""Bits of an IPv6 address that tell sources apart: RFC 4291, 2.5.4."""
_LONGEST = 128
"""More than any address has characters, its zone included."""
_TRANSLATED = int(IPv6Address("64:ff9b::")) >> 32
"""What RFC 6052 puts in front of an IPv4 address, in 96 bits."""


def source_of(host: str, prefix: int = IPV6_PREFIX) -> str:
    """
    @param host: an address as the kernel, a balancer or a relay writes it.
    @param prefix: how many bits of an IPv6 address tell sources apart.
    @return: what a connection from this address counts for: an IPv4 address
        itself, also one in IPv6 form (mapped, RFC 4291, or translated, RFC
        6052), and the network of an IPv6 address, whatever its zone.
        Anything else is its own source.
    """
    if ":" not in host:
        return host
    return _network_of(host[:_LONGEST], prefix)


@lru_cache(4096)
def _network_of(host: str, prefix: int) -> str:
    try:
        address = IPv6Address(host.partition("%")[0])
    except ValueError:
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    number = int(address)
    if number >> 32 == _TRANSLATED:
        return str(IPv4Address(number & 0xFFFFFFFF))
    rest = 128 - prefix
    return f"{IPv6Address(number >> rest << rest)}/{prefix}"
