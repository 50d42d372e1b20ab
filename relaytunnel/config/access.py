"""
Networks, and whether a client's address is in one of them.

This is what C{allow} of a server means; the relay looks before it holds
anything of a client, and the agent looks again.  What an agent may publish is
a matter of patterns, in C{names}.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from relaytunnel.config.names import shown

__all__ = ["Network", "allowed", "networks"]

Network = IPv4Network | IPv6Network

_MAPPED = IPv6Network("::ffff:0:0/96")


def networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """
    Read networks such as C{10.0.0.0/8}, C{2001:db8::/32} or one address.
    IPv4 networks written in the IPv6 way become IPv4 networks.

    @raise ValueError: one of them is no network, or has host bits set.
    """
    return tuple(_network(text) for text in texts)


def _network(text: str) -> Network:
    try:
        found = ip_network(text, strict=False)
    except ValueError:
        raise ValueError(
            f"{shown(text)}: not a network; write for example 10.0.0.0/8 or 2001:db8::/32"
        ) from None
    try:
        ip_network(text)
    except ValueError:
        raise ValueError(f"{shown(text)}: has host bits set; did you mean '{found}'?") from None
    if isinstance(found, IPv6Network) and found.subnet_of(_MAPPED):
        low = int(found.network_address) & 0xFFFFFFFF
        return IPv4Network((low, found.prefixlen - 96))
    return found


def allowed(networks: tuple[Network, ...], ip: str) -> bool:
    """
    Tell whether a client's address is in one of the networks.

    No networks at all mean everybody.  IPv4 addresses in IPv6 form count as
    IPv4.  What is not an IP address is not allowed where a list is given.
    """
    if not networks:
        return True
    try:
        address = ip_address(ip.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address in network for network in networks)
