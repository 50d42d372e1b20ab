"""
Tests for L{relaytunnel.arrival.socks}.
"""

from __future__ import annotations

from itertools import pairwise

from hypothesis import example, given, settings
from hypothesis import strategies as st

from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.arrival.socks import SOCKS4, SOCKS5, Socks4Arrival, Socks5Arrival
from relaytunnel.arrival.ways import Limits, Login, Malformed, Named, Opening, Way
from relaytunnel.errors import Code, Failing
from tests.arrival.directory import Servers

OPEN = b"\x05\x01\x00"
WITH_LOGIN = b"\x05\x02\x00\x02"
LOGIN = b"\x01\x03ann\x06secret"
SIX = bytes(6)
WELCOME = b"\x05\x00\x00\x01" + SIX
GRANTED, REJECTED = b"\x00\x5a" + SIX, b"\x00\x5b" + SIX
HEAD_4A = b"\x04\x01\x00\x16\x00\x00\x00\x01"
MAX_SOCKS5 = 2 + 255 + 3 + 255 + 255 + 7 + 255
MAX_SOCKS4 = 8 + 256 + 256

quickly = settings(deadline=None, max_examples=100)

almost_socks5 = st.lists(
    st.sampled_from(
        [
            *(OPEN, WITH_LOGIN, LOGIN, b"\x05\x00", b"\x05\x01\x01", b"\x01\x00\x00"),
            *(b"\x05\x01\x00\x03", b"\x05\x02\x00\x03", b"\x05\x01\x00\x01", b"\x05\x01\x01\x03"),
            *(b"\x03web\x00\x50", b"\x00\x00\x50", b"\x03a..\x00\x50", b"\xff", b"\x00", b"GET /"),
        ]
    ),
    max_size=8,
).map(b"".join)
almost_socks4 = st.lists(
    st.sampled_from(
        [
            *(HEAD_4A, b"\x04\x02\x00\x16\x00\x00\x00\x01", b"\x04\x01\x00\x16\x7f\x00\x00\x01"),
            *(b"\x00", b"ann", b"web\x00", b"a" * 255, b"a", b"\xff", b"127.0.0.1", b"GET /"),
        ]
    ),
    max_size=8,
).map(b"".join)
anything = st.binary(max_size=100)
started = (
    st.tuples(st.just(SOCKS5), almost_socks5)
    | st.tuples(st.just(SOCKS4), almost_socks4)
    | st.tuples(st.sampled_from([SOCKS5, SOCKS4]), anything)
    | st.tuples(st.just(SOCKS5), st.builds(bytes.__add__, st.just(b"\x05"), anything))
    | st.tuples(st.just(SOCKS4), st.builds(bytes.__add__, st.just(b"\x04"), anything))
)


def request(name: bytes, port: int = 22, head: bytes = b"\x05\x01\x00\x03") -> bytes:
    """
    @return: a SOCKS5 request for a domain name.
    """
    return head + bytes([len(name)]) + name + port.to_bytes(2, "big")


def failing(code: Code) -> Failing:
    """
    @return: a failure of this code.
    """
    return Failing(code, "a reason")


def said(way: Way, data: bytes, cuts: list[int]) -> tuple[Named | Malformed | None, bytes]:
    """
    Feed data that is cut at these places.

    @return: the outcome, and all that the client is told up to it.
    """
    outcome, told = None, b""
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for _, end in pairwise(edges):
        outcome = way.feed(data[:end])
        told += way.take_reply()
    return outcome, told + (outcome.answer if isinstance(outcome, Malformed) else b"")


class FitsTests(SynchronousTestCase):
    """
    The first bytes.
    """

    def test_nothing(self) -> None:
        """
        Without a byte nothing can be told.
        """
        self.assertIsNone(SOCKS5.fits(b""))
        self.assertIsNone(SOCKS4.fits(b""))

    def test_version(self) -> None:
        """
        The first byte is the version.
        """
        self.assertIs(SOCKS5.fits(b"\x05"), True)
        self.assertIs(SOCKS4.fits(b"\x04\x01"), True)

    def test_other(self) -> None:
        """
        Any other byte is not this way's.
        """
        self.assertIs(SOCKS5.fits(b"\x04"), False)
        self.assertIs(SOCKS4.fits(b"\x05\x01"), False)
        self.assertIs(SOCKS5.fits(b"GET "), False)

    def test_begin(self) -> None:
        """
        An opening begins the way of its name.
        """
        for opening in (SOCKS5, SOCKS4):
            way = opening.begin(Limits())
            self.assertEqual(way.name, opening.name)
            self.assertIsNone(way.ask(Servers(), failing(Code.NO_SUCH_SERVER)))


