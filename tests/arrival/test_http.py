"""
Tests for L{relaytunnel.arrival.http}.
"""

from __future__ import annotations

from base64 import b64encode
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.arrival import HTTP, Asked, HttpArrival, Limits, Login, Malformed, Named
from relaytunnel.errors import Code, Failing
from tests.arrival.directory import Servers

quickly = settings(deadline=None, max_examples=100)

BASIC = b"Basic " + b64encode(b"alice:pass")
OTHER = b"Basic " + b64encode(b"bob:word")
ALICE = Login("alice", "pass")

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


def named(head: bytes) -> Named:
    """
    Read a head that names a server, or nobody.
    """
    outcome = HttpArrival().feed(head)
    assert isinstance(outcome, Named), outcome
    return outcome


class ConnectTests(SynchronousTestCase):
    """
    Tunnels.
    """

    def test_port(self) -> None:
        """
        The name and the port are those of the target, with or without a Host.
        """
        for head in (
            b"CONNECT Web.Example:443 HTTP/1.1\r\n\r\n",
            b"CONNECT web.example:443 HTTP/1.0\r\n\r\n",
            b"CONNECT web.example:443 HTTP/1.1\r\nHost: web.example:443\r\n\r\n",
        ):
            found = named(head)
            self.assertEqual((found.host, found.port), ("web.example", 443))

    def test_nothing_goes_on(self) -> None:
        """
        The whole head is the relay's, an empty line before it as well; the
        first byte behind it is the server's.
        """
        head = b"\r\nCONNECT web:22 HTTP/1.1\r\nX: y\r\n\r\n"
        found = named(head + b"SSH-2.0")
        self.assertEqual((found.consumed, found.instead), (len(head), b""))

    def test_way(self) -> None:
        """
        It is a way of its own as soon as its first line is read.
        """
        way = HttpArrival()
        way.feed(b"CONNECT web:22")
        self.assertEqual(way.name, "http")
        way.feed(b"CONNECT web:22 HTTP/1.1\r\n")
        self.assertEqual(way.name, "connect")

    def test_credentials(self) -> None:
        """
        Its credentials are those for a proxy.
        """
        head = b"CONNECT web:22 HTTP/1.1\r\n%b\r\n"
        self.assertEqual(named(head % (b"Proxy-Authorization: %b\r\n" % BASIC)).login, ALICE)
        self.assertIsNone(named(head % (b"Authorization: %b\r\n" % BASIC)).login)
        both = b"Authorization: %b\r\nProxy-Authorization: %b\r\n" % (OTHER, BASIC)
        self.assertEqual(named(head % both).login, ALICE)

    def test_cookie(self) -> None:
        """
        What a browser has chosen is of no meaning for it.
        """
        found = named(b"CONNECT web:22 HTTP/1.1\r\nCookie: relaytunnel=shop\r\n\r\n")
        self.assertIsNone(found.remembered)

    def test_refused(self) -> None:
        """
        Other targets are refused.
        """
        for target in (b"web", b"/", b"http://web/", b"web:", b"web:0", b"a@web:22", b":22", b"*"):
            outcome = HttpArrival().feed(b"CONNECT " + target + b" HTTP/1.1\r\n\r\n")
            assert isinstance(outcome, Malformed), target
            self.assertTrue(outcome.answer.startswith(b"HTTP/1.1 400 "))


