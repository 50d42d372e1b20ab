"""
The requests and answers of one connection.
"""

from __future__ import annotations

import h11
from hypothesis import given, settings
from hypothesis import strategies as st

from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.arrival import Exchange, HttpArrival, Limits, Mode, Named
from relaytunnel.arrival.exchange import MOST_UNANSWERED
from relaytunnel.arrival.head import Fault

GET = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n"
OTHER = b"GET / HTTP/1.1\r\nHost: other\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 5\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n"
UPGRADE = b"GET / HTTP/1.1\r\nHost: web\r\nUpgrade: chat\r\nConnection: upgrade\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
NONE = b"HTTP/1.1 204 No Content\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: chat\r\nConnection: upgrade\r\n\r\n"
ENDLESS = b"HTTP/1.1 200 OK\r\n\r\nwithout an end"


def cut(data: bytes, piece: int) -> list[bytes]:
    return [data[at : at + piece] for at in range(0, len(data), piece)]


class ExchangeCase(SynchronousTestCase):
    """
    A session of the server C{web}.
    """

    def begin(self, head: bytes = GET, limits: Limits | None = None) -> Exchange:
        """
        @return: an exchange whose first request has this head, which has
            passed.
        """
        named = HttpArrival().feed(head)
        assert isinstance(named, Named), named
        assert named.request is not None
        self.asked: list[Named | None] = []
        exchange = Exchange(named, self.accepts, limits or Limits())
        head = named.request.forwarded
        self.assertEqual(exchange.client_says(head), head)
        return exchange

    def accepts(self, named: Named | None) -> bool:
        self.asked.append(named)
        return named is None or named.host == "web"

    def passes(self, exchange: Exchange, *data: bytes) -> None:
        """
        Assert that the client's bytes go on as they are.
        """
        for each in data:
            self.assertEqual(exchange.client_says(each), each)
            self.assertEqual(exchange.held, b"")

    def answers(self, exchange: Exchange, *data: bytes) -> None:
        """
        Assert that the server's bytes go on as they are.
        """
        for each in data:
            self.assertEqual(exchange.server_says(each), each)

    def leaves(self, exchange: Exchange, data: bytes, answers: int) -> None:
        """
        Assert that this is held until so many answers have come, and belongs
        to another session then.
        """
        self.assertEqual(exchange.client_says(data), b"")
        self.assertEqual((exchange.mode, exchange.held), (Mode.LEAVING, data))
        for _ in range(answers):
            self.assertTrue(exchange.stopped)
            self.assertFalse(exchange.can_leave)
            self.answers(exchange, OK)
        self.assertTrue(exchange.can_leave)
        self.assertEqual((exchange.held, exchange.client_says(b"")), (data, b""))


