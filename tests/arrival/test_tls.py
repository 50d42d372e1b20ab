"""
Tests for L{relaytunnel.arrival.tls}.
"""

from __future__ import annotations

import ssl
from itertools import pairwise

from hypothesis import example, given, settings
from hypothesis import strategies as st

from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.arrival.hello import Alert, alert
from relaytunnel.arrival.tls import SNI, SniArrival
from relaytunnel.arrival.ways import Limits, Malformed, Named
from relaytunnel.errors import Code, Failing

quickly = settings(deadline=None, max_examples=100)

AGENT_AWAY = Failing(Code.AGENT_AWAY, "the agent of web is not connected")
NO_SUCH_SERVER = Failing(Code.NO_SUCH_SERVER, "no server has this name")
NOT_ALLOWED = Failing(Code.NOT_ALLOWED, "it may not be reached from here")
PADDING = 21
FOUND = Named("sni", "web.example")


class Client:
    """
    A real client of TLS, in memory.

    @ivar hello: what it says first.
    """

    def __init__(self, host: str | None, newest: ssl.TLSVersion | None = None) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.set_alpn_protocols(["h2", "http/1.1"])
        if newest is not None:
            context.maximum_version = newest
        self._incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, outgoing, server_hostname=host)
        self._go_on()
        self.hello = outgoing.read()

    def _go_on(self) -> str:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return ""
        except ssl.SSLError as error:
            return str(error).lower().replace("_", " ")
        return ""

    def understands(self, data: bytes) -> str:
        """
        @return: what it makes of it, in its own words.
        """
        self._incoming.write(data)
        return self._go_on()


def vector(head: int, data: bytes) -> bytes:
    """
    Put the length before some bytes.
    """
    return len(data).to_bytes(head, "big") + data


def extension(kind: int, data: bytes) -> bytes:
    """
    Write an extension of a ClientHello.
    """
    return kind.to_bytes(2, "big") + vector(2, data)


def server_name(*names: bytes, kind: int = 0) -> bytes:
    """
    Write a server_name extension.
    """
    return extension(0, vector(2, b"".join(bytes((kind,)) + vector(2, name) for name in names)))


def message(
    *extensions: bytes,
    kind: int = 1,
    version: bytes = b"\x03\x03",
    session: bytes = b"",
    suites: bytes = b"\x13\x01",
    compressions: bytes = b"\0",
    rest: bytes | None = None,
) -> bytes:
    """
    Write a handshake message that is a ClientHello, or nearly.

    @param rest: what there is in place of the extensions.
    """
    head = version + b"r" * 32 + vector(1, session) + vector(2, suites) + vector(1, compressions)
    body = head + (vector(2, b"".join(extensions)) if rest is None else rest)
    return bytes((kind,)) + vector(3, body)


def record(fragment: bytes, kind: int = 22, version: bytes = b"\x03\x01") -> bytes:
    """
    Write a record.
    """
    return bytes((kind,)) + version + vector(2, fragment)


def records(data: bytes, size: int) -> bytes:
    """
    Write as many records as it takes with this many bytes in each.
    """
    return b"".join(record(data[at : at + size]) for at in range(0, len(data), size))


def hello(*extensions: bytes) -> bytes:
    """
    Write a ClientHello in one record.
    """
    return record(message(*extensions))


def padded(size: int) -> bytes:
    """
    Write a handshake message of this many bytes that names web.example at its
    end.
    """
    name = server_name(b"web.example")
    bare = len(message(extension(PADDING, b""), name))
    return message(extension(PADDING, bytes(size - bare)), name)


WEB = message(extension(PADDING, bytes(20)), server_name(b"web.example"))
almost_hellos = st.lists(
    st.sampled_from(
        [
            *(b"\x16\x03\x01", b"\x16\x03\x03\x00\x01", b"\x01", b"\x02", b"\0", b"\xff", WEB),
            *(b"\x15\x03\x03\x00\x02", record(WEB), record(WEB[:9]), record(WEB[9:]), record(b"")),
            *(
                record(WEB[:1]),
                record(WEB[1:3]),
                record(WEB[3:]),
                b"\x80\x2e\x01",
                b"\x16",
                b"GET",
            ),
        ]
    ),
    max_size=8,
).map(b"".join)
anything = st.binary(max_size=200) | almost_hellos


