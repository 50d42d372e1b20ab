"""
Requests as they go on.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.arrival import HttpArrival, Malformed, Named
from relaytunnel.arrival.body import ChunkedBody, CountedBody
from relaytunnel.arrival.request import Request


def request(*lines: bytes) -> Request:
    """
    Read a request that is well formed.
    """
    outcome = HttpArrival().feed(b"\r\n".join((*lines, b"", b"")))
    assert isinstance(outcome, Named), outcome
    assert outcome.request is not None
    return outcome.request


class RequestTests(SynchronousTestCase):
    def test_unchanged(self) -> None:
        """
        What a client sends to a server goes on as it was sent, to the byte.
        """
        for lines in (
            (b"GET /a?b HTTP/1.1", b"hOST:  web ", b"Connection: keep-alive, TE", b"TE: trailers"),
            (b"GET / HTTP/1.0", b"Host: web", b"Keep-Alive: timeout=5"),
            (b"GET / HTTP/1.1", b"Host: web", b"Upgrade: websocket", b"Connection: upgrade"),
        ):
            found = request(*lines)
            self.assertIs(found.forwarded, found.head)

    def test_to_proxy(self) -> None:
        """
        What it sends to a proxy becomes what a server expects, on a connection
        that is kept if the client keeps it.
        """
        found = request(
            *(b"GET http://web:80/a HTTP/1.1", b"Host: web:80", b"Accept: */*"),
            *(b"Proxy-Connection: Keep-Alive", b"Proxy-Authorization: Basic YTpi"),
        )
        self.assertEqual(
            found.forwarded, b"GET /a HTTP/1.1\r\nHost: web:80\r\nAccept: */*\r\n\r\n"
        )
        for option in (b"close", b"keep-alive"):
            found = request(
                b"GET http://web/ HTTP/1.1", b"Host: web", b"Connection: x, " + option, b"X: y"
            )
            self.assertEqual(
                found.forwarded,
                b"GET / HTTP/1.1\r\nHost: web\r\nX: y\r\nConnection: %s\r\n\r\n" % option,
            )

    def test_offers(self) -> None:
        """
        Offers of another HTTP and of TLS are taken out, other ones pass.
        """
        for offered, left in (
            (b"h2c", b""),
            (b"H2C", b""),
            (b"h2", b""),
            (b"HTTP/2.0", b""),
            (b"TLS/1.0", b""),
            (b"tls", b""),
            (b"h2c, websocket", b"websocket"),
            (b"TLS/1.2,chat/1, h2c", b"chat/1"),
        ):
            found = request(
                *(b"GET / HTTP/1.1", b"Host: web", b"Connection: Upgrade, HTTP2-Settings, TE"),
                *(b"Upgrade: " + offered, b"HTTP2-Settings: AAMAAABk"),
            )
            options = b"Connection: te" + (b", Upgrade" if left else b"")
            upgrade = b"Upgrade: " + left + b"\r\n" if left else b""
            self.assertEqual(
                found.forwarded,
                b"GET / HTTP/1.1\r\nHost: web\r\n" + upgrade + options + b"\r\n\r\n",
            )
            self.assertEqual(found.switches, bool(left))

    def test_settings_alone(self) -> None:
        """
        So are the settings of an HTTP/2 that is not offered.
        """
        found = request(b"GET / HTTP/1.1", b"Host: web", b"HTTP2-Settings: AAMAAABk")
        self.assertEqual(found.forwarded, b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")

    def test_body(self) -> None:
        """
        The head says how long the body is.
        """
        post = (b"POST / HTTP/1.1", b"Host: web")
        self.assertIsNone(request(*post).body())
        self.assertIsNone(request(*post, b"Content-Length: 0").body())
        self.assertIsInstance(request(*post, b"Content-Length: 5").body(), CountedBody)
        self.assertIsInstance(request(*post, b"Transfer-Encoding: Chunked").body(), ChunkedBody)

    def test_faults(self) -> None:
        """
        A head of which servers could find different ends is refused.
        """
        for lines in (
            (b"POST / HTTP/1.1", b"Transfer-Encoding: gzip, chunked"),
            (b"POST / HTTP/1.1", b"Transfer-Encoding: chunked, chunked"),
            (b"POST / HTTP/1.1", b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
            (b"POST / HTTP/1.1", b"Transfer-Encoding: identity"),
            (b"POST / HTTP/1.1", b"Transfer-Encoding: xchunked"),
            (b"POST / HTTP/1.1", b"Transfer-Encoding:"),
            (b"POST / HTTP/1.0", b"Transfer-Encoding: chunked"),
            (b"POST / HTTP/1.1", b"Content-Length: 1", b"Transfer-Encoding: chunked"),
            (b"POST / HTTP/1.1", b"Content-Length: " + b"9" * 19),
            (b"POST / HTTP/1.1", b"Content-Length: " + b"9" * 10_000),
        ):
            outcome = HttpArrival().feed(b"\r\n".join((*lines, b"Host: web", b"", b"")))
            assert isinstance(outcome, Malformed), lines
            self.assertTrue(outcome.answer.startswith(b"HTTP/1.1 400 "), outcome)