class Socks5Tests(SynchronousTestCase):
    """
    SOCKS5 (RFC 1928, RFC 1929).
    """

    def refused(self, data: bytes, answer: bytes, taken: bytes = b"") -> Malformed:
        """
        Assert that these bytes are at fault, and what the client is told.
        """
        way = Socks5Arrival()
        outcome = way.feed(data)
        assert isinstance(outcome, Malformed), outcome
        self.assertEqual(way.take_reply(), taken)
        self.assertEqual(outcome.answer, answer)
        return outcome

    def refused_request(self, data: bytes, rep: int) -> Malformed:
        """
        Assert that a request is at fault, and the code that it is told.
        """
        return self.refused(OPEN + data, bytes([5, rep, 0, 1]) + SIX, b"\x05\x00")

    def test_open(self) -> None:
        """
        A client without a login is let on, and names its server.
        """
        way = Socks5Arrival()
        self.assertIsNone(way.feed(OPEN))
        self.assertEqual(way.take_reply(), b"\x05\x00")
        data = OPEN + request(b"Web.Example.")
        named = Named("socks5", "web.example", 22, consumed=len(data), welcome=WELCOME)
        self.assertEqual(way.feed(data), named)
        self.assertEqual(way.take_reply(), b"")

    def test_login(self) -> None:
        """
        A client with a login is asked for it, and told that it is fine.
        """
        way = Socks5Arrival()
        self.assertIsNone(way.feed(WITH_LOGIN))
        self.assertEqual(way.take_reply(), b"\x05\x02")
        self.assertIsNone(way.feed(WITH_LOGIN + LOGIN))
        self.assertEqual(way.take_reply(), b"\x01\x00")
        outcome = way.feed(WITH_LOGIN + LOGIN + request(b"web"))
        assert isinstance(outcome, Named)
        self.assertEqual(outcome.login, Login("ann", "secret"))

    def test_reply_once(self) -> None:
        """
        A reply is handed over once.
        """
        way = Socks5Arrival()
        way.feed(OPEN)
        way.take_reply()
        way.feed(OPEN)
        self.assertEqual(way.take_reply(), b"")

    def test_all_at_once(self) -> None:
        """
        A client that does not wait gets its replies in their order, and what
        it sent beyond the request is the server's.
        """
        way = Socks5Arrival()
        head = WITH_LOGIN + LOGIN + request(b"web")
        outcome = way.feed(head + b"SSH-2.0-x\r\n")
        assert isinstance(outcome, Named)
        self.assertEqual(outcome.consumed, len(head))
        self.assertEqual(way.take_reply(), b"\x05\x02\x01\x00")

    def test_no_port(self) -> None:
        """
        Port 0 is no port.
        """
        outcome = Socks5Arrival().feed(OPEN + request(b"web", 0))
        assert isinstance(outcome, Named)
        self.assertIsNone(outcome.port)

    def test_empty_login(self) -> None:
        """
        An empty user name and an empty password are a login.
        """
        outcome = Socks5Arrival().feed(WITH_LOGIN + b"\x01\x00\x00" + request(b"web"))
        assert isinstance(outcome, Named)
        self.assertEqual(outcome.login, Login("", ""))

    def test_login_in_unicode(self) -> None:
        """
        A login is read as UTF-8.
        """
        data = WITH_LOGIN + b"\x01\x02\xc3\xa4\x01b" + request(b"web")
        outcome = Socks5Arrival().feed(data)
        assert isinstance(outcome, Named)
        self.assertEqual(outcome.login, Login("\xe4", "b"))

    def test_login_in_another_encoding(self) -> None:
        """
        A login that is not UTF-8 counts as not said.
        """
        way = Socks5Arrival()
        outcome = way.feed(WITH_LOGIN + b"\x01\x01a\x01\xe4" + request(b"web"))
        assert isinstance(outcome, Named)
        self.assertIsNone(outcome.login)
        self.assertEqual(way.take_reply(), b"\x05\x02\x01\x00")

    def test_no_methods(self) -> None:
        """
        A client that offers no method is refused.
        """
        self.refused(b"\x05\x00", b"\x05\xff")

    def test_no_known_method(self) -> None:
        """
        A client that offers only methods of others is refused.
        """
        self.refused(b"\x05\x02\x01\x80", b"\x05\xff")

    def test_version_of_the_methods(self) -> None:
        """
        The first message is one of version 5.
        """
        self.refused(b"\x06\x01\x00", b"\x05\xff")

    def test_version_of_the_login(self) -> None:
        """
        A login of another version than 1 fails, behind the choice of method.
        """
        self.refused(WITH_LOGIN + b"\x02", b"\x01\x01", b"\x05\x02")

    def test_version_of_the_request(self) -> None:
        """
        A request of another version is a general failure.
        """
        self.refused_request(b"\x04", 1)

    def test_other_commands(self) -> None:
        """
        BIND, UDP ASSOCIATE and unknown commands are not supported.
        """
        for command in (0, 2, 3, 4):
            self.refused_request(request(b"web", head=bytes([5, command, 0, 3])), 7)

    def test_reserved(self) -> None:
        """
        A reserved byte that is not 0 is a general failure.
        """
        self.refused_request(request(b"web", head=b"\x05\x01\x01\x03"), 1)

    def test_ipv4(self) -> None:
        """
        A client that names an IPv4 address learns how to send a name.
        """
        outcome = self.refused_request(b"\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x16", 8)
        self.assertIn("socks5h", outcome.reason)

    def test_ipv6(self) -> None:
        """
        A client that names an IPv6 address learns how to send a name.
        """
        outcome = self.refused_request(b"\x05\x01\x00\x04" + bytes(18), 8)
        self.assertIn("socks5h", outcome.reason)

    def test_address_as_a_name(self) -> None:
        """
        An address in text is an address too.
        """
        for text in (b"127.0.0.1", b"127.0.0.1.", b"::1", b"[::1]", b"fe80::1%eth0"):
            self.refused_request(request(text), 8)

    def test_unknown_type(self) -> None:
        """
        A type of address that does not exist is not supported.
        """
        self.refused_request(b"\x05\x01\x00\x02", 8)

    def test_bad_names(self) -> None:
        """
        What is no domain name is a general failure.
        """
        for text in (
            b"",
            b".",
            b"a..b",
            b"a b",
            b"web\0",
            b"\xff",
            b"127.1",
            b"web:22",
            b"a" * 64,
        ):
            self.refused_request(request(text), 1)

    def test_login_and_a_bad_request(self) -> None:
        """
        The replies to good messages go out before the answer to a bad one.
        """
        self.refused(
            WITH_LOGIN + LOGIN + request(b""), b"\x05\x01\x00\x01" + SIX, b"\x05\x02\x01\x00"
        )

    def test_stays(self) -> None:
        """
        What was found stays, whatever comes behind it.
        """
        for data in (b"\x05\x00", OPEN + request(b"web")):
            way = Socks5Arrival()
            outcome = way.feed(data)
            self.assertIs(way.feed(data + OPEN), outcome)

    def test_answer_at_once(self) -> None:
        """
        A client that is turned away at its first message gets no method.
        """
        way = Socks5Arrival()
        way.feed(b"\x05")
        self.assertEqual(way.answer(failing(Code.BUSY)), b"\x05\xff")
        self.assertEqual(way.timed_out(), b"\x05\xff")

    def test_answer_to_a_login(self) -> None:
        """
        A client that is turned away during its login sees the login fail.
        """
        way = Socks5Arrival()
        way.feed(WITH_LOGIN + b"\x01\x03an")
        self.assertEqual(way.answer(failing(Code.BUSY)), b"\x01\x01")
        self.assertEqual(way.timed_out(), b"\x01\x01")

    def test_timed_out(self) -> None:
        """
        A request that does not come in time is one whose time to live is over.
        """
        way = Socks5Arrival()
        way.feed(OPEN + b"\x05")
        self.assertEqual(way.timed_out(), b"\x05\x06\x00\x01" + SIX)

    def test_answers(self) -> None:
        """
        Each failure is told by the code that fits best.
        """
        reps = {
            Code.NO_SUCH_SERVER: 4,
            Code.AGENT_AWAY: 3,
            Code.NOT_ALLOWED: 2,
            Code.LOGIN_NEEDED: 2,
            Code.UNKNOWN_ID: 4,
            Code.REFUSED_BY_TARGET: 5,
            Code.TARGET_UNREACHABLE: 4,
            Code.TIMEOUT: 6,
        }
        way = Socks5Arrival()
        way.feed(OPEN + request(b"web"))
        for code in Code:
            answer = bytes([5, reps.get(code, 1), 0, 1]) + SIX
            self.assertEqual(way.answer(failing(code)), answer)

    @given(
        methods=st.binary(max_size=253).map(lambda others: others + b"\0\2"),
        user=st.binary(max_size=255),
        password=st.binary(max_size=255),
        port=st.integers(0, 65535),
        rest=st.binary(max_size=20),
    )
    @quickly
    def test_valid(
        self, methods: bytes, user: bytes, password: bytes, port: int, rest: bytes
    ) -> None:
        """
        Whatever the texts are, the request ends where it ends.
        """
        texts = bytes([len(user)]) + user + bytes([len(password)]) + password
        head = b"\x05" + bytes([len(methods)]) + methods + b"\x01" + texts + request(b"web", port)
        way = Socks5Arrival()
        outcome = way.feed(head + rest)
        assert isinstance(outcome, Named)
        self.assertEqual((outcome.host, outcome.port), ("web", port or None))
        self.assertEqual(outcome.consumed, len(head))
        self.assertIsNone(Socks5Arrival().feed(head[:-1]))


