"""
Tests for L{relaytunnel.arrival.authority}.
"""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.arrival import Authority, parse_authority, parse_host
from relaytunnel.errors import ProtocolError

quickly = settings(deadline=None, max_examples=100)


class AuthorityTests(SynchronousTestCase):
    """
    What is an authority, and which one.
    """

    def refused(self, data: bytes, why: str) -> None:
        """
        Assert that these bytes are no authority, and what is said of them.
        """
        error = self.assertRaises(ProtocolError, parse_authority, data)
        self.assertIn(why, str(error))

    def test_name(self) -> None:
        """
        A name without a port is a host and no port.
        """
        self.assertEqual(parse_authority(b"web.example"), Authority("web.example", None))

    def test_name_and_port(self) -> None:
        """
        Behind a colon stands the port.
        """
        self.assertEqual(parse_authority(b"web.example:8000"), Authority("web.example", 8000))

    def test_single_label(self) -> None:
        """
        A name may be one label, as a connection ID is.
        """
        self.assertEqual(parse_authority(b"web"), Authority("web", None))

    def test_lower_case(self) -> None:
        """
        Names are the same in upper and lower case.
        """
        self.assertEqual(parse_authority(b"WEB.Example").host, "web.example")

    def test_trailing_dot(self) -> None:
        """
        One dot at the end is not part of the name.
        """
        self.assertEqual(parse_authority(b"web.example.:80"), Authority("web.example", 80))

    def test_a_label(self) -> None:
        """
        A name in another script comes as A-labels, and stays as it is.
        """
        self.assertEqual(parse_authority(b"xn--bcher-kva.example").host, "xn--bcher-kva.example")

    def test_underscore(self) -> None:
        """
        Names of containers may have an underscore.
        """
        self.assertEqual(parse_authority(b"my_app").host, "my_app")

    def test_empty_port(self) -> None:
        """
        A colon with nothing behind it is the same as no port.
        """
        self.assertEqual(parse_authority(b"web:"), Authority("web", None))

    def test_ipv4(self) -> None:
        """
        An IPv4 address is a host.
        """
        self.assertEqual(parse_authority(b"127.0.0.1:80"), Authority("127.0.0.1", 80))

    def test_ipv6(self) -> None:
        """
        An IPv6 address stands in brackets and loses them.
        """
        self.assertEqual(parse_authority(b"[::1]:8000"), Authority("::1", 8000))

    def test_ipv6_canonical(self) -> None:
        """
        The spellings of one IPv6 address become the same host.
        """
        self.assertEqual(parse_authority(b"[0:0:0:0:0:0:0:1]"), parse_authority(b"[::1]"))

    def test_ipv6_without_brackets(self) -> None:
        """
        Without brackets nobody can tell an IPv6 address from a port.
        """
        self.refused(b"::1", "empty")

    def test_ipv6_unfinished(self) -> None:
        """
        A bracket that opens has to close.
        """
        self.refused(b"[::1", "not complete")

    def test_ipv6_and_more(self) -> None:
        """
        Behind the bracket stands a port or nothing.
        """
        self.refused(b"[::1]evil.example", "not complete")

    def test_ipv6_zone(self) -> None:
        """
        A zone is refused, because it means nothing on another machine.
        """
        self.refused(b"[fe80::1%25eth0]", "zone")

    def test_bracketed_name(self) -> None:
        """
        Only IPv6 addresses stand in brackets.
        """
        self.refused(b"[web]", "no IPv6 address")

    def test_user_name(self) -> None:
        """
        A user name before the host is refused.
        """
        self.refused(b"web@evil.example", "user name")

    def test_empty(self) -> None:
        """
        Nothing at all is no authority.
        """
        self.refused(b"", "empty")

    def test_only_a_port(self) -> None:
        """
        A port alone is no authority.
        """
        self.refused(b":80", "empty")

    def test_only_a_dot(self) -> None:
        """
        The root of all names is no host.
        """
        self.refused(b".", "empty")

    def test_empty_label(self) -> None:
        """
        Between two dots there has to be something.
        """
        self.refused(b"web..example", "empty label")

    def test_two_trailing_dots(self) -> None:
        """
        Only one dot at the end is forgiven.
        """
        self.refused(b"web..", "empty label")

    def test_space(self) -> None:
        """
        A space is in no name.
        """
        self.refused(b"web example", "label")

    def test_delimiters(self) -> None:
        """
        Nothing that ends an authority elsewhere may stand in one.
        """
        for delimiter in b"/\\?#,;|<>\"'%*\t\r\n\0":
            self.refused(b"web" + bytes([delimiter]) + b"evil", "label")

    def test_hyphen_at_an_end(self) -> None:
        """
        A label neither begins nor ends with a hyphen.
        """
        self.refused(b"-web", "label")
        self.refused(b"web-.example", "label")

    def test_long_label(self) -> None:
        """
        A label has at most 63 characters.
        """
        self.assertEqual(parse_authority(b"a" * 63).host, "a" * 63)
        self.refused(b"a" * 64, "label")

    def test_long_name(self) -> None:
        """
        A name has at most 253 characters.
        """
        self.refused(b".".join([b"a" * 63] * 4), "253")

    def test_other_script(self) -> None:
        """
        A name in UTF-8 is refused, and the client told what it should send.
        """
        self.refused("bücher.example".encode(), "xn--")
        error = self.assertRaises(ProtocolError, parse_host, "bücher".encode())
        self.assertIn("xn--", str(error))

    def test_percent(self) -> None:
        """
        A name with percent escapes is refused: not everybody decodes it.
        """
        self.refused(b"%77eb", "label")

    def test_ambiguous_numbers(self) -> None:
        """
        What some programs take for an IPv4 address and others for a name is
        neither.
        """
        for host in (b"127.1", b"0177.0.0.1", b"0x7f.0.0.1", b"0x7f", b"1.2.3.4.5", b"256.0.0.1"):
            self.refused(host, "no IPv4 address")

    def test_number_inside(self) -> None:
        """
        A number may stand before the last label.
        """
        self.assertEqual(parse_authority(b"42.example").host, "42.example")

    def test_port_out_of_range(self) -> None:
        """
        Ports go from 1 to 65535.
        """
        self.assertEqual(parse_authority(b"web:65535").port, 65535)
        for port in (b"0", b"65536", b"100000"):
            self.refused(b"web:" + port, "port")

    def test_port_no_number(self) -> None:
        """
        A port is digits and nothing else.
        """
        for port in (b"http", b"+80", b"-1", b" 80", b"8_0", b"80:80"):
            self.refused(b"web:" + port, "port")

    def test_same_with_default_port(self) -> None:
        """
        The default port may be given or not.
        """
        self.assertTrue(Authority("web", None).same_as(Authority("web", 80), 80))
        self.assertFalse(Authority("web", None).same_as(Authority("web", 80), 443))

    def test_same_host_only(self) -> None:
        """
        Two hosts are never the same place.
        """
        self.assertFalse(Authority("web", 80).same_as(Authority("mail", 80), 80))

    @given(st.binary(max_size=300))
    @example(b"[" + b":" * 40 + b"]")
    @quickly
    def test_any_bytes(self, data: bytes) -> None:
        """
        Any bytes are an authority or a L{ProtocolError}, and what is read is
        read the same once more.
        """
        try:
            authority = parse_authority(data)
        except ProtocolError:
            return
        host = f"[{authority.host}]" if ":" in authority.host else authority.host
        port = "" if authority.port is None else f":{authority.port}"
        self.assertEqual(parse_authority(f"{host}{port}".encode()), authority)
