"""
Tests for L{relaytunnel.arrival.answers}.
"""

from __future__ import annotations

import json
from email.message import Message
from email.parser import BytesParser
from html.parser import HTMLParser

from hypothesis import given, settings
from hypothesis import strategies as st

from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.arrival import http_answer
from relaytunnel.errors import Code, Failing

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"
AWAY = Failing(Code.AGENT_AWAY, "the agent of web is not connected")

quickly = settings(deadline=None, max_examples=100)
anything = st.text(alphabet=st.characters(), max_size=300)


def parts(answer: bytes) -> tuple[str, Message, bytes]:
    """
    Take a response apart.

    @return: its status line, its fields and its body.
    """
    head, _, body = answer.partition(b"\r\n\r\n")
    line, _, fields = head.partition(b"\r\n")
    return line.decode("ascii"), BytesParser().parsebytes(fields + b"\r\n\r\n"), body


class Tags(HTMLParser):
    """
    The tags of a page, and the text between them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """
        Note a tag.
        """
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        """
        Note text.
        """
        self.text += data


def tags(page: bytes) -> Tags:
    """
    Read a page.
    """
    reader = Tags()
    reader.feed(page.decode("utf-8"))
    reader.close()
    return reader


class StatusTests(SynchronousTestCase):
    """
    Which status and which fields an answer has.
    """

    def assert_status(self, code: Code, line: str) -> None:
        """
        Assert which status line a code leads to.
        """
        self.assertEqual(parts(http_answer(Failing(code, "why"), None, False))[0], line)

    def test_no_such_server(self) -> None:
        """
        A server that does not exist is not found.
        """
        self.assert_status(Code.NO_SUCH_SERVER, "HTTP/1.1 404 Not Found")

    def test_not_allowed(self) -> None:
        """
        A client that may not visit is forbidden to.
        """
        self.assert_status(Code.NOT_ALLOWED, "HTTP/1.1 403 Forbidden")

    def test_agent_away(self) -> None:
        """
        Without its agent a server is unavailable.
        """
        self.assert_status(Code.AGENT_AWAY, "HTTP/1.1 503 Service Unavailable")

    def test_busy(self) -> None:
        """
        A server with too many visitors is unavailable.
        """
        self.assert_status(Code.BUSY, "HTTP/1.1 503 Service Unavailable")

    def test_refused_by_target(self) -> None:
        """
        A target that refuses makes a bad gateway.
        """
        self.assert_status(Code.REFUSED_BY_TARGET, "HTTP/1.1 502 Bad Gateway")

    def test_target_unreachable(self) -> None:
        """
        A target that cannot be reached makes a bad gateway.
        """
        self.assert_status(Code.TARGET_UNREACHABLE, "HTTP/1.1 502 Bad Gateway")

    def test_unknown_id(self) -> None:
        """
        An agent that does not know the server makes a bad gateway.
        """
        self.assert_status(Code.UNKNOWN_ID, "HTTP/1.1 502 Bad Gateway")

    def test_timeout(self) -> None:
        """
        A way to the server that takes too long is a gateway timeout.
        """
        self.assert_status(Code.TIMEOUT, "HTTP/1.1 504 Gateway Timeout")

    def test_internal(self) -> None:
        """
        A fault of the relay is the relay's.
        """
        self.assert_status(Code.INTERNAL, "HTTP/1.1 500 Internal Server Error")

    def test_every_code(self) -> None:
        """
        Every code there is can be told.
        """
        for code in Code:
            answer = parts(http_answer(Failing(code, "why"), BROWSER, False))
            self.assertRegex(answer[0], r"^HTTP/1\.1 [45]\d\d ")
            self.assertEqual(answer[1]["X-Relaytunnel-Code"], code.value)

    def test_given_status(self) -> None:
        """
        A status that is given goes before that of the code.
        """
        answer = http_answer(Failing(Code.TIMEOUT, "slow"), None, False, status=408)
        self.assertEqual(parts(answer)[0], "HTTP/1.1 408 Request Timeout")

    def test_closes(self) -> None:
        """
        The answer is the last on its connection, and says so.
        """
        self.assertEqual(parts(http_answer(AWAY, None, False))[1]["Connection"], "close")

    def test_not_kept(self) -> None:
        """
        No cache keeps the answer, because the next one may be the server's.
        """
        self.assertEqual(parts(http_answer(AWAY, None, False))[1]["Cache-Control"], "no-store")

    def test_retry(self) -> None:
        """
        Where trying again may help, the answer says when.
        """
        for code in (Code.BUSY, Code.AGENT_AWAY):
            fields = parts(http_answer(Failing(code, "why"), None, False))[1]
            self.assertGreater(int(fields["Retry-After"]), 0)

    def test_no_retry(self) -> None:
        """
        Where trying again does not help, nothing is said of it.
        """
        fields = parts(http_answer(Failing(Code.NOT_ALLOWED, "why"), None, False))[1]
        self.assertNotIn("Retry-After", fields)

    def test_head(self) -> None:
        """
        The answer to HEAD has the same fields and no body.
        """
        whole = http_answer(AWAY, BROWSER, False)
        head = http_answer(AWAY, BROWSER, True)
        self.assertEqual(head, whole[: whole.index(b"\r\n\r\n") + 4])

    @given(st.sampled_from(Code), anything, st.none() | anything)
    @quickly
    def test_well_formed(self, code: Code, reason: str, accept: str | None) -> None:
        """
        Whatever the reason and the Accept are, the length is right and no
        field is made of them.
        """
        usual = parts(http_answer(Failing(code, "why"), accept, False))
        _, fields, body = parts(http_answer(Failing(code, reason), accept, False))
        self.assertEqual(int(fields["Content-Length"]), len(body))
        self.assertEqual(fields.keys(), usual[1].keys())


class FormTests(SynchronousTestCase):
    """
    Which form the body has.
    """

    def assert_form(self, accept: str | None, media: str) -> None:
        """
        Assert which media type an Accept leads to.
        """
        fields = parts(http_answer(AWAY, accept, False))[1]
        self.assertEqual(fields.get_content_type(), media)

    def test_browser(self) -> None:
        """
        A browser gets a page.
        """
        self.assert_form(BROWSER, "text/html")

    def test_json(self) -> None:
        """
        A program that asks for JSON gets JSON.
        """
        self.assert_form("application/json, text/plain, */*", "application/json")

    def test_curl(self) -> None:
        """
        A program that takes anything gets a line of text.
        """
        self.assert_form("*/*", "text/plain")

    def test_no_accept(self) -> None:
        """
        A client that does not say gets a line of text.
        """
        self.assert_form(None, "text/plain")

    def test_text_body(self) -> None:
        """
        The text is one line with the code and the reason.
        """
        self.assertEqual(
            parts(http_answer(AWAY, "*/*", False))[2],
            b"agent-away: the agent of web is not connected\n",
        )

    def test_json_body(self) -> None:
        """
        The JSON has the code and the reason.
        """
        self.assertEqual(
            json.loads(parts(http_answer(AWAY, "application/json", False))[2]),
            {"code": "agent-away", "reason": "the agent of web is not connected"},
        )


class ProxyTests(SynchronousTestCase):
    """
    Answers to clients that take the relay for a proxy.
    """

    def line(self, failing: Failing) -> str:
        """
        @return: the status line.
        """
        return parts(http_answer(failing, None, False, proxy=True))[0]

    def test_reason_in_the_status_line(self) -> None:
        """
        The reason stands where the client of a tunnel shows it.
        """
        self.assertEqual(
            self.line(AWAY),
            "HTTP/1.1 503 Service Unavailable: the agent of web is not connected",
        )
        self.assertEqual(
            parts(http_answer(AWAY, None, False))[0], "HTTP/1.1 503 Service Unavailable"
        )

    def test_login(self) -> None:
        """
        Who has to say who it is, is asked as a proxy asks, and otherwise as a
        server does.
        """
        failing = Failing(Code.LOGIN_NEEDED, "web asks for a user name and a password")
        challenge = 'Basic realm="relaytunnel", charset="UTF-8"'
        line, fields, _ = parts(http_answer(failing, None, False, proxy=True))
        self.assertTrue(line.startswith("HTTP/1.1 407 Proxy Authentication Required: web "), line)
        self.assertEqual(fields["Proxy-Authenticate"], challenge)
        self.assertNotIn("WWW-Authenticate", fields)
        line, fields, _ = parts(http_answer(failing, None, False))
        self.assertEqual(line, "HTTP/1.1 401 Unauthorized")
        self.assertEqual(fields["WWW-Authenticate"], challenge)
        self.assertNotIn("Proxy-Authenticate", fields)

    def test_no_challenge(self) -> None:
        """
        Nobody else is asked for a password.
        """
        for code in set(Code) - {Code.LOGIN_NEEDED}:
            for proxy in (True, False):
                fields = parts(http_answer(Failing(code, "why"), None, False, proxy=proxy))[1]
                self.assertFalse({"WWW-Authenticate", "Proxy-Authenticate"} & set(fields.keys()))

    def test_ascii(self) -> None:
        """
        What is not ASCII is a question mark there; the body has it as it is.
        """
        failing = Failing(Code.BUSY, "zu voll für \u2603")
        answer = http_answer(failing, None, False, proxy=True)
        self.assertTrue(
            answer.startswith(b"HTTP/1.1 503 Service Unavailable: zu voll f?r ?\r\n"), answer
        )
        self.assertEqual(parts(answer)[2].decode(), "busy: zu voll für \u2603\n")

    def test_retry(self) -> None:
        """
        The other fields are the same as ever.
        """
        usual, proxied = (
            parts(http_answer(AWAY, None, False, proxy=proxy))[1] for proxy in (False, True)
        )
        self.assertEqual(usual.items(), proxied.items())
        self.assertGreater(int(proxied["Retry-After"]), 0)

    @given(anything)
    @quickly
    def test_one_line(self, reason: str) -> None:
        """
        Whatever the reason is, it is in the status line, and ends nothing.
        """
        answer = http_answer(Failing(Code.BUSY, reason), None, False, proxy=True)
        head = answer.partition(b"\r\n\r\n")[0]
        self.assertTrue(head.isascii())
        lines = head.split(b"\r\n")
        self.assertRegex(lines[0], rb"\AHTTP/1\.1 503 Service Unavailable: [ -~]*\Z")
        usual = http_answer(Failing(Code.BUSY, "why"), None, False, proxy=True)
        self.assertEqual(head.count(b"\n"), usual.partition(b"\r\n\r\n")[0].count(b"\n"))
