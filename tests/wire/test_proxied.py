"""
Tests of the PROXY protocol's header, written and read.
"""

from __future__ import annotations

import contextlib
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import product
from typing import Literal

from hypothesis import example, given, settings
from hypothesis import strategies as st

from twisted.protocols.haproxy._v1parser import V1Parser
from twisted.protocols.haproxy._v2parser import V2Parser
from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.errors import ProtocolError
from relaytunnel.wire.proxied import (
    MAX_BLOCK,
    MAX_LINE,
    Proxied,
    ProxyReader,
    _crc32c,
    proxy_header,
)
from tests.wire.test_control import in_chunks

Version = Literal["v1", "v2"]
End = tuple[str, int]

modest = settings(deadline=None, max_examples=100)

SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")
NOBODY = Proxied(None, None)

V4 = Proxied(("192.168.0.1", 56324), ("192.168.0.11", 443))
V4_LINE = b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n"  # section 2.1
V4_BLOCK = SIGNATURE + bytes.fromhex("2111000c c0a80001 c0a8000b dc04 01bb")

V6 = Proxied(("2001:db8::1", 1), ("2001:db8::2", 65535))
V6_LINE = b"PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n"
V6_BLOCK = SIGNATURE + bytes.fromhex(
    "21210024 20010db8000000000000000000000001 20010db8000000000000000000000002 0001 ffff"
)

# Recorded from HAProxy 2.6.12, "send-proxy-v2 proxy-v2-options crc32c,unique-id".
HAPROXY_V4 = bytes.fromhex(
    "0d0a0d0a000d0a515549540a211100167f0000017f0000019c986f380300044fc35869050000"
)
HAPROXY_V6 = bytes.fromhex(
    "0d0a0d0a000d0a515549540a2121002e20010db800000000000000000000000100000000000000000000ffff06070809"
    "000501bb030004401a01a2050000"
)
CHECKSUM_AT = 16 + 12 + 3

versions = st.sampled_from(["v1", "v2"])
ports = st.integers(0, 65535)
quads = st.ip_addresses(v=4)
mapped = quads.map(lambda quad: IPv6Address(bytes(10) + b"\xff\xff" + quad.packed))
ends = st.tuples(st.one_of(quads, st.ip_addresses(v=6), mapped).map(str), ports)
others = st.one_of(
    st.none(), st.tuples(st.sampled_from(["", "/run/web.sock", "web", "::g"]), ports)
)
headers = st.builds(
    proxy_header,
    versions,
    st.one_of(ends, others),
    ends,
    st.one_of(st.none(), st.text("abc.-", max_size=255)),
)


def block(family: int, addresses: bytes, command: int = 0x21) -> bytes:
    """
    Write a header of version 2 that may be wrong.
    """
    length = len(addresses).to_bytes(2, "big")
    return SIGNATURE + bytes((command, family)) + length + addresses


def extension(kind: int, value: bytes) -> bytes:
    """
    Write what may follow the addresses.
    """
    return bytes((kind,)) + len(value).to_bytes(2, "big") + value


def expected(end: End) -> End:
    """
    Say how an address comes out.
    """
    address = ip_address(end[0])
    quad = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(quad or address), end[1]


