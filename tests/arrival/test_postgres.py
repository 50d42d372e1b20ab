"""
Tests for L{relaytunnel.arrival.postgres}.
"""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.arrival.hello import Alert, alert
from relaytunnel.arrival.postgres import POSTGRES, PostgresArrival
from relaytunnel.arrival.ways import Limits, Malformed, Named, Prelude
from relaytunnel.errors import Code, Failing
from tests.arrival.test_tls import Client, hello, server_name

quickly = settings(deadline=None, max_examples=100)

SSL = bytes.fromhex("00000008 04d2162f")
GSS = bytes.fromhex("00000008 04d21630")
CANCEL = bytes.fromhex("00000010 04d2162e 00000001 00000002")
LONG_CANCEL = bytes.fromhex("0000002c 04d2162e 00000001") + bytes(32)
STARTUP = bytes.fromhex("00000014 00030000") + b"user\0alice\0\0"
WEB = hello(server_name(b"web.example"))
AGENT_AWAY = Failing(Code.AGENT_AWAY, "the agent of web is not connected")
NO_SUCH_SERVER = Failing(Code.NO_SUCH_SERVER, "no server has this name")
PRELUDE = Prelude(says=SSL, hears=b"S")

almost = st.lists(
    st.sampled_from([SSL, GSS, CANCEL, STARTUP, WEB, WEB[:40], b"\0", b"\0\0\0\x08", b"\x04\xd2"]),
    max_size=4,
).map(b"".join)
anything = st.binary(max_size=60) | almost


def parse_error(data: bytes) -> dict[str, str]:
    """
    Read an ErrorResponse.
    """
    assert data[:1] == b"E"
    assert int.from_bytes(data[1:5], "big") == len(data) - 1
    assert data.endswith(b"\0\0")
    fields = data[5:-2].decode().split("\0")
    return {field[0]: field[1:] for field in fields}


class FitsTests(SynchronousTestCase):
    """
    The choice by the first bytes.
    """

    def test_each(self) -> None:
        """
        Each message that a client may begin with is recognised by eight
        bytes, and no sooner.
        """
        newer = bytes.fromhex("00000014 00030002")
        longest = bytes.fromhex("00002710 00030000")
        for data in (SSL, GSS, CANCEL, LONG_CANCEL, STARTUP, newer, longest):
            for end in range(8):
                self.assertIsNone(POSTGRES.fits(data[:end]))
            self.assertIs(POSTGRES.fits(data[:8]), True)
            self.assertIs(POSTGRES.fits(data + b"more"), True)

    def test_others(self) -> None:
        """
        What cannot become such a message is recognised at once.
        """
        for text in (
            *("01", "0001", "00002711", "00000007", "00000008 05", "00000009 04", "0000000f 04"),
            *("00000014 0002", "00000008 04d2162e", "00000014 04d2162f", "00000008 04d21631"),
        ):
            data = bytes.fromhex(text)
            self.assertIs(POSTGRES.fits(data), False, text)
            self.assertIsNone(POSTGRES.fits(data[:-1]), text)
        self.assertIs(POSTGRES.fits(b"GET / HTTP/1.1"), False)

    @given(anything, st.integers(0, 60))
    @quickly
    def test_final(self, data: bytes, cut: int) -> None:
        """
        What was decided by some bytes is decided by more of them too.
        """
        early = POSTGRES.fits(data[:cut])
        if early is not None:
            self.assertIs(POSTGRES.fits(data), early)


class PostgresArrivalTests(SynchronousTestCase):
    """
    A client that asks for TLS and names its server.
    """

    def test_named(self) -> None:
        """
        A client is told to speak TLS, and its real hello names the server.
        """
        arrival = PostgresArrival()
        self.assertIsNone(arrival.feed(SSL))
        self.assertEqual(arrival.take_reply(), b"S")
        self.assertEqual(
            arrival.feed(SSL + Client("db.example").hello),
            Named("postgres", "db.example", consumed=8, prelude=PRELUDE),
        )

    def test_gssapi_first(self) -> None:
        """
        A client that asks for GSSAPI is told no, and goes on with TLS; the
        server is asked for TLS alone.
        """
        arrival = PostgresArrival()
        self.assertIsNone(arrival.feed(GSS))
        self.assertEqual(arrival.take_reply(), b"N")
        self.assertIsNone(arrival.feed(GSS + SSL))
        self.assertEqual(arrival.take_reply(), b"S")
        self.assertEqual(
            arrival.feed(GSS + SSL + WEB),
            Named("postgres", "web.example", consumed=16, prelude=PRELUDE),
        )

    def test_named_nobody(self) -> None:
        """
        A client that has only an address to go by names nobody.
        """
        found = PostgresArrival().feed(SSL + Client(None).hello)
        self.assertEqual(found, Named("postgres", None, consumed=8, prelude=PRELUDE))

    def test_reply_once(self) -> None:
        """
        There is no reply before the request is complete, and none twice.
        """
        arrival = PostgresArrival()
        arrival.feed(SSL[:7])
        self.assertEqual(arrival.take_reply(), b"")
        arrival.feed(SSL)
        self.assertEqual(arrival.take_reply(), b"S")
        arrival.feed(SSL + WEB)
        self.assertEqual(arrival.take_reply(), b"")

    def test_not_waiting(self) -> None:
        """
        A client that does not wait for the answers gets them all the same, in
        their order.
        """
        arrival = PostgresArrival()
        self.assertIsInstance(arrival.feed(GSS + SSL + WEB), Named)
        self.assertEqual(arrival.take_reply(), b"NS")

    def test_first_outcome_stays(self) -> None:
        """
        Once something was found, it stays.
        """
        arrival = PostgresArrival()
        found = arrival.feed(SSL + WEB)
        self.assertIs(arrival.feed(SSL + WEB + b"more"), found)

    @given(anything, st.lists(st.integers(0, 200), max_size=10))
    @example(GSS + SSL + WEB, list(range(200)))
    @example(GSS + STARTUP, list(range(200)))
    @example(GSS + GSS, list(range(200)))
    @example(SSL + b"Q\0\0\0\x0bdelete\0", list(range(200)))
    @quickly
    def test_any_chunking(self, data: bytes, cuts: list[int]) -> None:
        """
        However the bytes are cut, the same is found, and the same replied.
        """
        whole, arrival = PostgresArrival(), PostgresArrival()
        replies = []
        for cut in [*sorted(cuts), len(data)]:
            arrival.feed(data[:cut])
            replies.append(arrival.take_reply())
        self.assertEqual(arrival.feed(data), whole.feed(data))
        self.assertEqual(b"".join(replies), whole.take_reply())

    @given(anything)
    @quickly
    def test_never_raises(self, data: bytes) -> None:
        """
        Whatever a client sends, there is an outcome, an answer and no error.
        """
        arrival = PostgresArrival()
        self.assertIsInstance(arrival.feed(data), (Named, Malformed, type(None)))
        self.assertTrue(arrival.answer(AGENT_AWAY))
        self.assertTrue(arrival.timed_out())

    def test_bounded(self) -> None:
        """
        The bound of the head counts the requests too.
        """
        size = len(GSS + SSL + WEB)
        arrival = PostgresArrival(Limits(max_head=size))
        self.assertIsInstance(arrival.feed(GSS + SSL + WEB), Named)
        arrival = PostgresArrival(Limits(max_head=size - 1))
        self.assertIsInstance(arrival.feed(GSS + SSL + WEB[:9]), Malformed)