class AbsoluteTests(SynchronousTestCase):
    """
    Requests for a proxy, and what becomes of them.
    """

    def becomes(self, head: bytes, instead: bytes) -> None:
        """
        Assert what goes on in place of a head.
        """
        found = named(head + b"body")
        self.assertEqual(found.instead, instead)
        self.assertEqual(found.consumed, len(head))
        self.assertEqual((found.way, found.welcome), ("http", b""))

    def test_target(self) -> None:
        """
        The target becomes what a server expects.
        """
        for target, path in (
            (b"http://web/a?b=c", b"/a?b=c"),
            (b"http://web", b"/"),
            (b"http://web?b", b"/?b"),
            (b"HTTP://WEB/A#part", b"/A"),
            (b"http://web:80//a", b"//a"),
        ):
            self.becomes(
                b"GET " + target + b" HTTP/1.1\r\nHost: web\r\n\r\n",
                b"GET " + path + b" HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n",
            )

    def test_options(self) -> None:
        """
        OPTIONS without a path is about the server as a whole.
        """
        self.becomes(
            b"OPTIONS http://web HTTP/1.1\r\nHost: web\r\n\r\n",
            b"OPTIONS * HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n",
        )

    def test_fields(self) -> None:
        """
        What is between client and proxy is dropped; all else goes on byte for
        byte and in its order.
        """
        self.becomes(
            b"\r\nPOST http://web/ HTTP/1.0\r\n"
            b"Proxy-Authorization: " + BASIC + b"\r\n"
            b"x-odd:  A  \r\n"
            b"HOST:web\r\n"
            b"Proxy-Connection: keep-alive\r\n"
            b"Authorization: " + OTHER + b"\r\n"
            b"connection: keep-alive\r\n"
            b"Keep-Alive: timeout=5\r\n"
            b"Cookie: relaytunnel=a; b=c\r\n"
            b"Content-Length: 4\r\n"
            b"X-Odd:b\r\n\r\n",
            b"POST / HTTP/1.0\r\n"
            b"x-odd:  A  \r\n"
            b"HOST:web\r\n"
            b"Authorization: " + OTHER + b"\r\n"
            b"Cookie: relaytunnel=a; b=c\r\n"
            b"Content-Length: 4\r\n"
            b"X-Odd:b\r\n"
            b"Connection: close\r\n\r\n",
        )

    def test_upgrade(self) -> None:
        """
        A request for a WebSocket is one; a server that refuses it is asked to
        close.
        """
        self.becomes(
            b"GET http://web/chat HTTP/1.1\r\nHost: web\r\nUpgrade: websocket\r\n"
            b"Connection: keep-alive, Upgrade\r\nProxy-Connection: keep-alive\r\n\r\n",
            b"GET /chat HTTP/1.1\r\nHost: web\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade, close\r\n\r\n",
        )

    def test_offer(self) -> None:
        """
        An offer of another protocol is not passed on: a server that does not
        take it up would keep the connection, and be sent what is for others.
        """
        self.becomes(
            b"GET http://web/ HTTP/1.1\r\nHost: web\r\nUpgrade: h2c\r\n"
            b"HTTP2-Settings: AAMAAABk\r\nConnection: Upgrade, HTTP2-Settings\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n",
        )

    def test_credentials(self) -> None:
        """
        Its credentials for the relay are those for a proxy; those for the
        server are the server's.
        """
        head = b"GET http://web/ HTTP/1.1\r\nHost: web\r\n%b\r\n"
        self.assertEqual(named(head % (b"Proxy-Authorization: %b\r\n" % BASIC)).login, ALICE)
        self.assertIsNone(named(head % (b"Authorization: %b\r\n" % BASIC)).login)

    def test_cookie(self) -> None:
        """
        What a browser has chosen is of no meaning: it names its server.
        """
        found = named(b"GET http://web/ HTTP/1.1\r\nHost: web\r\nCookie: relaytunnel=shop\r\n\r\n")
        self.assertEqual((found.host, found.remembered), ("web", None))

    def test_other_host(self) -> None:
        """
        A Host that is another one is refused, as nobody knows who is meant.
        """
        outcome = HttpArrival().feed(b"GET http://web/ HTTP/1.1\r\nHost: shop\r\n\r\n")
        self.assertIsInstance(outcome, Malformed)

    def test_answered_as_a_proxy(self) -> None:
        """
        A client that takes us for a proxy is answered by one.
        """
        way = HttpArrival()
        way.feed(b"GET http://web/ HTTP/1.1\r\nHost: web\r\n\r\n")
        answer = way.answer(Failing(Code.LOGIN_NEEDED, "web asks for a password"))
        self.assertTrue(answer.startswith(b"HTTP/1.1 407 "), answer)

    @given(
        st.lists(
            st.tuples(
                st.from_regex(r"X-[A-Za-z]{1,8}", fullmatch=True),
                st.text('abc :;,="\t', max_size=20),
            ),
            max_size=8,
        ),
        st.lists(
            st.sampled_from(
                ["Connection: close", "proxy-connection: x", "KEEP-ALIVE:", "Connection:X-a"]
            ),
            max_size=3,
        ),
        st.randoms(),
    )
    @quickly
    def test_everything_else(
        self, fields: list[tuple[str, str]], dropped: list[str], random: Random
    ) -> None:
        """
        Wherever the fields stand that are dropped, the others stay as they are.
        """
        kept = ["Host: web", *(f"{name}:{value}" for name, value in fields)]
        lines = list(kept)
        for line in dropped:
            lines.insert(random.randint(0, len(lines)), line)
        head = "\r\n".join(["GET http://web/ HTTP/1.1", *lines, "", ""]).encode()
        expected = "\r\n".join(["GET / HTTP/1.1", *kept, "Connection: close", "", ""]).encode()
        self.becomes(head, expected)


