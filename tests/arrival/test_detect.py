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
    Arrival,
    HttpArrival,
    Limits,
    Malformed,
    Named,
    Opening,
    UnknownArrival,
    detect,
)
from relaytunnel.errors import Code, Failing

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
        A client of an unknown protocol gets a line of text.
        """
        outcome = Arrival().feed(b"SSH-2.0-OpenSSH_9.6\r\n")
        assert isinstance(outcome, Malformed)
        self.assertTrue(outcome.answer.startswith(b"relaytunnel: unsupported: "))
        self.assertTrue(outcome.answer.endswith(b"\r\n"))

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
