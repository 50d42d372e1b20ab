"""
What the head of an answer says of its body and its connection.
"""

from __future__ import annotations

import time

from hypothesis import given, settings
from hypothesis import strategies as st

from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.arrival.answer import CHUNKED, ENDLESS, Answer, AnswerReader, read_answer

OK = b"HTTP/1.1 200 OK"


def head(*lines: bytes) -> bytes:
    return b"\r\n".join((*lines, b"", b""))


class AnswerTests(SynchronousTestCase):
    def test_lengths(self) -> None:
        """
        The length of the body is what every client finds.
        """
        for lines, length in (
            ((OK, b"Content-Length: 5"), 5),
            ((OK, b"content-LENGTH:\t5 "), 5),
            ((OK, b"Content-Length: 5", b"Content-Length: 5"), 5),
            ((OK, b"Content-Length: 0"), 0),
            ((OK, b"X-Content-Length: 7", b"Content-Length: 5"), 5),
            ((OK, b"Transfer-Encoding: chunked"), CHUNKED),
            ((OK, b"Transfer-Encoding: CHUNKED"), CHUNKED),
            ((b"HTTP/1.1 204 No Content",), 0),
            ((b"HTTP/1.1 304 Not Modified", b"Content-Length: 5"), 0),
            ((b"HTTP/1.1 200",), ENDLESS),
        ):
            self.assertEqual(read_answer(head(*lines), False).length, length, lines)

    def test_head(self) -> None:
        """
        The answer to HEAD has no body, whatever it says.
        """
        for field in (b"Content-Length: 5", b"Transfer-Encoding: chunked", b"X: y"):
            self.assertEqual(read_answer(head(OK, field), True), Answer(200, 0, False))

    def test_last(self) -> None:
        """
        The last answer says so, or is one of HTTP/1.0.
        """
        length = b"Content-Length: 5"
        for lines, last in (
            ((OK, length), False),
            ((OK, length, b"Connection: close"), True),
            ((OK, length, b"Connection: Keep-Alive, CLOSE"), True),
            ((OK, length, b"Connection: x", b"Connection: close"), True),
            ((OK, length, b"Connection: not-close"), False),
            ((b"HTTP/1.0 200 OK", length), True),
            ((b"HTTP/1.0 200 OK", length, b"Connection: keep-alive"), False),
        ):
            self.assertEqual(read_answer(head(*lines), False), Answer(200, 5, last), lines)

    def test_doubt(self) -> None:
        """
        An answer that two programs could cut differently ends with the
        connection.
        """
        for lines in (
            (OK, b"Content-Length: 5", b"Content-Length: 6"),
            (OK, b"Content-Length: 5, 5"),
            (OK, b"Content-Length: +5"),
            (OK, b"Content-Length: " + b"9" * 30),
            (OK, b"Content-Length: 5", b"Transfer-Encoding: chunked"),
            (OK, b"Transfer-Encoding: gzip, chunked"),
            (OK, b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
            (b"HTTP/1.0 200 OK", b"Transfer-Encoding: chunked"),
            (OK, b"Content-Length : 5"),
            (OK, b"X: y", b" folded: z", b"Content-Length: 5"),
            (OK, b"X: y\nContent-Length: 6", b"Content-Length: 5"),
            (OK, b"X: y\rContent-Length: 6", b"Content-Length: 5"),
            (b"HTTP/2 200", b"Content-Length: 5"),
            (b"ICY 200 OK", b"Content-Length: 5"),
            (b"HTTP/1.1 2000 OK", b"Content-Length: 5"),
            (b"SSH-2.0-x",),
        ):
            answer = read_answer(head(*lines), False)
            self.assertEqual((answer.length, answer.last), (ENDLESS, True), lines)
            self.assertTrue(answer.doubtful, lines)

    def test_no_doubt(self) -> None:
        """
        One that says nothing of its length ends with the connection for
        everybody.
        """
        for lines in ((OK,), (OK, b"Connection: close"), (b"HTTP/1.0 200 OK", b"X: y")):
            self.assertFalse(read_answer(head(*lines), False).doubtful, lines)

    def test_long(self) -> None:
        """
        White space in a value costs no more than other bytes do.
        """
        spaces = b" " * 60_000
        began = time.process_time()
        for value in (b"a" + spaces + b"b", spaces + b"b", b"a" + spaces):
            read_answer(head(OK, b"Connection: " + value), False)
        self.assertLess(time.process_time() - began, 1)

    def test_interim(self) -> None:
        """
        What comes before the final answer is told from it.
        """
        for status, interim in ((100, True), (103, True), (101, True), (200, False), (0, False)):
            self.assertIs(Answer(status, 0, False).interim, interim)

    @settings(deadline=None, max_examples=300)
    @given(
        st.lists(
            st.sampled_from(
                [
                    *(
                        b"Date: Tue, 01 Dec 2026 00:00:00 GMT",
                        b"Date: Wed, 02 Dec 2026 01:02:03 GMT",
                    ),
                    *(b"Content-Length: 5", b"Content-Length: 6", b"Connection: close", b"X: y"),
                    *(b"Date: Tue, 01 Dec 2026 00:00:00 CET", b"Date: x\r\nContent-Length: 7"),
                ]
            ),
            max_size=4,
        ),
        st.booleans(),
    )
    def test_remembered(self, lines: list[bytes], head_only: bool) -> None:
        """
        A reader that remembers the last head finds what one does that reads
        each.
        """
        reader = _READER
        whole = head(OK, *lines)
        self.assertEqual(reader.read(whole, head_only), read_answer(whole, head_only))
        self.assertEqual(reader.read(whole, head_only), read_answer(whole, head_only))


_READER = AnswerReader()