class OriginTests(SynchronousTestCase):
    """
    Requests for a server.
    """

    def test_untouched(self) -> None:
        """
        Every byte of it goes on, whatever stands in it.
        """
        found = named(
            b"GET / HTTP/1.1\r\nHost: web\r\nConnection: keep-alive\r\n"
            b"Proxy-Connection: keep-alive\r\n\r\n"
        )
        self.assertEqual((found.consumed, found.instead, found.welcome), (0, b"", b""))

    def test_credentials(self) -> None:
        """
        Its credentials are those for a server.
        """
        head = b"GET / HTTP/1.1\r\nHost: web\r\n%b\r\n"
        self.assertEqual(named(head % (b"Authorization: %b\r\n" % BASIC)).login, ALICE)
        self.assertIsNone(named(head % (b"Proxy-Authorization: %b\r\n" % BASIC)).login)
        self.assertIsNone(named(head % b"Authorization: Bearer x\r\n").login)

    def test_remembered(self) -> None:
        """
        What a browser has chosen is read from its cookies.
        """
        found = named(
            b"GET / HTTP/1.1\r\nHost: relay\r\nCookie: a=b\r\nCookie: relaytunnel=web\r\n\r\n"
        )
        self.assertEqual(found.remembered, "web")
        self.assertIsNone(named(REQUEST).remembered)

    def test_remembered_at_the_question(self) -> None:
        """
        Who asks for the question itself may choose another one.
        """
        found = named(
            b"GET /.relaytunnel/ HTTP/1.1\r\nHost: relay\r\nCookie: relaytunnel=web\r\n\r\n"
        )
        self.assertIsNone(found.remembered)