class FitsTests(SynchronousTestCase):
    """
    The choice by the first bytes.
    """

    def test_handshake(self) -> None:
        """
        A record of a handshake is recognised by its first two bytes.
        """
        self.assertTrue(SNI.fits(b"\x16\x03"))
        self.assertTrue(SNI.fits(hello()))

    def test_too_little(self) -> None:
        """
        One byte may still become anything.
        """
        self.assertIsNone(SNI.fits(b""))
        self.assertIsNone(SNI.fits(b"\x16"))

    def test_others(self) -> None:
        """
        Another type of record, or a version that is none, is not TLS.
        """
        for data in (b"\x15\x03\x03", b"\x16\xfe\xfd", b"GET ", b"\x80\x2e\x01\x03\x01"):
            self.assertIs(SNI.fits(data), False)

    @given(anything, st.integers(0, 200))
    @quickly
    def test_final(self, data: bytes, cut: int) -> None:
        """
        What was decided by some bytes is decided by more of them too.
        """
        early = SNI.fits(data[:cut])
        if early is not None:
            self.assertIs(SNI.fits(data), early)


class SniArrivalTests(SynchronousTestCase):
    """
    A ClientHello that names its server, or nobody.
    """

    def test_real(self) -> None:
        """
        A real ClientHello names its server, and all of it goes on as it came.
        """
        for newest in (None, ssl.TLSVersion.TLSv1_2):
            found = SniArrival().feed(Client("Web.Example", newest).hello)
            self.assertEqual(found, Named("sni", "web.example", None, consumed=0, instead=b""))

    def test_real_nobody(self) -> None:
        """
        A client that has an address or nothing to go by names nobody.
        """
        for host in (None, "192.0.2.7"):
            self.assertEqual(SniArrival().feed(Client(host).hello), Named("sni", None))

    def test_no_extensions(self) -> None:
        """
        A hello without extensions names nobody.
        """
        self.assertEqual(SniArrival().feed(record(message(rest=b""))), Named("sni", None))
        self.assertEqual(SniArrival().feed(hello()), Named("sni", None))

    def test_trailing_dot(self) -> None:
        """
        A name with a trailing dot is the same name.
        """
        self.assertEqual(SniArrival().feed(hello(server_name(b"web.example."))), FOUND)

    def test_over_segments(self) -> None:
        """
        A hello of more than one segment is found when its last byte is there.
        """
        data = record(padded(1600))
        arrival = SniArrival()
        self.assertIsNone(arrival.feed(data[:1460]))
        self.assertIsNone(arrival.feed(data[:-1]))
        self.assertEqual(arrival.feed(data), FOUND)

    def test_more_behind(self) -> None:
        """
        What comes behind the hello, as early data does, is not looked at.
        """
        data = record(WEB) + record(b"early", kind=23)
        self.assertEqual(SniArrival().feed(data), FOUND)

    def test_first_outcome_stays(self) -> None:
        """
        Once something was found, it stays.
        """
        arrival = SniArrival()
        found = arrival.feed(record(WEB))
        self.assertIs(arrival.feed(record(WEB) + b"more"), found)

    def test_start(self) -> None:
        """
        The TLS of a client may begin behind something else.
        """
        self.assertEqual(SniArrival(start=3).feed(b"abc" + record(WEB)), FOUND)

    def test_any_split(self) -> None:
        """
        Wherever a real hello is split, it is found at its end and not before.
        """
        data = Client("web.example").hello
        for cut in range(len(data)):
            arrival = SniArrival()
            self.assertIsNone(arrival.feed(data[:cut]))
            self.assertEqual(arrival.feed(data), FOUND)

    def test_byte_by_byte(self) -> None:
        """
        A hello that drips in is found at its last byte.
        """
        data = records(WEB, 7)
        arrival = SniArrival()
        for end in range(len(data)):
            self.assertIsNone(arrival.feed(data[:end]))
        self.assertEqual(arrival.feed(data), FOUND)

    @given(st.lists(st.integers(1, len(WEB)), max_size=20))
    @quickly
    def test_any_records(self, cuts: list[int]) -> None:
        """
        However a hello is cut into records, the same is found.
        """
        edges = sorted({0, *cuts, len(WEB)})
        data = b"".join(record(WEB[start:end]) for start, end in pairwise(edges))
        self.assertEqual(SniArrival().feed(data), FOUND)

    @given(anything, st.lists(st.integers(0, 300), max_size=10))
    @example(records(WEB, 1), list(range(300)))
    @example(record(WEB[:3]) + record(WEB[3:] + b"x"), list(range(300)))
    @quickly
    def test_any_chunking(self, data: bytes, cuts: list[int]) -> None:
        """
        However any bytes are cut, the same is found.
        """
        limits = Limits(max_head=120)
        arrival = SniArrival(limits)
        for cut in sorted(cuts):
            arrival.feed(data[:cut])
        self.assertEqual(arrival.feed(data), SniArrival(limits).feed(data))

    @given(anything)
    @quickly
    def test_never_raises(self, data: bytes) -> None:
        """
        Whatever a client sends, there is an answer and no error, and an
        outcome by the bound.
        """
        arrival = SniArrival(Limits(max_head=120))
        found = arrival.feed(data)
        self.assertIsInstance(found, (Named, Malformed, type(None)))
        self.assertTrue(found is not None or len(data) < 120)
        self.assertEqual(arrival.answer(AGENT_AWAY), alert(Alert.INTERNAL_ERROR))

    @given(st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=4))
    @quickly
    def test_mutated(self, changes: list[tuple[int, int]]) -> None:
        """
        A real hello with some bytes changed leads to no error.
        """
        data = bytearray(Client("web.example").hello)
        for at, value in changes:
            data[at % len(data)] = value
        found = SniArrival().feed(bytes(data))
        self.assertIsInstance(found, (Named, Malformed, type(None)))


