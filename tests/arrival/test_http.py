"""
Tests for L{relaytunnel.arrival.http}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.arrival import HTTP, HttpArrival, Limits, Malformed, Named
from relaytunnel.errors import Code, Failing

REQUEST = b"GET / HTTP/1.1\r\nHost: web.example:8000\r\nAccept: application/json\r\n\r\n"


class FitTests(SynchronousTestCase):
    """
    How HTTP is recognised.
    """

    def test_request(self) -> None:
        """
        A token and a space begin a request.
        """
        self.assertIs(HTTP.fits(b"GET /"), True)

    def test_too_little(self) -> None:
        """
        As long as a method may go on, nobody can tell.
        """
        for prefix in (b"", b"\r", b"\r\n", b"\r\nG", b"GE", b"GET", b"M" * 32):
            self.assertIs(HTTP.fits(prefix), None)

    def test_empty_line(self) -> None:
        """
        One empty line may stand before the request.
        """
        self.assertIs(HTTP.fits(b"\r\nGET "), True)

    def test_two_empty_lines(self) -> None:
        """
        Two empty lines may not.
        """
        self.assertIs(HTTP.fits(b"\r\n\r\nGET "), False)

    def test_no_token(self) -> None:
        """
        What cannot be a method is told from the first byte that is wrong.
        """
        for prefix in (b"\x16", b"\x05\x01\x00", b" GET", b"GET\r\n", b"\n", b"\rG", b"GE\xff"):
            self.assertIs(HTTP.fits(prefix), False)

    def test_long_method(self) -> None:
        """
        A method has at most 32 characters.
        """
        self.assertIs(HTTP.fits(b"M" * 32 + b" "), True)
        self.assertIs(HTTP.fits(b"M" * 33), False)


class FeedTests(SynchronousTestCase):
    """
    How a head is cut out of the bytes.
    """

    def refused(self, head: bytes, status: int, limits: Limits | None = None) -> None:
        """
        Assert that a head is answered with a status.
        """
        outcome = HttpArrival(limits or Limits()).feed(head)
        assert isinstance(outcome, Malformed), outcome
        self.assertTrue(outcome.answer.startswith(b"HTTP/1.1 %d " % status), outcome)

    def test_named(self) -> None:
        """
        A whole head names its server.
        """
        self.assertEqual(HttpArrival().feed(REQUEST), Named("http", "web.example", 8000))

    def test_body_behind(self) -> None:
        """
        What comes behind the head is not looked at.
        """
        outcome = HttpArrival().feed(REQUEST + b"\0\nno: head\r\nHost: evil\r\n\r\n")
        self.assertEqual(outcome, Named("http", "web.example", 8000))

    def test_nobody(self) -> None:
        """
        HTTP/1.0 without a Host names nobody.
        """
        self.assertEqual(HttpArrival().feed(b"GET / HTTP/1.0\r\n\r\n"), Named("http", None, None))

    def test_too_little(self) -> None:
        """
        Before the empty line nothing is found.
        """
        self.assertIsNone(HttpArrival().feed(REQUEST[:-1]))

    def test_stays(self) -> None:
        """
        What was found stays, whatever comes after it.
        """
        way = HttpArrival()
        self.assertIs(way.feed(REQUEST), way.feed(REQUEST + b"\0" * 20000))

    def test_empty_line_first(self) -> None:
        """
        One empty line before the request is let pass.
        """
        self.assertEqual(HttpArrival().feed(b"\r\n" + REQUEST), Named("http", "web.example", 8000))

    def test_two_empty_lines_first(self) -> None:
        """
        Two empty lines before the request are refused.
        """
        self.refused(b"\r\n\r\n" + REQUEST, 400)

    def test_bare_lf(self) -> None:
        """
        A line that ends in LF alone is refused, and at once.
        """
        self.refused(b"GET / HTTP/1.1\n", 400)
        self.refused(b"GET / HTTP/1.1\r\nHost: web\n", 400)

    def test_bare_lf_at_the_end(self) -> None:
        """
        An empty line of LF alone does not end a head.
        """
        self.refused(b"GET / HTTP/1.1\r\nHost: web\r\n\n", 400)

    def test_bare_lf_first(self) -> None:
        """
        A head does not begin with LF.
        """
        self.refused(b"\n" + REQUEST, 400)

    def test_bare_cr(self) -> None:
        """
        A CR in the middle of a line is refused.
        """
        self.refused(b"GET / HTTP/1.1\r\nX: a\rHost: web\r\n", 400)

    def test_double_cr(self) -> None:
        """
        A second CR before the LF is one in the middle of a line.
        """
        self.refused(b"GET / HTTP/1.1\r\r\n", 400)

    def test_head_that_fits(self) -> None:
        """
        A head may be as long as the bound.
        """
        self.assertIsInstance(HttpArrival(Limits(max_head=len(REQUEST))).feed(REQUEST), Named)

    def test_head_too_long(self) -> None:
        """
        A head that is longer by a byte is refused, with the status for it.
        """
        self.refused(REQUEST, 431, Limits(max_head=len(REQUEST) - 1))

    def test_end_out_of_reach(self) -> None:
        """
        At the bound nothing is waited for: the end cannot come in time.
        """
        self.refused(b"GET /" + b"a" * 16379, 431)

    def test_below_the_bound(self) -> None:
        """
        A byte below the bound there is still hope.
        """
        self.assertIsNone(HttpArrival().feed(b"GET /" + b"a" * 16378))

    def test_hundred_headers(self) -> None:
        """
        A hundred headers are let pass.
        """
        head = b"GET / HTTP/1.1\r\nHost: web\r\n" + b"X: a\r\n" * 99 + b"\r\n"
        self.assertEqual(HttpArrival().feed(head), Named("http", "web", None))

    def test_more_than_a_hundred_headers(self) -> None:
        """
        One more is refused, with the status for it.
        """
        self.refused(b"GET / HTTP/1.1\r\nHost: web\r\n" + b"X: a\r\n" * 100, 431)

    def test_http2(self) -> None:
        """
        A client that begins with HTTP/2 gets a 505 in HTTP/1.
        """
        self.refused(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505)

    def test_connect(self) -> None:
        """
        CONNECT is for the relay alone, and is answered when the server stands.
        """
        head = b"CONNECT web:22 HTTP/1.1\r\nHost: web:22\r\n\r\n"
        named = HttpArrival().feed(head + b"SSH-2.0-client\r\n")
        assert isinstance(named, Named)
        self.assertEqual((named.way, named.host, named.port), ("connect", "web", 22))
        self.assertEqual((named.consumed, named.instead), (len(head), b""))
        self.assertEqual(named.welcome, b"HTTP/1.1 200 Connection established\r\n\r\n")

    def test_first_fault_counts(self) -> None:
        """
        Of several faults the one that came first is told.
        """
        self.refused(b"GET / HTTP/3.0\r\nbad\n" + b"a" * 20000, 505)


class AnswerTests(SynchronousTestCase):
    """
    How a client is answered.
    """

    failing = Failing(Code.NO_SUCH_SERVER, "nobody publishes web")

    def test_fits_the_accept(self) -> None:
        """
        The answer has the form that the request asked for.
        """
        way = HttpArrival()
        way.feed(REQUEST)
        self.assertIn(b"Content-Type: application/json\r\n", way.answer(self.failing))

    def test_several_accepts(self) -> None:
        """
        Several Accept lines count as one.
        """
        way = HttpArrival()
        way.feed(b"GET / HTTP/1.0\r\nAccept: image/png\r\nAccept: text/html\r\n\r\n")
        self.assertIn(b"Content-Type: text/html", way.answer(self.failing))

    def test_fits_head(self) -> None:
        """
        The answer to HEAD has no body.
        """
        way = HttpArrival()
        way.feed(REQUEST.replace(b"GET", b"HEAD", 1))
        self.assertTrue(way.answer(self.failing).endswith(b"\r\n\r\n"))

    def test_before_the_head(self) -> None:
        """
        There is an answer even before the first line is complete.
        """
        way = HttpArrival()
        way.feed(b"GET /")
        self.assertTrue(way.answer(self.failing).startswith(b"HTTP/1.1 404 "))

    def test_malformed_fits_too(self) -> None:
        """
        The answer to a malformed request fits what of it was understood.
        """
        outcome = HttpArrival().feed(b"HEAD / HTTP/1.1\r\nHost: a b\r\n\r\n")
        assert isinstance(outcome, Malformed)
        self.assertTrue(outcome.answer.endswith(b"\r\n\r\n"))

    def test_malformed_code(self) -> None:
        """
        The answer to a malformed request has a code, as every answer has.
        """
        outcome = HttpArrival().feed(b"GET /\r\n")
        assert isinstance(outcome, Malformed)
        self.assertIn(b"X-Relaytunnel-Code: protocol-error\r\n", outcome.answer)

    def test_timed_out(self) -> None:
        """
        A client that is too slow gets a 408, not the 504 of a slow server.
        """
        way = HttpArrival()
        way.feed(b"GET / HTTP/1.1\r\n")
        self.assertTrue(way.timed_out().startswith(b"HTTP/1.1 408 "))
