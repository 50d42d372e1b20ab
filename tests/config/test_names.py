"""
Tests of the forms of names.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.config.names import (
    PortRange,
    Reach,
    agent_id,
    connection_id,
    host,
    host_name,
    host_pattern,
    matches,
    port_number,
    printable,
    publish_pattern,
    shown,
)

modest = settings(deadline=None, max_examples=100)

labels = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)
ids = st.lists(labels, min_size=1, max_size=4).map(".".join)
ports = st.integers(1, 65535)
reaches = st.one_of(
    st.just(Reach("name")),
    st.integers(0, 65535).map(lambda port: Reach("port", str(port))),
    st.builds(Reach, st.sampled_from(["host", "sni"]), ids.filter(lambda i: "xn--" not in i)),
)


class PrintableTests(SynchronousTestCase):
    """
    What others say, for the log.
    """

    @settings(deadline=None, max_examples=100)
    @given(st.text(max_size=300))
    def test_anything(self, text: str) -> None:
        """
        Whatever it is, it is one line of bounded length without anything that
        cannot be printed; what is so already stays as it is.
        """
        found = printable(text)
        self.assertTrue(found.isprintable())
        self.assertLessEqual(len(found), 256)
        if text.isprintable():
            self.assertEqual(found, text[:256])

    def test_escaped(self) -> None:
        """
        What cannot be printed is escaped, the rest is not.
        """
        self.assertEqual(printable("a\r\n\x1b[2J\u202eé"), "a\\r\\n\\x1b[2J\\u202eé")
        self.assertEqual(printable("\0" * 10, 6), "\\x00\\x")


class ConnectionIdTests(SynchronousTestCase):
    """
    What may be a connection ID.
    """

    def test_lower_case(self) -> None:
        """
        An ID comes back in lower case.
        """
        self.assertEqual(connection_id("Web.Office-1"), "web.office-1")

    def test_refused(self) -> None:
        """
        Empty and long labels, hyphens at an end, other characters and long
        IDs are refused.
        """
        for text in (
            "",
            ".",
            "a..b",
            "-a",
            "a-",
            "a_b",
            "a b",
            "a\n",
            "b\u00fcro",
            "\u212a",  # the Kelvin sign, which becomes a plain k in lower case
            "a" * 64,
            ".".join(["a" * 63] * 4),
        ):
            self.assertRaises(ValueError, connection_id, text)

    def test_longest(self) -> None:
        """
        Labels of 63 characters and IDs of 253 are taken.
        """
        text = ".".join(["a" * 63] * 3 + ["b" * 61])
        self.assertEqual(len(text), 253)
        self.assertEqual(connection_id(text), text)

    def test_quoted(self) -> None:
        """
        The reason quotes what was given, on one line and not at length.
        """
        error = self.assertRaises(ValueError, connection_id, "x\n" * 60)
        self.assertIn(r"'x\nx\n", str(error))
        self.assertNotIn("\n", str(error))
        self.assertEqual(shown("x" * 1000), repr("x" * 80 + "..."))

    @modest
    @given(st.text(max_size=80))
    def test_any_text(self, text: str) -> None:
        """
        Any text is either refused with L{ValueError} or stays as it then is.
        """
        for check in (connection_id, agent_id, host_name, host_pattern, host, publish_pattern):
            try:
                once = check(text)
            except ValueError:
                continue
            self.assertEqual(check(once), once)


class AgentIdTests(SynchronousTestCase):
    """
    What may be an agent ID.
    """

    def test_accepted(self) -> None:
        """
        Letters of both cases, digits and some punctuation are kept as they are.
        """
        for text in ("office", "Office_1.b-c", "7", "a" * 64):
            self.assertEqual(agent_id(text), text)

    def test_refused(self) -> None:
        """
        It begins with a letter or digit, has 64 characters at most, and is
        not empty.
        """
        for text in ("", ".a", "-a", "_a", "a:b", "a@b", "a b", "a\n", "\u00e9", "a" * 65):
            self.assertRaises(ValueError, agent_id, text)


class HostTests(SynchronousTestCase):
    """
    Host names and addresses.
    """

    def test_canonical(self) -> None:
        """
        A host name comes back in lower case and without the dot at its end.
        """
        self.assertEqual(host_name("Web.Example.NET."), "web.example.net")

    def test_international(self) -> None:
        """
        A name in another script becomes A-labels.
        """
        self.assertEqual(host_name("B\u00dcCHER.example"), "xn--bcher-kva.example")
        self.assertEqual(host_name("xn--bcher-kva.example"), "xn--bcher-kva.example")

    def test_hyphens_in_use(self) -> None:
        """
        Names with two hyphens in the third place exist and are taken.
        """
        self.assertEqual(host_name("r3---sn.example"), "r3---sn.example")

    def test_refused(self) -> None:
        """
        What cannot stand in DNS is no host name, nor is a bad A-label.
        """
        for text in (
            "",
            ".",
            "a..b",
            "a b",
            "a_b",
            "a:80",
            "*.a",
            "xn--\u00fc",
            "xn--0",
            "a" * 254,
        ):
            self.assertRaises(ValueError, host_name, text)

    def test_pattern(self) -> None:
        """
        Only a pattern may begin with a star, and only with one whole label.
        """
        self.assertEqual(host_pattern("*.Example.net"), "*.example.net")
        self.assertEqual(host_pattern("example.net"), "example.net")
        for text in ("*", "*.", "a*.example", "*.*.example", "a.*"):
            self.assertRaises(ValueError, host_pattern, text)

    def test_addresses(self) -> None:
        """
        A relay may be found by IPv4 and IPv6 addresses too, without a zone.
        """
        self.assertEqual(host("192.0.2.1"), "192.0.2.1")
        self.assertEqual(host("2001:DB8:0::1"), "2001:db8::1")
        for text in ("fe80::1%eth0", "1:2", "a:80", "[::1]"):
            self.assertRaises(ValueError, host, text)

    def test_port(self) -> None:
        """
        A port is a plain decimal number; 0 is only taken where it is asked for.
        """
        self.assertEqual(port_number("65535"), 65535)
        self.assertEqual(port_number("0", lowest=0), 0)
        for text in ("", "0", "65536", "-1", "+1", " 1", "1\n", "1_0", "\u0661", "9" * 5000):
            self.assertRaises(ValueError, port_number, text)


class PatternTests(SynchronousTestCase):
    """
    Which IDs an agent may publish.
    """

    def test_exact(self) -> None:
        """
        Without a star a pattern covers itself only.
        """
        self.assertTrue(matches("web", "web"))
        self.assertFalse(matches("web", "web2"))
        self.assertFalse(matches("web", "a.web"))

    def test_everything(self) -> None:
        """
        The lone star covers every ID.
        """
        self.assertTrue(matches("*", "a.b.c"))

    def test_suffix(self) -> None:
        """
        A star before a suffix covers all that is below it, at any depth.
        """
        self.assertTrue(matches("*.office", "web.office"))
        self.assertTrue(matches("*.office", "a.b.office"))
        self.assertTrue(matches("*.office", "a.office"))

    def test_not_the_suffix_itself(self) -> None:
        """
        The suffix itself, and what merely ends like it, are not covered.
        """
        self.assertFalse(matches("*.office", "office"))
        self.assertFalse(matches("*.office", "backoffice"))
        self.assertFalse(matches("*.office", "office.web"))

    def test_forms(self) -> None:
        """
        Patterns come into lower case; a star elsewhere is refused.
        """
        self.assertEqual(publish_pattern("*.Office"), "*.office")
        self.assertEqual(publish_pattern("*"), "*")
        self.assertEqual(publish_pattern("Web"), "web")
        for text in ("", "**", "*.", "*web", "a.*", "*.*"):
            self.assertRaises(ValueError, publish_pattern, text)

    @modest
    @given(ids, ids)
    def test_below(self, suffix: str, front: str) -> None:
        """
        Whatever stands before a suffix and a dot is covered by its star.
        """
        self.assertTrue(matches(f"*.{suffix}", f"{front}.{suffix}"))
        self.assertFalse(matches(f"*.{suffix}", suffix))


class PortRangeTests(SynchronousTestCase):
    """
    Ranges of ports.
    """

    def test_both_ends(self) -> None:
        """
        The first and the last port are in the range, their neighbours are not.
        """
        ports = PortRange.parse("20000-20999")
        self.assertEqual(
            [port in ports for port in (19999, 20000, 20999, 21000)], [False, True, True, False]
        )

    def test_single(self) -> None:
        """
        A single port is a range of one, and is written so.
        """
        self.assertEqual(PortRange.parse("20001"), PortRange(20001, 20001))
        self.assertEqual(str(PortRange(20001, 20001)), "20001")

    def test_refused(self) -> None:
        """
        Ranges that go downwards, past the ports that exist, or are no numbers
        are refused with a reason that quotes them.
        """
        for text in ("", "-", "1-", "-1", "2-1", "0-5", "1-65536", "1-2-3", "a-b", "1 - 2"):
            error = self.assertRaises(ValueError, PortRange.parse, text)
            self.assertIn(repr(text), str(error))
        self.assertRaises(ValueError, PortRange, 0, 1)

    @modest
    @given(ports, ports)
    def test_round_trip(self, one: int, other: int) -> None:
        """
        What is written is read as the same range.
        """
        ports = PortRange(min(one, other), max(one, other))
        self.assertEqual(PortRange.parse(str(ports)), ports)


class ReachTests(SynchronousTestCase):
    """
    Ways to reach a server.
    """

    def test_kinds(self) -> None:
        """
        Each kind is read with its value in canonical form.
        """
        self.assertEqual(Reach.parse("host:Web.Example."), Reach("host", "web.example"))
        self.assertEqual(Reach.parse("sni:*.example"), Reach("sni", "*.example"))
        self.assertEqual(Reach.parse("port:020"), Reach("port", "20"))
        self.assertEqual(Reach.parse("name"), Reach("name"))

    def test_port(self) -> None:
        """
        The port is a number, 0 for any; other kinds have none.
        """
        self.assertEqual(Reach.parse("port:20001").port, 20001)
        self.assertEqual(Reach.parse("port:0").port, 0)
        self.assertRaises(ValueError, lambda: Reach.parse("name").port)

    def test_refused(self) -> None:
        """
        Unknown kinds, and values that do not fit the kind, are refused.
        """
        for text in (
            "",
            "Host:a",
            "web",
            "host:",
            "host",
            "port:",
            "port:x",
            "port:65536",
            "name:",
            "name:web",
            "sni:a_b",
            "udp:1",
        ):
            self.assertRaises(ValueError, Reach.parse, text)

    @modest
    @given(reaches)
    def test_round_trip(self, reach: Reach) -> None:
        """
        What is written is read as the same way.
        """
        self.assertEqual(Reach.parse(str(reach)), reach)

    @modest
    @given(st.text(max_size=40))
    def test_any_text(self, text: str) -> None:
        """
        Any text is either a way or a L{ValueError}.
        """
        for candidate in (text, f"host:{text}", f"port:{text}", f"sni:*.{text}"):
            try:
                reach = Reach.parse(candidate)
            except ValueError:
                continue
            self.assertEqual(Reach.parse(str(reach)), reach)