class Counted(bytes):
    """
    Bytes that count how many of them were looked at.
    """

    looked_at = 0

    def __getitem__(self, key):  # type: ignore[no-untyped-def]
        part = super().__getitem__(key)
        Counted.looked_at += len(part) if isinstance(part, bytes) else 1
        return part


class BoundTests(SynchronousTestCase):
    """
    A client that says too much.
    """

    def test_longest(self) -> None:
        """
        A hello that ends at the bound is served, and one byte more is not.
        """
        self.assertEqual(SniArrival().feed(record(padded(16384 - 5))), FOUND)
        self.assertIsInstance(SniArrival().feed(record(padded(16384 - 4))), Malformed)

    def test_longest_in_records(self) -> None:
        """
        The heads of the records count too.
        """
        self.assertEqual(SniArrival().feed(records(padded(16384 - 20), 4096)), FOUND)
        self.assertIsInstance(SniArrival().feed(records(padded(16384 - 19), 4096)), Malformed)

    def test_announced(self) -> None:
        """
        A hello that is announced as too long is not waited for.
        """
        reason = "the ClientHello does not end within 16384 bytes"
        self.assertEqual(
            SniArrival().feed(record(padded(16380))[:9]),
            Malformed(reason, alert(Alert.ILLEGAL_PARAMETER)),
        )

    @given(st.integers(1, 60))
    @quickly
    def test_endless_records(self, size: int) -> None:
        """
        However tiny the records are, it is told by the bound.
        """
        data = records(padded(16384), size)[:16384]
        self.assertIsInstance(SniArrival().feed(data), Malformed)

    def test_cost(self) -> None:
        """
        A client that drips tiny records costs a few looks at each byte.
        """
        data = records(padded(2600), 1)
        arrival = SniArrival()
        Counted.looked_at = 0
        for end in range(len(data)):
            self.assertIsNone(arrival.feed(Counted(data[:end])))
        self.assertEqual(arrival.feed(data), FOUND)
        self.assertLess(Counted.looked_at, 8 * len(data))


