"""
Tests of host names as rights and claims, and of the relay's own names.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.config.hosts import RelayNames, claim_fault, host_right, parents
from relaytunnel.config.names import host_pattern, matches

_labels = st.sampled_from(["a", "b", "relay", "web", "net"])
_names = st.lists(_labels, min_size=1, max_size=4).map(".".join)
_claims = st.builds(lambda wild, name: "*." * wild + name, st.booleans(), _names)


class RightTests(SynchronousTestCase):
    """
    Patterns of claims.
    """

    def test_forms(self) -> None:
        """
        A pattern is a host name, all below one, or everything, in one spelling.
        """
        for text, pattern in (
            ("*", "*"),
            ("WWW.Example.NET.", "www.example.net"),
            ("*.Bücher.example", "*.xn--bcher-kva.example"),
        ):
            self.assertEqual(host_right(text), pattern)

    def test_none(self) -> None:
        """
        What is no such thing, or an address, is refused.
        """
        for text in ("", "*.", "**", "*.*", "w*b", "a.*.b", "a..b", "192.0.2.1", "*.0.0.1", "::1"):
            with self.assertRaises(ValueError):
                host_right(text)

    def test_depth(self) -> None:
        """
        A wildcard covers what is below at any depth and the same wildcard, but
        not the name itself.
        """
        for claim in ("a.example.net", "a.b.example.net", "*.example.net", "*.b.example.net"):
            self.assertTrue(matches("*.example.net", claim), claim)
        for claim in ("example.net", "badexample.net", "*.net", "net", "*.badexample.net"):
            self.assertFalse(matches("*.example.net", claim), claim)
        self.assertFalse(matches("example.net", "*.example.net"))

    @given(_names, _claims, _names)
    def test_nothing_beyond(self, suffix: str, claim: str, below: str) -> None:
        """
        Every name that a covered claim stands for is covered by itself.
        """
        if matches(f"*.{suffix}", claim):
            name = claim.replace("*", below)
            self.assertTrue(matches(f"*.{suffix}", name))


class ClaimTests(SynchronousTestCase):
    """
    What nobody can claim at any relay.
    """

    def test_addresses(self) -> None:
        """
        No address in any spelling, and no wildcard that stands for some.
        """
        for claim in ("192.0.2.1", "*.0.2.1", "127.1", "2130706433", "0x7f.1", "*.0x7f", "a.0x"):
            self.assertIsNotNone(claim_fault(host_pattern(claim)), claim)
        for claim in ("1.example", "a1.b2", "*.1.example", "0x7f.example"):
            self.assertIsNone(claim_fault(claim), claim)

    def test_public_suffixes(self) -> None:
        """
        No wildcard for what many register: not for top-level domains, nor for
        what takes their place.  A private network's names are its own.
        """
        for claim in ("*.com", "*.co.uk", "*.xn--p1ai", "*.ck", "*.anything.ck"):
            self.assertIsNotNone(claim_fault(claim), claim)
        for claim in (
            "com",
            "*.example.com",
            "*.example.co.uk",
            "*.lan",
            "*.home.arpa",
            "*.www.ck",
        ):
            self.assertIsNone(claim_fault(claim), claim)


class RelayNameTests(SynchronousTestCase):
    """
    The names of a relay, and what is below them.
    """

    def setUp(self) -> None:
        self.names = RelayNames(["Example.NET.", "relay.example.net", "198.51.100.7"])

    def test_own(self) -> None:
        """
        The relay's own are its names, localhost, and every address.
        """
        for name in ("example.net", "relay.example.net", "localhost", "192.0.2.1", "::1"):
            self.assertTrue(self.names.own(name), name)
        for name in ("web.example.net", "net", "web.localhost", "web"):
            self.assertFalse(self.names.own(name), name)

    def test_below(self) -> None:
        """
        All that comes before one of its names is the ID; the longest name counts.
        """
        for name, connection_id in (
            ("web.example.net", "web"),
            ("a.web.example.net", "a.web"),
            ("web.relay.example.net", "web"),
            ("a.web.relay.example.net", "a.web"),
            ("web.localhost", "web"),
            ("web", None),
            ("web.example.org", None),
            ("webexample.net", None),
        ):
            self.assertEqual(self.names.below(name), connection_id, name)

    def test_ids_that_are_none(self) -> None:
        """
        No ID is a name of the relay, or ends in one, or is an address, or
        would be hidden by another name of the relay.
        """
        for connection_id in (
            "example.net",
            "relay.example.net",
            "web.example.net",
            "a.b.relay.example.net",
            "localhost",
            "web.localhost",
            "192.0.2.1",
            "relay",
            "web.relay",
        ):
            self.assertIsNotNone(self.names.id_fault(connection_id), connection_id)
        for connection_id in ("web", "net", "web.example", "relay.web", "www.example.org", "42"):
            self.assertIsNone(self.names.id_fault(connection_id), connection_id)

    @given(_names)
    def test_one_name_each(self, connection_id: str) -> None:
        """
        Each of its own names leads to an ID that there can be, and no other does.
        """
        if self.names.id_fault(connection_id) is None:
            for name in self.names.of(connection_id):
                self.assertEqual(next(self.names.ids(name)), connection_id)
                self.assertEqual(list(self.names.ids(name)), [connection_id])

    @given(_claims, _names)
    def test_claims(self, claim: str, connection_id: str) -> None:
        """
        A server may claim its own names; of what is the relay's or below that
        it may claim nothing else, also as a wildcard.
        """
        fault = self.names.claim_fault(claim, connection_id)
        name = claim.removeprefix("*.")
        if claim in self.names.of(connection_id):
            self.assertIsNone(fault)
        elif name in self.names.names or self.names.below(name) is not None:
            self.assertIsNotNone(fault)

    def test_wildcard_above(self) -> None:
        """
        A wildcard for what the relay's name is one of may be claimed; it does
        not stand for the relay's name.
        """
        names = RelayNames(["relay.example.net"])
        self.assertIsNone(names.claim_fault("*.example.net", "web"))
        self.assertEqual(list(names.ids("web.relay.example.net")), ["web"])

    def test_anywhere(self) -> None:
        """
        If an ID is looked for anywhere, the longest comes first.
        """
        names = RelayNames(["relay.example"], id_anywhere=True)
        self.assertEqual(list(names.ids("a.b.c")), ["a.b.c", "a.b", "a"])
        self.assertEqual(list(names.ids("a.b.relay.example")), ["a.b"])

    def test_compared(self) -> None:
        """
        Two are the same if they mean the same.
        """
        self.assertEqual(
            RelayNames(["a.example", "B.example"]), RelayNames(["b.example", "a.example"])
        )
        self.assertNotEqual(RelayNames(["a.example"]), RelayNames(["a.example"], id_anywhere=True))

    def test_no_name(self) -> None:
        """
        What is no name is refused.
        """
        with self.assertRaises(ValueError):
            RelayNames(["a b"])

    def test_parents(self) -> None:
        """
        The names above a name, the nearest first.
        """
        self.assertEqual(list(parents("a.b.c")), ["b.c", "c"])
        self.assertEqual(list(parents("a")), [])