class FaultTests(SynchronousTestCase):
    """
    Clients that cannot be served.
    """

    def malformed(self, data: bytes) -> Malformed:
        """
        Assert that the bytes cannot be understood.
        """
        found = PostgresArrival().feed(data)
        assert isinstance(found, Malformed)
        return found

    def test_plaintext(self) -> None:
        """
        A client that does without TLS is told what to do, even if it has
        asked for GSSAPI.
        """
        for data in (STARTUP, GSS + STARTUP):
            found = self.malformed(data)
            fields = parse_error(found.answer)
            self.assertEqual((fields["S"], fields["V"], fields["C"]), ("FATAL", "FATAL", "08004"))
            self.assertIn("sslmode=require", fields["M"])
            self.assertIn("sslmode=require", found.reason)

    def test_cancel(self) -> None:
        """
        A client that cancels a query without TLS is told nothing.
        """
        for data in (CANCEL, LONG_CANCEL):
            found = self.malformed(data)
            self.assertEqual(found.answer, b"")
            self.assertIn("cancelled", found.reason)

    def test_gssapi_twice(self) -> None:
        """
        A client does not ask for the same again.
        """
        self.assertEqual(parse_error(self.malformed(GSS + GSS).answer)["C"], "08P01")

    def test_no_message(self) -> None:
        """
        What is no message of a client is a violation of the protocol.
        """
        self.assertEqual(parse_error(self.malformed(GSS + b"GET ").answer)["C"], "08P01")

    def test_no_hello(self) -> None:
        """
        A client that was told to speak TLS and does not gets an alert.
        """
        self.assertEqual(self.malformed(SSL + STARTUP).answer, alert(Alert.UNEXPECTED_MESSAGE))


class AnswerTests(SynchronousTestCase):
    """
    What a client is told that cannot be served.
    """

    def test_before_tls(self) -> None:
        """
        A client that was not told yet to speak TLS gets an ErrorResponse.
        """
        for data in (b"\0\0", SSL, GSS):
            arrival = PostgresArrival()
            arrival.feed(data)
            fields = parse_error(arrival.answer(AGENT_AWAY))
            self.assertEqual(fields["C"], "08001")
            self.assertEqual(fields["M"], f"relaytunnel: agent-away: {AGENT_AWAY.reason}")

    def test_within_tls(self) -> None:
        """
        A real client that was told to speak TLS understands an alert.
        """
        client, arrival = Client("db.example"), PostgresArrival()
        arrival.feed(SSL)
        arrival.take_reply()
        arrival.feed(SSL + client.hello)
        self.assertIn("unrecognized name", client.understands(arrival.answer(NO_SUCH_SERVER)))

    def test_within_tls_named_nobody(self) -> None:
        """
        A client that named nobody is told that a name is missing.
        """
        arrival = PostgresArrival()
        arrival.feed(SSL + hello())
        arrival.take_reply()
        self.assertEqual(arrival.answer(NO_SUCH_SERVER), alert(Alert.MISSING_EXTENSION))

    def test_timed_out_before_tls(self) -> None:
        """
        A client that is slow to ask is told so in an ErrorResponse.
        """
        arrival = PostgresArrival()
        arrival.feed(SSL[:5])
        fields = parse_error(arrival.timed_out())
        self.assertEqual(fields["C"], "08001")
        self.assertIn("timeout", fields["M"])

    def test_timed_out_within_tls(self) -> None:
        """
        A client that is slow to say hello gets an alert.
        """
        arrival = PostgresArrival()
        arrival.feed(SSL)
        arrival.take_reply()
        self.assertEqual(arrival.timed_out(), alert(Alert.HANDSHAKE_FAILURE))

    def test_harmless(self) -> None:
        """
        A reason cannot bring in a field of its own.
        """
        arrival = PostgresArrival()
        fields = parse_error(arrival.answer(Failing(Code.BUSY, "a\0Cb\nc")))
        self.assertEqual(fields["M"], "relaytunnel: busy: a Cb c")
        self.assertEqual(fields["C"], "08001")