class WriteTests(SynchronousTestCase):
    """
    What goes before a connection.
    """

    def test_v1(self) -> None:
        """
        Version 1 is a line of text.
        """
        for proxied, line in ((V4, V4_LINE), (V6, V6_LINE)):
            self.assertEqual(proxy_header("v1", proxied.source, proxied.destination), line)

    def test_v2(self) -> None:
        """
        Version 2 is a signature, 4 bytes, and the addresses and ports.
        """
        for proxied, written in ((V4, V4_BLOCK), (V6, V6_BLOCK)):
            self.assertEqual(proxy_header("v2", proxied.source, proxied.destination), written)

    def test_no_address(self) -> None:
        """
        What is no IP address with a port is not made up, at either end.
        """
        good = ("192.0.2.1", 1)
        wrong = [None, ("", 1), ("/run/web.sock", 0), ("web", 80), ("1.2.3.4%eth0", 1)]
        wrong += [("01.2.3.4", 1), ("192.0.2.1", -1), ("192.0.2.1", 65536)]
        for end in wrong:
            for pair in ((end, good), (good, end), (end, end)):
                self.assertEqual(proxy_header("v1", *pair), b"PROXY UNKNOWN\r\n")
                self.assertEqual(proxy_header("v2", *pair), SIGNATURE + bytes.fromhex("20000000"))

    def test_mapped(self) -> None:
        """
        IPv4 in the guise of IPv6 is written as IPv4.
        """
        source, destination = ("::ffff:192.168.0.1", 56324), ("::ffff:c0a8:b", 443)
        self.assertEqual(proxy_header("v1", source, destination), V4_LINE)
        self.assertEqual(proxy_header("v2", source, destination), V4_BLOCK)

    def test_mixed(self) -> None:
        """
        IPv4 at one end only is written in the guise of IPv6.
        """
        quad, other = ("192.0.2.1", 1), ("2001:db8::1", 2)
        self.assertEqual(
            proxy_header("v1", quad, other), b"PROXY TCP6 ::ffff:192.0.2.1 2001:db8::1 1 2\r\n"
        )
        self.assertEqual(
            proxy_header("v1", other, quad), b"PROXY TCP6 2001:db8::1 ::ffff:192.0.2.1 2 1\r\n"
        )
        packed = [bytes(10) + b"\xff\xff\xc0\x00\x02\x01", IPv6Address("2001:db8::1").packed]
        self.assertEqual(
            proxy_header("v2", quad, other), block(0x21, b"".join(packed) + b"\0\1\0\2")
        )

    def test_zone(self) -> None:
        """
        A zone is left out.
        """
        self.assertEqual(
            proxy_header("v1", ("fe80::1%eth0", 1), ("fe80::2%2", 2)),
            b"PROXY TCP6 fe80::1 fe80::2 1 2\r\n",
        )

    def test_authority(self) -> None:
        """
        Version 2 names the host that the client asked for, whatever the
        addresses; version 1 and no name do without.
        """
        name = b"\x02\x00\x07web.org"
        ends = (V4.source, V4.destination)
        self.assertEqual(proxy_header("v2", *ends, "web.org"), block(0x11, V4_BLOCK[16:] + name))
        self.assertEqual(proxy_header("v2", None, None, "web.org"), block(0x00, name, 0x20))
        self.assertEqual(proxy_header("v2", *ends, ""), V4_BLOCK)
        self.assertEqual(proxy_header("v1", *ends, "web.org"), V4_LINE)

    def test_long_authority(self) -> None:
        """
        A host name has at most 255 bytes, not characters.
        """
        for name in ("x" * 255, "é" * 127):
            written = proxy_header("v2", V4.source, V4.destination, name)
            self.assertEqual(ProxyReader().feed(written), (V4, b""))
        for name in ("x" * 256, "é" * 128):
            self.assertRaises(ProtocolError, proxy_header, "v2", V4.source, V4.destination, name)

    @modest
    @given(ends, ends)
    @example(("f" * 4 + ":ffff" * 7, 65535), ("f" * 4 + ":ffff" * 7, 65535))
    def test_longest_line(self, source: End, destination: End) -> None:
        """
        No line is longer than those with the longest addresses.
        """
        self.assertLessEqual(len(proxy_header("v1", source, destination)), 104)

    @modest
    @given(ends, ends)
    def test_twisted_v1(self, source: End, destination: End) -> None:
        """
        Twisted reads the same from our line.
        """
        info, rest = V1Parser().feed(proxy_header("v1", source, destination) + b"rest")
        self.assertEqual(rest, b"rest")
        self.same_as_twisted(info, source, destination)

    @modest
    @given(ends, ends, st.sampled_from([None, "web.org"]))
    def test_twisted_v2(self, source: End, destination: End, name: str | None) -> None:
        """
        Twisted reads the same from our block.
        """
        info, rest = V2Parser().feed(proxy_header("v2", source, destination, name) + b"rest")
        self.assertEqual(rest, b"rest")
        self.same_as_twisted(info, source, destination)

    def test_twisted_unknown(self) -> None:
        """
        Twisted reads no address where there is none.  (It takes no line that
        has nothing behind UNKNOWN.)
        """
        info, _ = V2Parser().feed(proxy_header("v2", None, None))
        assert info is not None
        self.assertEqual((info.source, info.destination), (None, None))

    def same_as_twisted(self, info: object, source: End, destination: End) -> None:
        """
        Assert that Twisted found these addresses.
        """
        for name, end in (("source", source), ("destination", destination)):
            found = getattr(info, name)
            self.assertEqual(expected((found.host, found.port)), expected(end))


