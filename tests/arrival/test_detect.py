"""
Tests for L{relaytunnel.arrival.detect}.
"""

from __future__ import annotations

import string
from itertools import pairwise

from hypothesis import example, given, settings
from hypothesis import strategies as st

from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.arrival import (
    HTTP,
    QUESTION,
    UNKNOWN,
    WAYS,
    WAYS_WITHOUT_QUESTION,
    Arrival,
    Asked,
    HttpArrival,
    Limits,
    Malformed,
    Named,
    Opening,
    UnknownArrival,
    detect,
)
from relaytunnel.errors import Code, Failing
from tests.arrival.directory import Servers
from tests.arrival.test_tls import hello, server_name

REQUEST = b"POST /a HTTP/1.1\r\nHost: web.example\r\nContent-Length: 3\r\n\r\nabc"
FAILING = Failing(Code.AGENT_AWAY, "the agent of web is not connected")

quickly = settings(deadline=None, max_examples=100)

token = st.text(string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~", min_size=1, max_size=20)
letters = string.ascii_letters + string.digits
label = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9-]{0,20}[A-Za-z0-9])?", fullmatch=True)
name = st.builds(
    lambda labels, last: ".".join([*labels, last]),
    st.lists(label, max_size=3),
    st.from_regex(r"[A-Za-z]{1,10}", fullmatch=True),
)
value = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40)
of_their_own = {"host", "content-length", "transfer-encoding"}
field = st.tuples(token.filter(lambda text: text.lower() not in of_their_own), value)
almost_heads = st.lists(
    st.sampled_from(
        [
            *(b"GET", b"CONNECT", b"PRI", b" ", b"/", b"*", b"http://web/", b"HTTP/1.1"),
            *(b"HTTP/1.0", b"HTTP/2.0", b"\r\n", b"\n", b"\r", b"Host: web", b"Host:", b"X: y"),
            *(b"Content-Length: 1", b"Transfer-Encoding: chunked", b"\0", b"\t", b"\xff", b":"),
            *(b"GET / HTTP/1.1\r\n", b"HEAD / HTTP/1.0\r\n", b"\r\n\r\n", b"Accept: text/html"),
        ]
    ),
    max_size=20,
).map(b"".join)
anything = st.binary(max_size=200) | almost_heads


class DetectTests(SynchronousTestCase):
    """
    The choice by the first bytes.
    """

    def test_http(self) -> None:
        """
        A method and a space are HTTP.
        """
        self.assertIs(detect(b"GET "), HTTP)

    def test_too_little(self) -> None:
        """
        A part of a method may become anything.
        """
        self.assertIsNone(detect(b"GE"))

    def test_unknown(self) -> None:
        """
        What is no known way is the unknown one.
        """
        self.assertIs(detect(b"\x80\x03\x01"), UNKNOWN)

    def test_bounded(self) -> None:
        """
        The choice is made within a few dozen bytes.
        """
        self.assertIs(detect(b"a" * 40), QUESTION)

    def test_another_way(self) -> None:
        """
        A way that is added to the table is chosen when it fits.
        """
        other = Opening("other", lambda prefix: prefix[:1] == b"\x07", UnknownArrival)
        self.assertIs(detect(b"\x07\x01", (*WAYS, other)), other)
        self.assertIs(detect(b"GET ", (*WAYS, other)), HTTP)

    def test_earlier_way_first(self) -> None:
        """
        A later way waits as long as an earlier one may still fit.
        """
        other = Opening("other", lambda prefix: True, UnknownArrival)
        self.assertIsNone(detect(b"GE", (*WAYS, other)))

    @given(anything, st.integers(0, 200))
    @quickly
    def test_final(self, data: bytes, cut: int) -> None:
        """
        What was chosen by some bytes is chosen by more of them too.
        """
        early = detect(data[:cut])
        if early is not None:
            self.assertIs(detect(data), early)


OPENINGS: dict[str, bytes] = {
    "sni": hello(server_name(b"web.example")),
    "socks5": b"\x05\x01\x00\x05\x01\x00\x03\x03web\x00\x16",
    "socks4": b"\x04\x01\x00\x16\x00\x00\x00\x01user\x00web\x00",
    "postgres": bytes.fromhex("00000008 04d2162f") + hello(server_name(b"web.example")),
    "http": b"GET / HTTP/1.1\r\nHost: web\r\n\r\n",
    "connect": b"CONNECT web:22 HTTP/1.1\r\nHost: web:22\r\n\r\n",
    "question": b"web\r\n",
}
"""What clients begin with, by the name of the way that understands it."""