class FaultTests(SynchronousTestCase):
    """
    What is no ClientHello that can be served, and the alert that says so.
    """

    def assert_fault(self, data: bytes, description: Alert) -> None:
        """
        Assert that the bytes are answered with this alert, also if they drip.
        """
        found = SniArrival().feed(data)
        arrival = SniArrival()
        for end in range(len(data)):
            arrival.feed(data[:end])
        self.assertEqual(arrival.feed(data), found)
        assert isinstance(found, Malformed)
        self.assertEqual(found.answer, bytes((21, 3, 3, 0, 2, 2, description)))
        self.assertTrue(found.reason)

    def test_other_record(self) -> None:
        """
        A record of another type in the middle of the hello is unexpected.
        """
        self.assert_fault(record(WEB[:9]) + record(b"\1", kind=20), Alert.UNEXPECTED_MESSAGE)

    def test_no_record(self) -> None:
        """
        Bytes that are no record are unexpected.
        """
        self.assert_fault(b"GET / HTTP/1.1\r\n", Alert.UNEXPECTED_MESSAGE)

    def test_ssl2(self) -> None:
        """
        An SSL 2.0 hello is of no version that is served.
        """
        self.assert_fault(b"\x80\x2e\x01\x03\x01", Alert.PROTOCOL_VERSION)

    def test_record_version(self) -> None:
        """
        The version of a record has to be one of TLS.
        """
        self.assert_fault(record(WEB, version=b"\x02\x00"), Alert.PROTOCOL_VERSION)

    def test_hello_version(self) -> None:
        """
        The version of the hello has to be one of TLS.
        """
        self.assert_fault(record(message(version=b"\xfe\xfd")), Alert.PROTOCOL_VERSION)

    def test_empty_record(self) -> None:
        """
        A handshake record with nothing in it is not allowed.
        """
        self.assert_fault(record(b""), Alert.DECODE_ERROR)
        self.assert_fault(record(WEB[:9]) + record(b""), Alert.DECODE_ERROR)

    def test_long_record(self) -> None:
        """
        A record that is announced as longer than 16384 bytes is an overflow.
        """
        self.assert_fault(b"\x16\x03\x01\x40\x01", Alert.RECORD_OVERFLOW)

    def test_other_message(self) -> None:
        """
        The first message has to be a ClientHello.
        """
        self.assert_fault(record(message(kind=2)), Alert.UNEXPECTED_MESSAGE)

    def test_record_goes_on(self) -> None:
        """
        A second message in the hello's last record is unexpected.
        """
        self.assert_fault(record(WEB + WEB), Alert.UNEXPECTED_MESSAGE)

    def test_cut_short(self) -> None:
        """
        A hello that ends in the middle of a field cannot be decoded.
        """
        for size in (0, 1, 2, 20, 34, 36, 38, 39, len(WEB) - 5):
            self.assert_fault(record(b"\1" + vector(3, WEB[4 : 4 + size])), Alert.DECODE_ERROR)

    def test_long_session(self) -> None:
        """
        A session ID of more than 32 bytes is out of range.
        """
        self.assert_fault(record(message(session=bytes(33))), Alert.DECODE_ERROR)

    def test_suites(self) -> None:
        """
        Cipher suites come in pairs of bytes, and there is one at least.
        """
        self.assert_fault(record(message(suites=b"")), Alert.DECODE_ERROR)
        self.assert_fault(record(message(suites=b"abc")), Alert.DECODE_ERROR)

    def test_compressions(self) -> None:
        """
        There is one method of compression at least.
        """
        self.assert_fault(record(message(compressions=b"")), Alert.DECODE_ERROR)

    def test_behind_extensions(self) -> None:
        """
        Nothing comes behind the extensions.
        """
        self.assert_fault(record(message(rest=b"\0\0x")), Alert.DECODE_ERROR)

    def test_extension_too_long(self) -> None:
        """
        An extension ends before the extensions do.
        """
        self.assert_fault(hello(b"\0\x15\0\5abc"), Alert.DECODE_ERROR)

    def test_extension_twice(self) -> None:
        """
        Each extension is there once, even if it says the same twice.
        """
        name, padding = server_name(b"web.example"), extension(PADDING, b"")
        self.assert_fault(hello(name, name), Alert.ILLEGAL_PARAMETER)
        self.assert_fault(hello(padding, name, padding), Alert.ILLEGAL_PARAMETER)

    def test_no_list(self) -> None:
        """
        A server_name with nothing in it is only for servers to send.
        """
        self.assert_fault(hello(extension(0, b"")), Alert.DECODE_ERROR)

    def test_empty_list(self) -> None:
        """
        There is one name at least.
        """
        self.assert_fault(hello(server_name()), Alert.DECODE_ERROR)

    def test_behind_list(self) -> None:
        """
        Nothing comes behind the list of names.
        """
        self.assert_fault(hello(extension(0, b"\0\4\0\0\1wx")), Alert.DECODE_ERROR)

    def test_empty_name(self) -> None:
        """
        A name has one byte at least.
        """
        self.assert_fault(hello(server_name(b"")), Alert.DECODE_ERROR)

    def test_two_names(self) -> None:
        """
        A client cannot want two hosts.
        """
        self.assert_fault(hello(server_name(b"web", b"db")), Alert.ILLEGAL_PARAMETER)

    def test_other_kind_of_name(self) -> None:
        """
        A name that is no host's is of a type that nobody has defined.
        """
        self.assert_fault(hello(server_name(b"web", kind=1)), Alert.ILLEGAL_PARAMETER)

    def test_no_host(self) -> None:
        """
        The name is that of a host, in ASCII.
        """
        for name in (b"b\xc3\xbccher", b"a b", b"web..example", b"web\0", b".", b"web:443"):
            self.assert_fault(hello(server_name(name)), Alert.ILLEGAL_PARAMETER)

    def test_address(self) -> None:
        """
        An IP address is not a name (RFC 6066 3).
        """
        for name in (b"192.0.2.7", b"2001:db8::1", b"[2001:db8::1]"):
            self.assert_fault(hello(server_name(name)), Alert.ILLEGAL_PARAMETER)