class Reading(SynchronousTestCase):
    """
    Reads headers, and sees them refused.
    """

    def read(self, data: bytes) -> Proxied:
        """
        Read a header that has to end with these bytes.
        """
        found = ProxyReader().feed(data)
        assert found is not None, data
        self.assertEqual(found[1], b"")
        return found[0]

    def refused(self, data: bytes) -> str:
        """
        Assert that bytes are refused, and not before the last of them.

        @return: why.
        """
        self.assertIsNone(ProxyReader().feed(data[:-1]))
        return str(self.assertRaises(ProtocolError, ProxyReader().feed, data))


class ReadTests(Reading):
    """
    What comes before a connection.
    """

    @modest
    @given(versions, ends, ends, st.binary(max_size=50), st.lists(st.integers(0, 110), max_size=6))
    def test_round_trip(
        self, version: Version, source: End, destination: End, rest: bytes, cuts: list[int]
    ) -> None:
        """
        What was written is read, however its bytes were cut, and what stands
        behind it is left.
        """
        reader = ProxyReader()
        chunks = in_chunks(proxy_header(version, source, destination, "web.org") + rest, cuts)
        while (found := reader.feed(chunks.pop(0))) is None:
            pass
        self.assertEqual(found[0], Proxied(expected(source), expected(destination)))
        self.assertEqual(found[1] + b"".join(chunks), rest)

    @modest
    @given(versions, others)
    def test_unknown_round_trip(self, version: Version, end: End | None) -> None:
        """
        Where no address was written, none is read.
        """
        self.assertEqual(self.read(proxy_header(version, end, end, "web.org")), NOBODY)

    def test_every_split(self) -> None:
        """
        A header comes with its last byte, not before, wherever it was cut.
        """
        for header, proxied in (
            (V4_LINE, V4),
            (V6_LINE, V6),
            (b"PROXY UNKNOWN\r\n", NOBODY),
            (b"PROXY UNKNOWN \r any\n \r\n", NOBODY),
            (V4_BLOCK, V4),
            (V6_BLOCK, V6),
            (block(0x00, b"any"), NOBODY),
            (block(0x31, bytes(216)), NOBODY),
            (HAPROXY_V4, Proxied(("127.0.0.1", 40088), ("127.0.0.1", 28472))),
        ):
            data = header + b"\r\nrest"
            for cut in range(len(data) + 1):
                reader = ProxyReader()
                first = reader.feed(data[:cut])
                if cut < len(header):
                    self.assertIsNone(first)
                    self.assertEqual(reader.feed(data[cut:]), (proxied, b"\r\nrest"))
                else:
                    self.assertEqual(first, (proxied, data[len(header) : cut]))
            dripped = ProxyReader()
            *before, last = [dripped.feed(bytes((byte,))) for byte in header]
            self.assertEqual((before, last), ([None] * len(before), (proxied, b"")))

    @modest
    @given(st.binary(max_size=80), st.sampled_from([b"", b"PROXY TCP4 ", b"P", SIGNATURE]))
    def test_garbage(self, data: bytes, start: bytes) -> None:
        """
        Arbitrary bytes raise nothing but protocol errors.
        """
        with contextlib.suppress(ProtocolError):
            ProxyReader().feed(start + data)

    @settings(deadline=None, max_examples=500)
    @given(st.one_of(headers, st.just(HAPROXY_V6)), st.data())
    def test_mutated(self, header: bytes, data: st.DataObject) -> None:
        """
        A header with a few other bytes raises nothing but protocol errors,
        and the same whether it comes at once or in drips.
        """
        changed = bytearray(header)
        for _ in range(data.draw(st.integers(1, 3))):
            place = data.draw(st.integers(0, len(header) - 1))
            changed[place] = data.draw(
                st.one_of(st.integers(0, 255), st.sampled_from(b" \r\n0:."))
            )

        def outcome(chunks: list[bytes]) -> Proxied | str | None:
            reader = ProxyReader()
            try:
                for chunk in chunks:
                    if (found := reader.feed(chunk)) is not None:
                        return found[0]
            except ProtocolError:
                return "refused"
            return None

        whole = outcome([bytes(changed)])
        self.assertEqual(outcome([bytes((byte,)) for byte in changed]), whole)

    def test_mandatory(self) -> None:
        """
        A connection that starts with anything else is refused with its first
        byte.
        """
        for first in set(range(256)) - {ord("P"), SIGNATURE[0]}:
            self.refused(bytes((first,)))

    def test_first_wrong_byte(self) -> None:
        """
        What starts like a header and goes on otherwise is refused with the
        first byte that differs.
        """
        for start in (b"PROXY TCP4 ", b"PROXY UNKNOWN", SIGNATURE):
            for place in range(1, len(start)):
                self.refused(start[:place] + b"\xff")

    def test_other_protocols(self) -> None:
        """
        HTTP, TLS and SSH are no PROXY protocol.
        """
        for data in (
            b"GET / HTTP/1.1\r\n",
            b"POST / HTTP/1.1\r\n",
            b"PRI * HTTP/2.0\r\n\r\n",
            b"\x16\x03\x01\x02\x00",
            b"SSH-2.0-OpenSSH\r\n",
            b"\r\nGET / HTTP/1.1\r\n",
        ):
            self.assertRaises(ProtocolError, ProxyReader().feed, data)

    def test_nothing(self) -> None:
        """
        No bytes are no fault.
        """
        self.assertIsNone(ProxyReader().feed(b""))


