"""
Rights, and what covers what.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.accounts.model import Rights, agent_fault
from relaytunnel.errors import AccountError

LABEL = st.text("abcdefgh0123456789-", min_size=1, max_size=8)
NAME = st.lists(LABEL, min_size=1, max_size=4).map(".".join)


class PublishTests(SynchronousTestCase):
    """
    Which connection IDs an agent may publish.
    """

    @given(NAME)
    def test_nothing_by_default(self, name: str) -> None:
        """
        Rights that name nothing allow nothing.
        """
        self.assertFalse(Rights().may_publish(name))

    @given(NAME, NAME)
    def test_exact(self, pattern: str, name: str) -> None:
        """
        A pattern without an asterisk covers itself and nothing else.
        """
        rights = Rights((pattern,))
        self.assertTrue(rights.may_publish(pattern))
        self.assertEqual(rights.may_publish(name), name == pattern)

    @given(NAME)
    def test_everything(self, name: str) -> None:
        """
        A lone asterisk covers every name.
        """
        self.assertTrue(Rights(("*",)).may_publish(name))

    @given(NAME, NAME)
    def test_below_a_suffix(self, suffix: str, below: str) -> None:
        """
        A suffix covers what is below it at any depth, and not itself.
        """
        rights = Rights((f"*.{suffix}",))
        self.assertTrue(rights.may_publish(f"{below}.{suffix}"))
        self.assertFalse(rights.may_publish(suffix))

    @given(NAME, NAME)
    def test_a_suffix_covers_whole_labels(self, suffix: str, name: str) -> None:
        """
        A name is below a suffix exactly if its last labels are those of the suffix.
        """
        wanted, labels = suffix.split("."), name.split(".")
        below = len(labels) > len(wanted) and labels[-len(wanted) :] == wanted
        self.assertEqual(Rights((f"*.{suffix}",)).may_publish(name), below)

    @given(LABEL, NAME)
    def test_no_label_boundary(self, glued: str, suffix: str) -> None:
        """
        C{xoffice} is not below C{office}.
        """
        self.assertFalse(Rights((f"*.{suffix}",)).may_publish(glued + suffix))

    def test_the_empty_name(self) -> None:
        """
        No pattern covers an empty name, or an empty label before a suffix.
        """
        rights = Rights(("*.office", "web"))
        self.assertFalse(Rights(("*",)).may_publish(""))
        self.assertFalse(rights.may_publish(".office"))

    @given(st.lists(NAME, max_size=5), NAME)
    def test_any_pattern_is_enough(self, patterns: list[str], name: str) -> None:
        """
        A name is allowed if one of the patterns covers it.
        """
        self.assertTrue(Rights((*patterns, name)).may_publish(name))

    def test_meaningless_patterns(self) -> None:
        """
        A pattern that has none of the three forms is turned down.
        """
        for pattern in ("", "*.", "a*", "*a", "a.*.b", "**", "*.*"):
            with self.assertRaises(AccountError) as caught:
                Rights((pattern,))
            self.assertIn(repr(pattern), str(caught.exception))


class PortTests(SynchronousTestCase):
    """
    Which ports an agent may ask for.
    """

    @given(st.integers(1, 65535))
    def test_nothing_by_default(self, port: int) -> None:
        """
        Rights that name no ports allow none, whatever may be published.
        """
        self.assertFalse(Rights(("*",)).may_use_port(port))

    @given(st.tuples(st.integers(1, 65535), st.integers(1, 65535)), st.integers(1, 65535))
    def test_both_ends_included(self, ends: tuple[int, int], port: int) -> None:
        """
        A range allows its first port, its last and those between.
        """
        first, last = sorted(ends)
        rights = Rights(ports=((first, last),))
        self.assertTrue(rights.may_use_port(first) and rights.may_use_port(last))
        self.assertEqual(rights.may_use_port(port), first <= port <= last)

    def test_meaningless_ranges(self) -> None:
        """
        A range that is empty or leaves the port numbers is turned down.
        """
        for ports in ((0, 10), (20, 10), (1, 65536), (-5, -1)):
            with self.assertRaises(AccountError):
                Rights(ports=(ports,))


class AgentNameTests(SynchronousTestCase):
    """
    What an agent may be called.
    """

    def test_usual(self) -> None:
        """
        A usual name has no fault.
        """
        self.assertIsNone(agent_fault("office-2.example"))

    def test_unusable(self) -> None:
        """
        A name that would confuse a log or a URL is turned down.
        """
        for name in ("", "a b", "a\nb", "a\x00", "x" * 256, "\ud800"):
            self.assertIsNotNone(agent_fault(name), repr(name))


class HostTests(SynchronousTestCase):
    """
    Rights to host names.
    """

    def test_denied_by_default(self) -> None:
        """
        Who has no right may claim nothing, whatever it may publish.
        """
        rights = Rights(("*",), ((1, 65535),))
        for claim in ("www.example.net", "web", "*.example.net"):
            self.assertFalse(rights.may_claim(claim))

    def test_patterns(self) -> None:
        """
        A pattern is a name, all below one, or everything, which can be left out.
        """
        rights = Rights(hosts=("WWW.Example.NET.", "*.shop.example"))
        for claim in ("www.example.net", "a.shop.example", "a.b.shop.example", "*.shop.example"):
            self.assertTrue(rights.may_claim(claim, expressly=True), claim)
        for claim in ("example.net", "*.example.net", "shop.example", "a.www.example.net"):
            self.assertFalse(rights.may_claim(claim), claim)
        self.assertTrue(Rights(hosts=("*",)).may_claim("*.example.net"))
        self.assertFalse(Rights(hosts=("*",)).may_claim("*.example.net", expressly=True))
        self.assertFalse(Rights(("*",)).may_publish("web", expressly=True))

    def test_bad(self) -> None:
        """
        What is no pattern of host names, or an address, is refused.
        """
        for pattern in ("", "*.", "w*b", "a b", "192.0.2.1"):
            self.assertRaises(AccountError, Rights, hosts=(pattern,))


_ranges = st.tuples(st.integers(1, 30), st.integers(0, 9)).map(lambda two: (two[0], sum(two)))


class ChangeTests(SynchronousTestCase):
    """
    More rights, and fewer.
    """

    @given(st.lists(_ranges, max_size=4), st.lists(_ranges, max_size=4), st.integers(1, 45))
    def test_ports(
        self, had: list[tuple[int, int]], less: list[tuple[int, int]], port: int
    ) -> None:
        """
        Of ports, any part can be given and taken.
        """
        before, other = Rights(ports=tuple(had)), Rights(ports=tuple(less))
        may, others = before.may_use_port(port), other.may_use_port(port)
        self.assertEqual(before.with_more(other).may_use_port(port), may or others)
        self.assertEqual(before.without(other).may_use_port(port), may and not others)

    def test_patterns(self) -> None:
        """
        What is given can be taken again, and then all is as it was.
        """
        before = Rights(("web",), (), ("a.example",))
        more = Rights(("*.office",), ((5, 6),), ("*.b.example",))
        self.assertEqual(before.with_more(more).without(more), before)
        self.assertEqual(before.with_more(before), before)

    def test_part_of_a_pattern(self) -> None:
        """
        A part of what a pattern covers cannot be taken out of it.
        """
        before = Rights(("*",), (), ("*.b.example",))
        for less in (Rights(("web",)), Rights(hosts=("a.b.example",))):
            self.assertRaises(AccountError, before.without, less)