CONFUSED: dict[str, bytes] = {
    "question": b"SSH-2.0-OpenSSH_9.6\r\n",
    "http": b"\r\nPOST /a HTTP/1.1\r\nHost: web\r\n\r\n",
    "unknown": b"\xff\xfb\x1f",
    "postgres": bytes.fromhex("00000008 04d21630"),
}


class WaysTests(SynchronousTestCase):
    """
    All ways side by side.
    """

    def ways_of(self, data: bytes, ways: tuple[Opening, ...], *cuts: int) -> set[str]:
        """
        Feed data in two pieces, for each of these cuts.

        @return: the names of the ways that were found.
        """
        found = set()
        for cut in cuts:
            arrival = Arrival(ways=ways)
            arrival.feed(data[:cut])
            arrival.feed(data[cut:])
            assert arrival.way is not None
            found.add(arrival.way.name)
        return found

    def test_each(self) -> None:
        """
        Each protocol is known by what its clients begin with, wherever that is
        cut.
        """
        for openings in (OPENINGS, CONFUSED):
            for name, data in openings.items():
                self.assertEqual(self.ways_of(data, WAYS, *range(len(data) + 1)), {name})

    def test_byte_by_byte(self) -> None:
        """
        The same, byte by byte, and every one names the same server.
        """
        for name, data in OPENINGS.items():
            arrival = Arrival()
            for at in range(len(data)):
                outcome = arrival.feed(data[at : at + 1])
            assert isinstance(outcome, Named), name
            self.assertEqual((outcome.way, (outcome.host or "")[:3]), (name, "web"))
            self.assertEqual(arrival.held, data)

    def test_without_question(self) -> None:
        """
        Where nobody is asked the other ways are the same, and a line of text
        is an unknown protocol.
        """
        self.assertNotIn(QUESTION, WAYS_WITHOUT_QUESTION)
        self.assertEqual((*WAYS_WITHOUT_QUESTION, QUESTION), WAYS)
        for name, data in OPENINGS.items():
            found = self.ways_of(data, WAYS_WITHOUT_QUESTION, *range(len(data) + 1))
            self.assertEqual(found, {"unknown" if name == "question" else name})

    def test_one_at_most(self) -> None:
        """
        No opening fits two ways, so that their order is of no meaning, except
        that the question takes what is left.
        """
        for data in OPENINGS.values():
            fitting = [way for way in WAYS_WITHOUT_QUESTION if way.fits(data)]
            self.assertLessEqual(len(fitting), 1)

    def test_reply(self) -> None:
        """
        What a client is told so that it goes on comes from its way, and once.
        """
        arrival = Arrival()
        self.assertEqual(arrival.take_reply(), b"")
        arrival.feed(b"\x05\x01\x00")
        self.assertEqual(arrival.take_reply(), b"\x05\x00")
        self.assertEqual(arrival.take_reply(), b"")

    @given(
        st.sampled_from(sorted(OPENINGS.values()) + sorted(CONFUSED.values())),
        st.binary(max_size=8),
        st.integers(0, 8),
        st.lists(st.integers(0, 400), max_size=6),
    )
    @quickly
    def test_never_by_the_cut(self, data: bytes, put: bytes, at: int, cuts: list[int]) -> None:
        """
        Also of what nearly is an opening the same is made, however it is cut.
        """
        data = data[:at] + put + data[at + len(put) :]
        for ways in (WAYS, WAYS_WITHOUT_QUESTION):
            whole = Arrival(ways=ways)
            whole.feed(data)
            arrival = Arrival(ways=ways)
            for start, end in pairwise([0, *sorted(cuts), max(len(data), *cuts, 0)]):
                arrival.feed(data[start:end])
            self.assertEqual(arrival.outcome, whole.outcome)
            self.assertEqual(arrival.way and arrival.way.name, whole.way and whole.way.name)