class Socks4Tests(SynchronousTestCase):
    """
    SOCKS4 and its extension 4A.
    """

    def refused(self, data: bytes) -> Malformed:
        """
        Assert that these bytes are at fault.
        """
        outcome = Socks4Arrival().feed(data)
        assert isinstance(outcome, Malformed), outcome
        self.assertEqual(outcome.answer, REJECTED)
        return outcome

    def test_named(self) -> None:
        """
        A client names its server behind its user ID.
        """
        way = Socks4Arrival()
        head = HEAD_4A + b"ann\0Web.Example\0"
        named = Named("socks4", "web.example", 22, consumed=len(head), welcome=GRANTED)
        self.assertEqual(way.feed(head + b"SSH-2.0-x\r\n"), named)
        self.assertEqual(way.take_reply(), b"")

    def test_no_port(self) -> None:
        """
        Port 0 is no port, and the user ID may be empty.
        """
        outcome = Socks4Arrival().feed(b"\x04\x01\x00\x00\x00\x00\x00\xff\0web\0")
        assert isinstance(outcome, Named)
        self.assertEqual((outcome.host, outcome.port), ("web", None))

    def test_version(self) -> None:
        """
        A request of another version is rejected.
        """
        self.refused(b"\x05")

    def test_bind(self) -> None:
        """
        BIND is rejected.
        """
        self.refused(b"\x04\x02" + HEAD_4A[2:] + b"\0web\0")

    def test_address(self) -> None:
        """
        A client that names an address learns how to send a name.
        """
        for address in (b"\x7f\x00\x00\x01", b"\x00\x00\x01\x01", bytes(4)):
            outcome = self.refused(HEAD_4A[:4] + address + b"\0")
            self.assertIn("socks4a", outcome.reason)

    def test_address_as_a_name(self) -> None:
        """
        An address in text is an address too.
        """
        outcome = self.refused(HEAD_4A + b"\x00127.0.0.1\0")
        self.assertIn("socks4a", outcome.reason)

    def test_bad_name(self) -> None:
        """
        What is no domain name is rejected.
        """
        for text in (b"", b"a..b", b"\xff", b"127.1", b"a" * 255):
            self.refused(HEAD_4A + b"\0" + text + b"\0")

    def test_longest_user(self) -> None:
        """
        A user ID of 255 bytes is taken.
        """
        self.assertIsInstance(Socks4Arrival().feed(HEAD_4A + b"u" * 255 + b"\0web\0"), Named)

    def test_user_too_long(self) -> None:
        """
        A user ID of more than 255 bytes is rejected, complete or not.
        """
        self.assertIsNone(Socks4Arrival().feed(HEAD_4A + b"u" * 255))
        self.refused(HEAD_4A + b"u" * 256)
        self.refused(HEAD_4A + b"u" * 256 + b"\0web\0")

    def test_name_too_long(self) -> None:
        """
        A name of more than 255 bytes is rejected, complete or not.
        """
        self.assertIsNone(Socks4Arrival().feed(HEAD_4A + b"\0" + b"n" * 255))
        self.refused(HEAD_4A + b"\0" + b"n" * 256)
        self.refused(HEAD_4A + b"\0" + b"n" * 256 + b"\0")

    def test_answers(self) -> None:
        """
        There is one reply for all failures, at any time.
        """
        way = Socks4Arrival()
        self.assertEqual(way.timed_out(), REJECTED)
        way.feed(HEAD_4A + b"\0web\0")
        for code in Code:
            self.assertEqual(way.answer(failing(code)), REJECTED)


