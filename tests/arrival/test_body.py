"""
Where bodies end.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.arrival.body import Body, ChunkedBody, CountedBody, EndlessBody
from relaytunnel.arrival.head import Fault

quickly = settings(deadline=None, max_examples=100)

CHUNKS = b'5\r\nhello\r\n6;a="b"\r\n world\r\n0\r\nTrailer: x\r\n\r\n'


class BodyCase(SynchronousTestCase):
    def measured(self, body: Body, data: bytes, piece: int = 0) -> int:
        """
        @param piece: bytes that are shown at a time; 0 for all.
        @return: how many bytes were the body's.
        """
        at = 0
        while at < len(data) and not body.done:
            shown = data[at : at + piece] if piece else data[at:]
            passed = body.feed(shown, 0)
            at += passed
            if passed < len(shown):
                self.assertTrue(body.done)
        return at


class CountedTests(BodyCase):
    def test_length(self) -> None:
        """
        It ends after so many bytes, however they come.
        """
        for piece in (0, 1, 3, 10):
            body = CountedBody(10)
            self.assertEqual(self.measured(body, b"x" * 15, piece), 10)
            self.assertTrue(body.done)

    def test_not_yet(self) -> None:
        """
        It has not ended before.
        """
        body = CountedBody(10)
        self.assertEqual(self.measured(body, b"x" * 9), 9)
        self.assertFalse(body.done)

    def test_in_the_midst(self) -> None:
        """
        It may begin behind something else.
        """
        self.assertEqual(CountedBody(3).feed(b"headabcnext", 4), 7)

    def test_endless(self) -> None:
        """
        One that ends with the connection never ends here.
        """
        body = EndlessBody()
        self.assertEqual(self.measured(body, b"x" * 100), 100)
        self.assertFalse(body.done)


class ChunkedTests(BodyCase):
    def fault(self, data: bytes, padded: bool = False) -> str:
        """
        @return: what is wrong, which is the same however the bytes come.
        """
        reasons = set()
        for piece in (0, 1, 2, 5):
            with self.assertRaises(Fault) as caught:
                self.measured(ChunkedBody(padded), data, piece)
            reasons.add(str(caught.exception))
        (reason,) = reasons
        return reason

    def test_chunks(self) -> None:
        """
        It ends behind the empty line of its trailers.
        """
        for piece in range(len(CHUNKS) + 2):
            body = ChunkedBody()
            self.assertEqual(self.measured(body, CHUNKS + b"GET /", piece), len(CHUNKS))
            self.assertTrue(body.done)

    @quickly
    @given(st.lists(st.binary(min_size=1, max_size=40), max_size=6), st.integers(1, 50))
    def test_any(self, chunks: list[bytes], piece: int) -> None:
        """
        So it does whatever is in it.
        """
        data = b"".join(b"%X\r\n%s\r\n" % (len(each), each) for each in chunks) + b"0\r\n\r\n"
        body = ChunkedBody()
        self.assertEqual(self.measured(body, data + b"0\r\n\r\n", piece), len(data))

    def test_faults(self) -> None:
        """
        Whatever another program could read differently is refused.
        """
        for data, reason in (
            (b"x\r\n", "hexadecimal"),
            (b"\r\n", "hexadecimal"),
            (b"-1\r\n", "hexadecimal"),
            (b"0x5\r\n", "hexadecimal"),
            (b"+5\r\n", "hexadecimal"),
            (b"5 \r\n", "hexadecimal"),
            (b" 5\r\n", "hexadecimal"),
            (b"1_0\r\n", "hexadecimal"),
            (b"\xd9\xa1\r\n", "hexadecimal"),
            (b"1" * 16 + b"\r\n", "hexadecimal"),
            (b"5\n", "CRLF"),
            (b"5;a\rb\r\n", "CRLF"),
            (b"1\r\nabc\r\n", "longer than its size"),
            (b"1\r\na\n", "CRLF"),
            (b"0\r\nTrailer: x\n\r\n", "CRLF"),
            (b"5;" + b"x" * 5000, "longer than 4096"),
            (b"5;" + b"x" * 4096 + b"\r\n", "longer than 4096"),
            (b"0\r\n" + b"a: b\r\n" * 4000, "trailer section"),
        ):
            self.assertIn(reason, self.fault(data), data[:40])

    def test_padded(self) -> None:
        """
        A server may put white space behind the size, and nothing else.
        """
        data = b"5  \r\nhello\r\n0\t;x\r\n\r\n"
        self.assertEqual(self.measured(ChunkedBody(padded=True), data), len(data))
        self.fault(b"5 x\r\n", padded=True)