class RequestTests(ExchangeCase):
    """
    What the client says.
    """

    def test_same_server(self) -> None:
        """
        Requests for the session's server go on, one after the other or many at
        once.
        """
        exchange = self.begin()
        self.answers(exchange, OK)
        self.passes(exchange, GET, GET + POST + b"hello" + GET)
        self.answers(exchange, OK + OK, OK + OK)
        self.passes(exchange, GET.replace(b" / ", b" /other "), GET.replace(b"web", b"WEB"))
        self.assertEqual(exchange.mode, Mode.OPEN)

    def test_same_head(self) -> None:
        """
        A head that says the same as the last one but for method and path is
        not looked at again; what it names is.
        """
        exchange = self.begin()
        self.passes(exchange, GET, GET.replace(b"GET /", b"HEAD /x"))
        self.assertEqual(self.asked, [None, None])
        self.passes(exchange, GET.replace(b"Host: web", b"Host: web:80"))
        self.assertEqual(exchange.client_says(GET.replace(b" / ", b" http://other/ ")), b"")
        self.assertEqual(exchange.mode, Mode.LEAVING)

    def test_first_has_body(self) -> None:
        """
        The body of the first request is its own, whatever it looks like.
        """
        exchange = self.begin(POST.replace(b"5", b"%d" % len(OTHER)))
        self.passes(exchange, OTHER)
        self.answers(exchange, OK)
        self.leaves(exchange, OTHER, 0)

    def test_other_server(self) -> None:
        """
        A request for another server waits until every answer has come.
        """
        for data in (OTHER, OTHER + b"more"):
            exchange = self.begin()
            self.passes(exchange, GET)
            self.leaves(exchange, data, 2)

    def test_behind_body(self) -> None:
        """
        It is found behind the body of the one before, also where both come at
        once.
        """
        exchange = self.begin()
        sent = CHUNKED + b"5\r\nhello\r\n0\r\n\r\n"
        self.assertEqual(exchange.client_says(sent + OTHER), sent)
        self.assertEqual((exchange.mode, exchange.held), (Mode.LEAVING, OTHER))

    def test_not_here(self) -> None:
        """
        What is no request of this session is left to the next one, which says
        why it is none.
        """
        for data in (
            b"GET / HTTP/1.0\r\n\r\n",
            b"GET / HTTP/1.1\r\n\r\n",
            b"CONNECT web:80 HTTP/1.1\r\nHost: web:80\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: web\r\nHost: web\r\n\r\n",
            b"GET / HTTP/1.1\nHost: web\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            b"\x16\x03\x01\r\n\r\n",
            b"x" * 16384,
            b"GET / HTTP/1.1\r\nHost: web\r\n" + b"X: y\r\n" * 120 + b"\r\n",
        ):
            self.leaves(self.begin(), data, 1)

    def test_same_fields_other_faults(self) -> None:
        """
        The first line is looked at even where all others are the last one's.
        """
        for line in (b"GET / HTTP/1.0", b"GET  / HTTP/1.1", b"CONNECT web:1 HTTP/1.1", b"G /"):
            exchange = self.begin()
            self.answers(exchange, OK)
            exchange.client_says(GET.replace(b"GET / HTTP/1.1", line))
            served = line == b"GET / HTTP/1.0"  # HTTP/1.0 may name a Host
            self.assertEqual(exchange.mode, Mode.OPEN if served else Mode.LEAVING, line)

    def test_to_proxy(self) -> None:
        """
        What a client says to a proxy is rewritten, each request.
        """
        first = b"GET http://web/1 HTTP/1.1\r\nHost: web\r\nProxy-Authorization: x\r\n\r\n"
        exchange = self.begin(first)
        later = first.replace(b"/1 ", b"/2 ")
        wanted = b"GET /2 HTTP/1.1\r\nHost: web\r\n\r\n"
        self.assertEqual(exchange.client_says(later), wanted)
        self.assertEqual(exchange.client_says(later + GET + later), wanted + GET + wanted)
        self.answers(exchange, OK * 5)
        self.leaves(exchange, later.replace(b"web", b"other"), 0)

    def test_begun(self) -> None:
        """
        A head that has come in part is held, and known to be late when it is.
        """
        exchange = self.begin()
        for each in cut(GET[:-1], 1):
            self.assertEqual(exchange.client_says(each), b"")
            self.assertTrue(exchange.begun)
        self.assertEqual(exchange.client_says(GET[-1:]), GET)
        self.assertFalse(exchange.begun)
        self.assertEqual(exchange.client_says(b"GET"), b"")
        exchange.leave()
        self.answers(exchange, OK)
        self.assertFalse(exchange.can_leave)
        self.answers(exchange, OK)
        self.assertTrue(exchange.can_leave)

    def test_many(self) -> None:
        """
        So many requests may be unanswered; those behind wait, and go on as
        answers come.
        """
        exchange = self.begin()
        sent = GET * (MOST_UNANSWERED + 5)
        self.assertEqual(exchange.client_says(sent), GET * (MOST_UNANSWERED - 1))
        self.assertTrue(exchange.stopped)
        self.answers(exchange, OK * 3)
        self.assertFalse(exchange.stopped)
        self.assertEqual(exchange.client_says(b""), GET * 3)
        self.answers(exchange, OK * MOST_UNANSWERED)
        self.assertEqual(exchange.client_says(b""), GET * 3)
        self.assertEqual((exchange.held, exchange.mode), (b"", Mode.OPEN))

    def test_bad_body(self) -> None:
        """
        A body that is not framed as it says ends the session.
        """
        exchange = self.begin(CHUNKED)
        self.assertRaises(Fault, exchange.client_says, b"5\nhello")