class AskTests(SynchronousTestCase):
    """
    Clients that are asked.
    """

    def test_silent(self) -> None:
        """
        A client that has said nothing may be waiting for a word, and is asked
        in text.
        """
        arrival = Arrival()
        self.assertTrue(arrival.silent())
        asked = arrival.ask(Servers("web"), None)
        assert isinstance(asked, Asked)
        self.assertFalse(asked.over)
        self.assertIn(b"  1) web\r\n", asked.data)
        self.assertEqual(arrival.feed(b"1\n"), Named("question", "web", consumed=2))

    def test_silent_with_a_way(self) -> None:
        """
        One whose protocol is known has a word of its own to say.
        """
        for start in (b"GET /", b"\x05\x01", b"web"):
            arrival = Arrival()
            arrival.feed(start)
            known = arrival.way is not None
            self.assertIs(arrival.silent(), not known)
        self.assertFalse(arrival.silent())

    def test_silent_in_a_line(self) -> None:
        """
        What it has begun to say is the beginning of its answer.
        """
        arrival = Arrival()
        arrival.feed(b"we")
        self.assertTrue(arrival.silent())
        self.assertEqual(arrival.feed(b"b\r\nhello"), Named("question", "web", consumed=5))

    def test_nothing_to_ask_with(self) -> None:
        """
        As long as nothing tells the protocol nobody can be asked; and some
        protocols have no words for it.
        """
        self.assertIsNone(Arrival().ask(Servers("web"), None))
        for name in ("sni", "socks5", "socks4", "postgres", "connect"):
            arrival = Arrival()
            arrival.feed(OPENINGS[name])
            self.assertIsNone(arrival.ask(Servers("web"), None), name)
            self.assertIsInstance(arrival.outcome, Named)

    def test_listened_to_again(self) -> None:
        """
        A client that was asked and can answer is listened to; what it says
        next may be here already.
        """
        arrival = Arrival()
        arrival.feed(b"nowhere\nweb\nhello")
        asked = arrival.ask(Servers("web"), FAILING)
        assert isinstance(asked, Asked)
        self.assertIsNone(arrival.outcome)
        self.assertEqual(arrival.feed(b""), Named("question", "web", consumed=12))
        self.assertEqual(arrival.held, b"nowhere\nweb\nhello")

    def test_asked_for_the_last_time(self) -> None:
        """
        One whose channel ends behind the question is not listened to.
        """
        arrival = Arrival()
        outcome = arrival.feed(b"GET / HTTP/1.0\r\n\r\n")
        asked = arrival.ask(Servers("web"), None)
        assert isinstance(asked, Asked)
        self.assertTrue(asked.over)
        held = arrival.held
        self.assertIs(arrival.feed(b"GET / HTTP/1.0\r\nHost: web\r\n\r\n"), outcome)
        self.assertEqual(arrival.held, held)