class LineTests(Reading):
    """
    What comes in version 1.
    """

    def test_vectors(self) -> None:
        """
        The line of the specification, and one for IPv6, are read.
        """
        self.assertEqual((self.read(V4_LINE), self.read(V6_LINE)), (V4, V6))

    def test_unknown(self) -> None:
        """
        Anything may stand behind UNKNOWN; the addresses there do not count.
        """
        full = b"PROXY UNKNOWN " + b" ".join([b"ffff" + b":ffff" * 7] * 2) + b" 65535 65535\r\n"
        self.assertEqual(len(full), MAX_LINE)
        for line in (b"PROXY UNKNOWN\r\n", full, b"PROXY UNKNOWN  \xff \n\r \0\r\n"):
            self.assertEqual(self.read(line), NOBODY)

    def test_longest(self) -> None:
        """
        A line that has not ended after 107 bytes is refused; a carriage return
        at its end is none.
        """
        start = b"PROXY UNKNOWN".ljust(MAX_LINE - 1, b"x")
        self.assertEqual(self.read(start[:-1] + b"\r\n"), NOBODY)
        for last in (b"x", b"\r"):
            self.assertIn("107 bytes", self.refused(start + last))
        self.assertRaises(ProtocolError, ProxyReader().feed, start + b"\r\n")

    def test_strict(self) -> None:
        """
        Other spaces, cases, families and numbers than the one form are
        refused.
        """
        for line in (
            b"PROXY TCP4  1.2.3.4 5.6.7.8 1 2\r\n",
            b"PROXY TCP4 1.2.3.4  5.6.7.8 1 2\r\n",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2 \r\n",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n",
            b"PROXY TCP4 1.2.3.4\r\n",
            b"PROXY TCP4 \r\n",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1 00\r\n",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 99999 1\r\n",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 a 1\r\n",
            b"PROXY TCP4 01.2.3.4 5.6.7.8 1 2\r\n",
            b"PROXY TCP4 1.2.3 5.6.7.8 1 2\r\n",
            b"PROXY TCP4 1.2.3.256 5.6.7.8 1 2\r\n",
            b"PROXY TCP4 16909060 5.6.7.8 1 2\r\n",
            b"PROXY TCP4 ::1 ::1 1 2\r\n",
            b"PROXY TCP4 1.2.3.4 ::1 1 2\r\n",
            b"PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n",
            b"PROXY TCP6 ::1 5.6.7.8 1 2\r\n",
            b"PROXY TCP6 1::2::3 ::1 1 2\r\n",
            b"PROXY TCP6 00001::1 ::1 1 2\r\n",
        ):
            self.refused(line)

    def test_early(self) -> None:
        """
        What no line can hold is refused before its end.
        """
        for start in (
            b"p",
            b"PROXYT",
            b"PROXy",
            b"PROXY  ",
            b"PROXY\t",
            b"PROXY t",
            b"PROXY TCP5",
            b"PROXY TCP4\t",
            b"PROXY TCP4\r",
            b"PROXY UNKNOWn",
            b"PROXY UD",
            b"PROXY TCP6 fe80::1%",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 +",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1 \xb2",
        ):
            self.refused(start)

    def test_lone_ends(self) -> None:
        """
        A line feed alone, or something else behind the carriage return, does
        not end a line.
        """
        self.refused(V4_LINE[:-2] + b"\n")
        self.refused(V4_LINE[:-1] + b"x")
        self.refused(V4_LINE[:-1] + b"\r")

    def test_mapped(self) -> None:
        """
        IPv4 in the guise of IPv6 comes out as IPv4, however it is written.
        """
        found = self.read(b"PROXY TCP6 ::ffff:192.0.2.1 ::FFFF:c000:202 1 2\r\n")
        self.assertEqual(found, Proxied(("192.0.2.1", 1), ("192.0.2.2", 2)))

    def test_canonical(self) -> None:
        """
        An address comes out in its one canonical form.
        """
        found = self.read(b"PROXY TCP6 2001:0DB8:0:0::1 0:0:0:0:0:0:0:1 0 65535\r\n")
        self.assertEqual(found, Proxied(("2001:db8::1", 0), ("::1", 65535)))


