"""
Tests of networks, and of who is in them.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network

from hypothesis import given, settings
from hypothesis import strategies as st

from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.config.access import allowed, networks


class NetworksTests(SynchronousTestCase):
    """
    Networks as texts.
    """

    def test_both_families(self) -> None:
        """
        Networks of both families are read, and a lone address is a network of one.
        """
        self.assertEqual(
            networks(["10.0.0.0/8", "2001:db8::/32", "192.0.2.1"]),
            (
                IPv4Network("10.0.0.0/8"),
                IPv6Network("2001:db8::/32"),
                IPv4Network("192.0.2.1/32"),
            ),
        )

    def test_mapped(self) -> None:
        """
        An IPv4 network written as IPv6 is an IPv4 network.
        """
        self.assertEqual(networks(["::ffff:10.0.0.0/104"]), (IPv4Network("10.0.0.0/8"),))

    def test_host_bits(self) -> None:
        """
        A network with host bits set is refused, and the right one proposed.
        """
        error = self.assertRaises(ValueError, networks, ["10.0.0.1/8"])
        self.assertIn("did you mean '10.0.0.0/8'?", str(error))

    def test_refused(self) -> None:
        """
        Names and broken addresses are no networks.
        """
        for text in ("", "localhost", "10.0.0.0/33", "10.0.0", "::1::/64", "/8"):
            self.assertRaises(ValueError, networks, [text])


class AllowedTests(SynchronousTestCase):
    """
    Whether a client may come.
    """

    def test_everybody(self) -> None:
        """
        Without a list everybody may, also who has no address.
        """
        self.assertTrue(allowed((), "192.0.2.1"))
        self.assertTrue(allowed((), ""))

    def test_inside_and_outside(self) -> None:
        """
        With a list only those in one of its networks may.
        """
        some = networks(["10.0.0.0/8", "2001:db8::/32"])
        self.assertTrue(allowed(some, "10.255.255.255"))
        self.assertTrue(allowed(some, "2001:db8::7"))
        self.assertFalse(allowed(some, "11.0.0.0"))
        self.assertFalse(allowed(some, "2001:db9::"))

    def test_mapped_address(self) -> None:
        """
        A client that a dual-stack socket shows in IPv6 form counts as IPv4.
        """
        some = networks(["10.0.0.0/8"])
        self.assertTrue(allowed(some, "::ffff:10.1.2.3"))
        self.assertFalse(allowed(some, "::ffff:11.1.2.3"))

    def test_zone(self) -> None:
        """
        The zone of a link-local address does not matter.
        """
        self.assertTrue(allowed(networks(["fe80::/10"]), "fe80::1%eth0"))

    def test_no_address(self) -> None:
        """
        Who has no IP address, as on a UNIX socket, is not in any network.
        """
        self.assertFalse(allowed(networks(["0.0.0.0/0", "::/0"]), ""))

    @settings(deadline=None, max_examples=100)
    @given(st.ip_addresses())
    def test_all_of_a_family(self, address: object) -> None:
        """
        The two networks of everything allow every address.
        """
        self.assertTrue(allowed(networks(["0.0.0.0/0", "::/0"]), str(address)))