class ArrivalTests(SynchronousTestCase):
    """
    One client from its first byte on.
    """

    def test_named(self) -> None:
        """
        The client names its server, and the bytes are held as they came.
        """
        arrival = Arrival()
        self.assertEqual(arrival.feed(REQUEST), Named("http", "web.example", None))
        self.assertEqual(arrival.held, REQUEST)

    def test_way(self) -> None:
        """
        The way is known as soon as the first bytes tell it.
        """
        arrival = Arrival()
        arrival.feed(b"GE")
        self.assertIsNone(arrival.way)
        arrival.feed(b"T ")
        self.assertIsInstance(arrival.way, HttpArrival)

    def test_each_its_own(self) -> None:
        """
        Two clients do not share what they said.
        """
        first, second = Arrival(), Arrival()
        first.feed(b"HEAD / HTTP/1.1\r\n")
        second.feed(b"GET / HTTP/1.1\r\n")
        self.assertNotEqual(first.answer(FAILING), second.answer(FAILING))

    def test_take(self) -> None:
        """
        What is held is handed over once, and can still be answered.
        """
        arrival = Arrival()
        arrival.feed(REQUEST)
        self.assertEqual(arrival.take(), REQUEST)
        self.assertEqual(arrival.held, b"")
        self.assertTrue(arrival.answer(FAILING).startswith(b"HTTP/1.1 503 "))

    def test_after_the_outcome(self) -> None:
        """
        What comes after the outcome changes nothing and is not held.
        """
        arrival = Arrival()
        outcome = arrival.feed(REQUEST)
        self.assertIs(arrival.feed(b"more"), outcome)
        self.assertEqual(arrival.held, REQUEST)

    def test_unknown(self) -> None:
        """
        A client of an unknown protocol names nobody, and is told in a line of
        text what is spoken here.
        """
        arrival = Arrival()
        self.assertEqual(arrival.feed(b"\x80\x03\x01"), Named("unknown", None))
        asked = arrival.ask(Servers("web"), None)
        assert isinstance(asked, Asked)
        self.assertTrue(asked.over)
        self.assertTrue(asked.data.startswith(b"relaytunnel: unsupported: "))
        self.assertTrue(asked.data.endswith(b"\r\n"))

    def test_answer_without_a_way(self) -> None:
        """
        A client that said nothing yet is answered with a line of text.
        """
        self.assertTrue(Arrival().answer(FAILING).startswith(b"relaytunnel: agent-away: "))

    def test_answer_in_its_protocol(self) -> None:
        """
        A client that speaks HTTP is answered in HTTP.
        """
        arrival = Arrival()
        arrival.feed(b"GET ")
        self.assertTrue(arrival.answer(FAILING).startswith(b"HTTP/1.1 503 "))

    def test_timed_out_without_a_way(self) -> None:
        """
        A silent client is told in text that it was too slow.
        """
        self.assertTrue(Arrival().timed_out().startswith(b"relaytunnel: timeout: "))

    def test_timed_out_in_its_protocol(self) -> None:
        """
        A slow client that speaks HTTP gets a 408.
        """
        arrival = Arrival()
        arrival.feed(b"GET / HT")
        self.assertTrue(arrival.timed_out().startswith(b"HTTP/1.1 408 "))

    def test_limits(self) -> None:
        """
        The limits that are given are those of the way.
        """
        outcome = Arrival(Limits(max_head=20)).feed(REQUEST)
        assert isinstance(outcome, Malformed)
        self.assertTrue(outcome.answer.startswith(b"HTTP/1.1 431 "))

    def endless(self, start: bytes, chunk: bytes) -> None:
        """
        Feed 1 MiB that never ends a head; assert that it is cut off in time.
        """
        arrival = Arrival()
        arrival.feed(start)
        fed = len(start)
        while fed < 2**20:
            fed += len(chunk)
            outcome = arrival.feed(chunk)
            self.assertLessEqual(len(arrival.held), 16384 + len(chunk))
            if fed >= 16384:
                self.assertIsInstance(outcome, Malformed)
                self.assertEqual(arrival.held, b"")

    def test_endless_line(self) -> None:
        """
        A line without an end is cut off at 16 KiB and a chunk.
        """
        self.endless(b"GET /", b"a" * 1000)

    def test_endless_headers(self) -> None:
        """
        Headers without an end are cut off at 16 KiB and a chunk.
        """
        self.endless(b"GET / HTTP/1.1\r\n", b"X: " + b"a" * 995 + b"\r\n")

    def test_endless_token(self) -> None:
        """
        A method without an end is cut off.
        """
        self.endless(b"", b"a" * 1000)

    def test_all_at_once(self) -> None:
        """
        Too much at once is not held either.
        """
        arrival = Arrival()
        self.assertIsInstance(arrival.feed(b"GET /" + b"a" * 2**20), Malformed)
        self.assertEqual(arrival.held, b"")

    @given(anything)
    @quickly
    def test_never_raises(self, data: bytes) -> None:
        """
        Whatever a client sends, there is an outcome, an answer and no error.
        """
        arrival = Arrival()
        outcome = arrival.feed(data)
        self.assertIsInstance(outcome, (Named, Malformed, type(None)))
        self.assertTrue(arrival.answer(FAILING))
        self.assertTrue(arrival.timed_out())

    @given(anything, st.lists(st.integers(0, 200), max_size=10))
    @example(b"\r\nGET / HTTP/1.1\r\nHost: web\r\n\r\n", list(range(40)))
    @quickly
    def test_any_chunking(self, data: bytes, cuts: list[int]) -> None:
        """
        However the bytes are cut, the same is found, and held.
        """
        whole = Arrival(Limits(max_head=64, max_headers=3))
        whole.feed(data)
        edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
        arrival = Arrival(Limits(max_head=64, max_headers=3))
        for start, end in pairwise(edges):
            arrival.feed(data[start:end])
        self.assertEqual(arrival.outcome, whole.outcome)
        self.assertEqual(arrival.answer(FAILING), whole.answer(FAILING))
        self.assertTrue(whole.held.startswith(arrival.held))

    @given(
        method=token.filter(lambda text: text != "CONNECT"),
        host=name,
        port=st.none() | st.integers(1, 65535),
        before=st.lists(field, max_size=10),
        after=st.lists(field, max_size=10),
        body=st.binary(max_size=50),
    )
    @quickly
    def test_valid(
        self,
        method: str,
        host: str,
        port: int | None,
        before: list[tuple[str, str]],
        after: list[tuple[str, str]],
        body: bytes,
    ) -> None:
        """
        Every valid head names its server, and every byte of it is held.
        """
        authority = host if port is None else f"{host}:{port}"
        fields = [*before, ("Host", authority), *after]
        lines = [f"{method} /path HTTP/1.1", *(f"{key}: {text}" for key, text in fields), "", ""]
        data = "\r\n".join(lines).encode("ascii") + body
        arrival = Arrival()
        self.assertEqual(arrival.feed(data), Named("http", host.lower(), port))
        self.assertEqual(arrival.take(), data)