class BlockTests(Reading):
    """
    What comes in version 2.
    """

    def test_vectors(self) -> None:
        """
        Blocks written by hand after the specification are read.
        """
        self.assertEqual((self.read(V4_BLOCK), self.read(V6_BLOCK)), (V4, V6))

    def test_haproxy(self) -> None:
        """
        What HAProxy wrote is read, its checksums agree.
        """
        self.assertEqual(
            self.read(HAPROXY_V4), Proxied(("127.0.0.1", 40088), ("127.0.0.1", 28472))
        )
        self.assertEqual(self.read(HAPROXY_V6), Proxied(("2001:db8::1", 5), ("6.7.8.9", 443)))

    def test_local(self) -> None:
        """
        A connection of the proxy's own has no addresses, whatever its block
        holds.
        """
        for family in range(256):
            for addresses in (b"", b"\x01\xff", V4_BLOCK[16:]):
                self.assertEqual(self.read(block(family, addresses, 0x20)), NOBODY)

    def test_unspecified(self) -> None:
        """
        A block without a family has no addresses, whatever it holds.
        """
        for addresses in (b"", b"\x01", bytes(216)):
            self.assertEqual(self.read(block(0x00, addresses)), NOBODY)

    def test_unix(self) -> None:
        """
        Two UNIX sockets are no addresses.
        """
        addresses = b"/run/a".ljust(108, b"\0") + b"/run/b".ljust(108, b"\0")
        self.assertEqual(self.read(block(0x31, addresses)), NOBODY)
        self.assertEqual(self.read(block(0x31, addresses + extension(4, b""))), NOBODY)
        self.refused(block(0x31, addresses + b"\x04"))

    def test_versions_and_commands(self) -> None:
        """
        Any other version or command is refused with its byte.
        """
        for byte in set(range(256)) - {0x20, 0x21}:
            self.assertIn(f"{byte:#04x}", self.refused(SIGNATURE + bytes((byte,))))

    def test_families(self) -> None:
        """
        UDP and unknown families are refused with their byte.
        """
        for family in set(range(256)) - {0x00, 0x11, 0x21, 0x31}:
            self.assertIn(f"{family:#04x}", self.refused(SIGNATURE + bytes((0x21, family))))

    def test_too_short(self) -> None:
        """
        A length that is too small for the addresses is refused before them.
        """
        for family, needed in ((0x11, 12), (0x21, 36), (0x31, 216)):
            for length in (0, needed - 1):
                self.refused(SIGNATURE + bytes((0x21, family, 0, length)))

    def test_too_long(self) -> None:
        """
        A length above the bound is refused before a byte of what it announces.
        """
        for command, family in product((0x20, 0x21), (0x00, 0x11, 0x21, 0x31)):
            for length in (MAX_BLOCK + 1, 0xFFFF):
                start = SIGNATURE + bytes((command, family)) + length.to_bytes(2, "big")
                self.assertIn(f"{length} bytes", self.refused(start))

    def test_longest(self) -> None:
        """
        As many bytes as the bound allows are read, one at a time.
        """
        padding = extension(0x04, bytes(MAX_BLOCK - 12 - 3))
        reader = ProxyReader()
        data = block(0x11, V4_BLOCK[16:] + padding)
        *before, last = [reader.feed(bytes((byte,))) for byte in data]
        self.assertEqual((set(before), last), ({None}, (V4, b"")))

    def test_extensions(self) -> None:
        """
        Extensions are skipped, known or not.
        """
        for kinds in ((0x01, 0x02, 0x04, 0x05, 0x20, 0x30), (0xE0, 0xFF, 0x00)):
            extensions = b"".join(extension(kind, bytes(kind)) for kind in kinds)
            self.assertEqual(self.read(block(0x11, V4_BLOCK[16:] + extensions)), V4)

    def test_truncated_extensions(self) -> None:
        """
        An extension that is cut short is refused.
        """
        for end in (b"\x04", b"\x04\x00", b"\x04\x00\x01", b"\x04\xff\xff", b"\x00" * 4):
            for before in (b"", extension(0x02, b"web.org")):
                reason = self.refused(block(0x11, V4_BLOCK[16:] + before + end))
                self.assertIn("within an extension", reason)

    def test_wrong_checksum(self) -> None:
        """
        A block with a bit that differs from what its checksum covers, or in
        the checksum itself, is refused.
        """
        for place in (*range(16, 28), *range(CHECKSUM_AT, CHECKSUM_AT + 4)):
            changed = bytearray(HAPROXY_V4)
            changed[place] ^= 0x10
            self.assertIn("wrong checksum", self.refused(bytes(changed)))

    def test_checksums(self) -> None:
        """
        There is one checksum at the most, and it has four bytes.
        """
        addresses = V4_BLOCK[16:]
        for value in (b"", bytes(3), bytes(5)):
            self.assertIn("length", self.refused(block(0x11, addresses + extension(3, value))))
        twice = extension(3, bytes(4)) * 2
        self.assertIn("two checksums", self.refused(block(0x11, addresses + twice)))

    def test_crc32c(self) -> None:
        """
        The checksum is the one of RFC 3720, appendix B.4.
        """
        self.assertEqual(_crc32c(b"123456789"), 0xE3069283)
        for data, written in (
            (bytes(32), "aa36918a"),
            (b"\xff" * 32, "43aba862"),
            (bytes(range(32)), "4e79dd46"),
        ):
            self.assertEqual(_crc32c(data).to_bytes(4, "little").hex(), written)

    def test_mapped(self) -> None:
        """
        IPv4 in the guise of IPv6 comes out as IPv4.
        """
        guise = bytes(10) + b"\xff\xff"
        packed = guise + IPv4Address("192.0.2.1").packed + guise + IPv4Address("0.0.0.0").packed
        found = self.read(block(0x21, packed + b"\0\1\0\2"))
        self.assertEqual(found, Proxied(("192.0.2.1", 1), ("0.0.0.0", 2)))