class AnswerTests(SynchronousTestCase):
    """
    What a client is told that cannot be served.
    """

    def test_bytes(self) -> None:
        """
        An alert is a record of two bytes: fatal, and why.
        """
        self.assertEqual(alert(Alert.UNRECOGNIZED_NAME), bytes.fromhex("15030300020270"))

    def test_no_such_server(self) -> None:
        """
        A real client understands that its server is not known.
        """
        for newest in (None, ssl.TLSVersion.TLSv1_2):
            client, arrival = Client("web.example", newest), SniArrival()
            arrival.feed(client.hello)
            self.assertIn("unrecognized name", client.understands(arrival.answer(NO_SUCH_SERVER)))

    def test_named_nobody(self) -> None:
        """
        A real client understands that it should have named a server.
        """
        client, arrival = Client(None), SniArrival()
        arrival.feed(client.hello)
        answer = arrival.answer(NO_SUCH_SERVER)
        self.assertEqual(answer, alert(Alert.MISSING_EXTENSION))
        self.assertIn("missing extension", client.understands(answer))

    def test_not_allowed(self) -> None:
        """
        A real client understands that it has no access.
        """
        client, arrival = Client("web.example"), SniArrival()
        arrival.feed(client.hello)
        self.assertIn("access denied", client.understands(arrival.answer(NOT_ALLOWED)))

    def test_anything_else(self) -> None:
        """
        A real client understands that it is no fault of its own.
        """
        client, arrival = Client("web.example"), SniArrival()
        arrival.feed(client.hello)
        self.assertIn("internal error", client.understands(arrival.answer(AGENT_AWAY)))

    def test_timed_out(self) -> None:
        """
        A real client understands that the handshake has failed.
        """
        client, arrival = Client("web.example"), SniArrival()
        arrival.feed(client.hello[:50])
        self.assertIn("handshake failure", client.understands(arrival.timed_out()))

    def test_fault(self) -> None:
        """
        A real client understands what is wrong with its hello.
        """
        client = Client("web.example")
        found = SniArrival(Limits(max_head=100)).feed(client.hello)
        assert isinstance(found, Malformed)
        self.assertIn("illegal parameter", client.understands(found.answer))