class AskTests(SynchronousTestCase):
    """
    How a client is asked that named nobody.
    """

    def asked(self, head: bytes, why: Failing | None = None) -> bytes | None:
        """
        Read a head and ask its client.
        """
        way = HttpArrival()
        named_nobody = way.feed(head)
        assert isinstance(named_nobody, Named)
        asked = way.ask(Servers("shop", "web"), why)
        if asked is None:
            return None
        assert isinstance(asked, Asked)
        self.assertTrue(asked.over)
        return asked.data

    def ask(self, head: bytes) -> bytes:
        """
        The same, where there is a question.
        """
        page = self.asked(head)
        assert page is not None
        return page

    def test_form(self) -> None:
        """
        The question has the form that the request asked for, and the path it
        was after.
        """
        page = self.ask(b"GET /a HTTP/1.1\r\nHost: relay\r\nAccept: text/html\r\n\r\n")
        self.assertTrue(page.startswith(b"HTTP/1.1 300 "), page)
        self.assertIn(b'name="to" value="/a"', page)

    def test_head(self) -> None:
        """
        The question to HEAD has no body.
        """
        page = self.ask(b"HEAD / HTTP/1.1\r\nHost: relay\r\nAccept: text/html\r\n\r\n")
        self.assertTrue(page.endswith(b"\r\n\r\n"))
        self.assertEqual(page.count(b"\r\n\r\n"), 1)

    def test_answer(self) -> None:
        """
        An answer is taken.
        """
        head = b"%b /.relaytunnel/?server=web&to=/a HTTP/1.1\r\nHost: relay:8000\r\n%b\r\n"
        for fields in (b"Origin: http://relay:8000\r\n", b"Sec-Fetch-Site: same-origin\r\n"):
            page = self.ask(head % (b"POST", fields + b"Content-Length: 0\r\n"))
            self.assertTrue(page.startswith(b"HTTP/1.1 303 "), page)
            self.assertIn(b"\r\nLocation: /a\r\n", page)

    def test_no_answer(self) -> None:
        """
        One that this page has not sent is none, nor is one with a body, or one
        that is no POST.
        """
        head = b"%b /.relaytunnel/?server=web&to=/a HTTP/1.1\r\nHost: relay:8000\r\n%b\r\n"
        own = b"Origin: http://relay:8000\r\n"
        for method, fields in (
            (b"GET", own),
            (b"PUT", own),
            (b"POST", b""),
            (b"POST", b"Origin: http://evil.relay:8000\r\n"),
            (b"POST", own + b"Origin: http://evil.example\r\n"),
            (b"POST", own + b"Sec-Fetch-Site: same-site\r\n"),
            (b"POST", own + b"Content-Length: 1\r\n"),
            (b"POST", own + b"Transfer-Encoding: chunked\r\n"),
        ):
            page = self.ask(head % (method, fields))
            self.assertRegex(page, b"^HTTP/1.1 (200|403) ")
            self.assertNotIn(b"Set-Cookie", page)

    def test_service_worker(self) -> None:
        """
        A request for a service worker's script is known, and a refusal does
        not forget the choice.
        """
        head = b"GET /sw.js HTTP/1.1\r\nHost: relay\r\nCookie: relaytunnel=web\r\n%b\r\n"
        self.assertFalse(named(head % b"").service_worker)
        way = HttpArrival()
        found = way.feed(head % b"Service-Worker: script\r\n")
        assert isinstance(found, Named)
        self.assertTrue(found.service_worker)
        refused = way.answer(Failing(Code.NOT_ALLOWED, "no service workers"))
        self.assertTrue(refused.startswith(b"HTTP/1.1 403 "))
        self.assertNotIn(b"Set-Cookie", refused)

    def test_remembered_gone(self) -> None:
        """
        What was chosen before and is gone is forgotten, but not while another
        one is being chosen.
        """
        cookie = b"Host: relay\r\nCookie: relaytunnel=gone\r\n\r\n"
        self.assertIn(b"Max-Age=0", self.ask(b"GET / HTTP/1.1\r\n" + cookie))
        self.assertNotIn(b"Max-Age=0", self.ask(b"GET /.relaytunnel/ HTTP/1.1\r\n" + cookie))

    def test_not_asked(self) -> None:
        """
        Who named one that cannot be had is answered; nobody asks a proxy's
        client.
        """
        away = Failing(Code.AGENT_AWAY, "the agent of web is not connected")
        self.assertIsNone(self.asked(REQUEST, away))
        for head in (
            b"CONNECT web:22 HTTP/1.1\r\n\r\n",
            b"GET http://web/ HTTP/1.1\r\nHost: web\r\n\r\n",
        ):
            self.assertIsNone(self.asked(head))

    def test_no_reply(self) -> None:
        """
        Nothing is said before.
        """
        way = HttpArrival()
        way.feed(b"CONNECT web:22 HTTP/1.1\r\n\r\n")
        self.assertEqual(way.take_reply(), b"")


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
