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