class AnswerTests(ExchangeCase):
    """
    What the server says.
    """

    def test_interim(self) -> None:
        """
        What precedes an answer is none.
        """
        exchange = self.begin(POST)
        self.answers(exchange, CONTINUE, CONTINUE)
        self.passes(exchange, b"hello")
        self.assertEqual(exchange.client_says(OTHER), b"")
        self.answers(exchange, CONTINUE, OK[:-1])
        self.assertFalse(exchange.can_leave)
        self.answers(exchange, OK[-1:])
        self.assertTrue(exchange.can_leave)

    def test_no_body(self) -> None:
        """
        The answer to HEAD ends with its head, as one without a body does.
        """
        exchange = self.begin(GET.replace(b"GET", b"HEAD"))
        self.passes(exchange, GET)
        self.assertEqual(exchange.client_says(OTHER), b"")
        self.answers(exchange, OK[:-2], NONE)
        self.assertTrue(exchange.can_leave)

    def test_any_cut(self) -> None:
        """
        Answers end where they end, however they are cut.
        """
        said = (
            CONTINUE + OK + NONE + b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"5\r\nhello\r\n0\r\n\r\n" + OK
        )
        for piece in (*range(1, 60), len(said)):
            exchange = self.begin()
            self.passes(exchange, GET * 3)
            self.assertEqual(exchange.client_says(OTHER), b"")
            passed = b""
            for each in cut(said, piece):
                self.assertFalse(exchange.can_leave)
                passed += exchange.server_says(each)
            self.assertEqual(passed, said)
            self.assertTrue(exchange.can_leave)

    def test_last(self) -> None:
        """
        Behind an answer that is the last one the client's words are for
        nobody, and the server's neither.
        """
        for answer in (
            OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"),
            OK.replace(b"1.1", b"1.0"),
            ENDLESS,
        ):
            exchange = self.begin()
            self.assertEqual(exchange.client_says(OTHER), b"")
            self.answers(exchange, answer)
            self.assertEqual((exchange.mode, exchange.held), (Mode.CLOSING, b""))
            self.assertFalse(exchange.stopped)
            self.assertEqual(exchange.client_says(GET), b"")
            self.assertEqual(exchange.held, b"")

    def test_doubtful(self) -> None:
        """
        An answer whose end another program may find elsewhere is made the last
        one for the client, too; who goes on all the same is served no more.
        """
        close = b"Connection: close\r\n"
        for first, rest in (
            (b"HTTP/1.1 200 OK\n", b"Content-Length: 2\n\nok"),
            (b"HTTP/1.1 200 OK\r\n", b"X: y\nContent-Length: 2\r\n\r\nok"),
            (b"HTTP/1.1 200 OK\r\n", b"Content-Length: 2\n\nok"),
            (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n z\r\nContent-Length: 2\r\n\r\nok"),
            (b"HTTP/1.1 200 OK\r\n", b"Content-Length: 2, 2\r\n\r\nok"),
            (b"HTTP/1.1 200 OK\r\n", b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
            (b"HTTP/1.2 200 OK\r\n", b"Content-Length: 2\r\n\r\nok"),
        ):
            for piece in (1, 7, 1000):
                exchange = self.begin()
                self.assertEqual(exchange.client_says(OTHER), b"")
                passed = b"".join(map(exchange.server_says, cut(first + rest, piece)))
                self.assertEqual(passed, first + close + rest)
                self.assertEqual((exchange.mode, exchange.held), (Mode.CLOSING, b""))
                self.assertRaises(Fault, exchange.client_says, b"G")

    def test_no_answer(self) -> None:
        """
        So it is with what is no HTTP at all, as it was said.
        """
        for said in (b"no HTTP at all\n?", b"x" * 70_000):
            exchange = self.begin()
            self.answers(exchange, said)
            self.assertEqual(exchange.mode, Mode.CLOSING)
            self.assertRaises(Fault, exchange.client_says, OTHER)

    def test_displaced(self) -> None:
        """
        A head that does not begin where it should reaches no client.
        """
        for said in (b"\r\n" + OK, b"\n" + OK, OK.replace(b"\r\n", b"\r\n ", 1)):
            self.assertRaises(Fault, self.begin().server_says, said)

    def test_head_cut(self) -> None:
        """
        A part of a head waits for the rest; the server's end takes it along.
        """
        exchange = self.begin()
        self.assertEqual(exchange.server_says(OK[:20]), b"")
        self.assertEqual(exchange.server_ended(), OK[:20])
        self.assertEqual(exchange.server_ended(), b"")

    def test_server_ended(self) -> None:
        """
        So it is when the server has ended.
        """
        exchange = self.begin()
        self.assertEqual(exchange.client_says(OTHER), b"")
        exchange.server_ended()
        self.assertEqual((exchange.mode, exchange.held), (Mode.CLOSING, b""))

    def test_uploads_meanwhile(self) -> None:
        """
        While an answer that is the last one comes, the body of its request
        goes on.
        """
        exchange = self.begin(POST)
        self.answers(exchange, ENDLESS)
        self.assertFalse(exchange.stopped)
        self.passes(exchange, b"he", b"llo")

    def test_early(self) -> None:
        """
        A server that has answered before the body has ended is done with the
        connection: what it makes of the rest is its secret.
        """
        exchange = self.begin(POST)
        self.passes(exchange, b"he")
        self.answers(exchange, OK)
        self.assertEqual(exchange.mode, Mode.OVER)
        self.assertTrue(exchange.stopped)

    def test_out_of_turn(self) -> None:
        """
        What nobody has asked for reaches no client.
        """
        for said in (OK, b"x"):
            exchange = self.begin()
            self.assertEqual(exchange.server_says(OK + said), OK)
            self.assertEqual(exchange.mode, Mode.OVER)
            exchange = self.begin()
            self.answers(exchange, OK)
            self.assertEqual(exchange.server_says(said), b"")
            self.assertEqual(exchange.mode, Mode.OVER)
            self.assertEqual(exchange.server_says(said), b"")

    def test_bad_body(self) -> None:
        """
        An answer whose chunks are none ends the session.
        """
        exchange = self.begin()
        self.answers(exchange, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        self.assertRaises(Fault, exchange.server_says, b"x\r\n")


class UpgradeTests(ExchangeCase):
    """
    Another protocol.
    """

    def test_granted(self) -> None:
        """
        What comes behind the offer waits; when it is granted everything goes
        on as it is.
        """
        exchange = self.begin(UPGRADE)
        self.assertEqual(exchange.client_says(b"early"), b"")
        self.assertTrue(exchange.stopped)
        self.answers(exchange, SWITCHED + b"\0\1HTTP/1.1 500 no\r\n\r\n")
        self.assertEqual((exchange.mode, exchange.stopped), (Mode.RAW, False))
        self.assertEqual(exchange.client_says(b""), b"early")
        self.passes(exchange, b"\0\2", OTHER, b"5\n")
        self.answers(exchange, b"\0\3", OK)
        exchange.server_ended()
        self.passes(exchange, b"\0\4")

    def test_refused(self) -> None:
        """
        When it is not, the connection goes on with HTTP.
        """
        exchange = self.begin(UPGRADE)
        self.assertEqual(exchange.client_says(GET + OTHER), b"")
        self.answers(exchange, CONTINUE, OK)
        self.assertEqual(exchange.mode, Mode.OPEN)
        self.assertEqual(exchange.client_says(b""), GET)
        self.answers(exchange, OK)
        self.assertTrue(exchange.can_leave)

    def test_with_body(self) -> None:
        """
        The request that offers it may have a body.
        """
        exchange = self.begin(POST.replace(b"\r\n\r\n", b"\r\nUpgrade: chat\r\n\r\n"))
        self.assertFalse(exchange.stopped)
        self.passes(exchange, b"hello")
        self.assertTrue(exchange.stopped)
        self.answers(exchange, SWITCHED)
        self.passes(exchange, b"\0")

    def test_later(self) -> None:
        """
        A later request may offer it, behind others.
        """
        exchange = self.begin()
        self.assertEqual(exchange.client_says(UPGRADE + b"early"), UPGRADE)
        self.answers(exchange, OK)
        self.assertEqual(exchange.mode, Mode.OFFERED)
        self.answers(exchange, SWITCHED)
        self.assertEqual(exchange.client_says(b"more"), b"earlymore")

    def test_not_offered(self) -> None:
        """
        A server that grants what nobody has offered is not followed: some
        clients would take that for an interim answer, and others would not.
        """
        for head in (GET, GET.replace(b"\r\n\r\n", b"\r\nUpgrade: h2c\r\n\r\n")):
            exchange = self.begin(head)
            self.assertRaises(Fault, exchange.server_says, SWITCHED)


_VALUES = st.sampled_from(
    [b"", b"a", b"hello", b"x" * 300, b"GET / HTTP/1.1\r\nHost: other\r\n\r\n"]
)


@st.composite
def _message(draw: st.DrawFn) -> tuple[str, bytes, bytes, bool]:
    """
    @return: method, body of the request, body of the answer, and whether both
        are chunked.
    """
    method = draw(st.sampled_from(["GET", "HEAD", "POST"]))
    sent = draw(_VALUES) if method == "POST" else b""
    return method, sent, draw(_VALUES), draw(st.booleans())


def _length(body: bytes, chunked: bool) -> tuple[str, str]:
    if chunked:
        return ("Transfer-Encoding", "chunked")
    return ("Content-Length", str(len(body)))


def _write(connection: h11.Connection, head: h11.Event, body: bytes) -> bytes:
    events = [head, *([h11.Data(data=body)] if body else []), h11.EndOfMessage()]
    return b"".join(connection.send(each) or b"" for each in events)


def _request(method: str, sent: bytes, answered: bytes, chunked: bool) -> bytes:
    """
    @return: a request as h11 writes it.
    """
    headers = [("Host", "web")]
    if method == "POST":
        headers.append(_length(sent, chunked))
    head = h11.Request(method=method, target="/", headers=headers)
    return _write(h11.Connection(h11.CLIENT), head, sent)


def _answer(method: str, sent: bytes, answered: bytes, chunked: bool) -> bytes:
    """
    @return: its answer as h11 writes it.
    """
    server = h11.Connection(h11.SERVER)
    server.receive_data(_request(method, sent, answered, chunked))
    while not isinstance(server.next_event(), h11.EndOfMessage):
        pass
    head = h11.Response(status_code=200, headers=[_length(answered, chunked)])
    return _write(server, head, b"" if method == "HEAD" else answered)


class ModelTests(ExchangeCase):
    """
    Against another implementation of HTTP/1.1.
    """

    @settings(deadline=None, max_examples=200)
    @given(st.lists(_message(), min_size=1, max_size=5), st.integers(1, 200), st.integers(1, 200))
    def test_any(
        self, messages: list[tuple[str, bytes, bytes, bool]], there: int, back: int
    ) -> None:
        """
        Requests and answers as h11 writes them pass whole, however they are
        cut, and the session ends between two of them.
        """
        said = b"".join(_request(*each) for each in messages)
        first = said[: said.index(b"\r\n\r\n") + 4]
        exchange = self.begin(first)
        passed = b"".join(exchange.client_says(each) for each in cut(said[len(first) :], there))
        self.assertEqual(first + passed, said)
        self.assertEqual(exchange.client_says(OTHER), b"")
        answers = b"".join(_answer(*each) for each in messages)
        passed = b""
        for each in cut(answers, back):
            self.assertFalse(exchange.can_leave)
            passed += exchange.server_says(each)
        self.assertEqual(passed, answers)
        self.assertTrue(exchange.can_leave)
