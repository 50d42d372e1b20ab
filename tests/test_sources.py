"""
Tests of what connections are counted by.
"""

from __future__ import annotations

from ipaddress import IPv6Address, IPv6Network, ip_network

from hypothesis import given, settings
from hypothesis import strategies as st

from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.sources import source_of


class SourceTests(SynchronousTestCase):
    """
    What a connection counts for.
    """

    def test_ipv4(self) -> None:
        """
        An IPv4 address counts for itself.
        """
        self.assertEqual(source_of("192.0.2.1"), "192.0.2.1")

    def test_ipv6(self) -> None:
        """
        An IPv6 address counts for its /64, however it is written.
        """
        for host in ("2001:db8::1", "2001:DB8:0:0:ffff::2", "2001:db8::3%eth0"):
            self.assertEqual(source_of(host), "2001:db8::/64")
        self.assertEqual(source_of("2001:db8:0:1::1"), "2001:db8:0:1::/64")

    def test_zones(self) -> None:
        """
        A link's addresses count for one, whatever the zone is called.
        """
        for host in ("fe80::1%eth0", "fe80::2%7", "fe80::3"):
            self.assertEqual(source_of(host), "fe80::/64")

    def test_prefix(self) -> None:
        """
        The network may be a site's, or a single address.
        """
        self.assertEqual(source_of("2001:db8:1:2::3", 48), "2001:db8:1::/48")
        self.assertEqual(source_of("2001:db8:1:2::3", 128), "2001:db8:1:2::3/128")
        self.assertEqual(source_of("8001:db8::", 1), "8000::/1")
        self.assertEqual(source_of("192.0.2.1", 1), "192.0.2.1")

    def test_ipv4_in_ipv6(self) -> None:
        """
        An IPv4 address in IPv6 form is one of IPv4, whatever the prefix.
        """
        for host in ("::ffff:192.0.2.1", "::FFFF:c000:201", "64:ff9b::192.0.2.1"):
            for prefix in (1, 64, 128):
                self.assertEqual(source_of(host, prefix), "192.0.2.1")
        self.assertEqual(source_of("64:ff9b:1::192.0.2.1"), "64:ff9b:1::/64")

    @settings(deadline=None, max_examples=100)
    @given(st.ip_addresses(v=6), st.integers(0, (1 << 128) - 1), st.integers(1, 128))
    def test_neighbours(self, address: IPv6Address, other: int, prefix: int) -> None:
        """
        Exactly those of a network count for the same.
        """
        network = ip_network((address, prefix), strict=False)
        assert isinstance(network, IPv6Network)
        host = int(network.hostmask)
        neighbour = IPv6Address((int(address) & ~host) | (other & host))
        stranger = IPv6Address(int(address) ^ (host + 1))
        ours = source_of(str(address), prefix)
        if ":" in ours and ":" in source_of(str(neighbour), prefix):
            self.assertEqual(source_of(str(neighbour), prefix), ours)
        self.assertNotEqual(source_of(str(stranger), prefix), ours)

    def test_no_address(self) -> None:
        """
        What is no address, as of a UNIX socket, counts for itself; of one that
        is too long for an address the beginning does.
        """
        for host in ("", "a name", "a:b"):
            self.assertEqual(source_of(host), host)
        self.assertEqual(source_of("a:" * 100), "a:" * 64)