class AnyBytesTests(SynchronousTestCase):
    """
    Both versions, whatever a client sends.
    """

    @given(started)
    @quickly
    def test_never_raises(self, sent: tuple[Opening, bytes]) -> None:
        """
        Whatever a client sends, there is an answer and no error.
        """
        opening, data = sent
        way = opening.begin(Limits())
        self.assertIsInstance(way.feed(data), (Named, Malformed, type(None)))
        self.assertTrue(way.answer(failing(Code.BUSY)))
        self.assertTrue(way.timed_out())

    @given(started, st.lists(st.integers(0, 100), max_size=10))
    @example((SOCKS5, WITH_LOGIN + LOGIN + request(b"web") + b"GET /"), list(range(40)))
    @example((SOCKS5, WITH_LOGIN + LOGIN + request(b"a..b")), list(range(40)))
    @example((SOCKS5, b"\x05\x01\x02\x02"), [3])
    @example((SOCKS4, HEAD_4A + b"ann\0web\0GET /"), list(range(30)))
    @example((SOCKS4, HEAD_4A + b"u" * 256 + b"\0web\0"), list(range(300)))
    @quickly
    def test_any_chunking(self, sent: tuple[Opening, bytes], cuts: list[int]) -> None:
        """
        However the bytes are cut, the same is found, told and answered.
        """
        opening, data = sent
        whole, parts = opening.begin(Limits()), opening.begin(Limits())
        self.assertEqual(said(parts, data, cuts), said(whole, data, []))
        self.assertEqual(parts.answer(failing(Code.BUSY)), whole.answer(failing(Code.BUSY)))

    def test_every_split(self) -> None:
        """
        A good head may be cut in two anywhere.
        """
        heads = [
            (SOCKS5, OPEN + request(b"web") + b"more"),
            (SOCKS5, WITH_LOGIN + LOGIN + request(b"web") + b"more"),
            (SOCKS4, HEAD_4A + b"ann\0web\0more"),
        ]
        for opening, data in heads:
            expected = said(opening.begin(Limits()), data, [])
            self.assertIsInstance(expected[0], Named)
            for cut in range(len(data)):
                self.assertEqual(said(opening.begin(Limits()), data, [cut]), expected)

    @given(st.binary(min_size=1, max_size=4))
    @quickly
    def test_bounded(self, fill: bytes) -> None:
        """
        Within its bound a head has an outcome, whatever the client goes on with.
        """
        starts = [b"\x05", WITH_LOGIN, WITH_LOGIN + b"\x01", OPEN + b"\x05\x01\x00\x03"]
        for start in starts:
            self.assertIsNotNone(Socks5Arrival().feed((start + fill * MAX_SOCKS5)[:MAX_SOCKS5]))
        for start in (b"\x04", HEAD_4A, HEAD_4A + b"\0"):
            self.assertIsNotNone(Socks4Arrival().feed((start + fill * MAX_SOCKS4)[:MAX_SOCKS4]))

    def test_longest(self) -> None:
        """
        The longest SOCKS5 head is read to its last byte.
        """
        methods = b"\x05\xff" + b"\x02" * 255
        login = b"\x01\xff" + b"u" * 255 + b"\xff" + b"p" * 255
        head = methods + login + request(b"n" * 255)
        self.assertEqual(len(head), MAX_SOCKS5)
        way = Socks5Arrival()
        self.assertIsNone(way.feed(head[:-1]))
        self.assertIsInstance(way.feed(head), Malformed)
