"""
Tests for L{relaytunnel.arrival.answers} and L{relaytunnel.arrival.page}.
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

    def test_json_by_suffix(self) -> None:
        """
        A program that asks for a kind of JSON gets JSON.
        """
        self.assert_form("application/vnd.api+json", "application/json")

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

    def test_neither(self) -> None:
        """
        A client that wants what there is not gets a line of text.
        """
        self.assert_form("image/png", "text/plain")

    def test_weights(self) -> None:
        """
        The weightiest form wins, wherever it stands.
        """
        self.assert_form("text/html;q=0.5, application/json;q=0.9", "application/json")
        self.assert_form("application/json;q=0.5, TEXT/HTML; Q=1.0", "text/html")

    def test_weight_nought(self) -> None:
        """
        A form with a weight of nought is not wanted.
        """
        self.assert_form("text/html;q=0, */*", "text/plain")

    def test_weight_nonsense(self) -> None:
        """
        A weight that is none makes its form not wanted.
        """
        for weight in ("nan", "inf", "2", "-1", "1_0", "", "0.1234"):
            self.assert_form(f"text/html;q={weight}", "text/plain")

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


class PageTests(SynchronousTestCase):
    """
    The page for people.
    """

    def page(self, reason: str, code: Code = Code.AGENT_AWAY) -> bytes:
        """
        Make a page.
        """
        return parts(http_answer(Failing(code, reason), BROWSER, False))[2]

    def test_says_why(self) -> None:
        """
        The page has the reason, the status and the code on it.
        """
        text = tags(self.page("the agent of web is not connected")).text
        self.assertIn("the agent of web is not connected", text)
        self.assertIn("503 Service Unavailable", text)
        self.assertIn("agent-away", text)

    def test_stands_by_itself(self) -> None:
        """
        The page runs nothing and fetches nothing, and forbids both.
        """
        for code in Code:
            page = self.page("why", code)
            self.assertFalse({"script", "link", "img", "iframe"} & set(tags(page).tags))
            self.assertNotIn(b"url(", page)
        fields = parts(http_answer(AWAY, BROWSER, False))[1]
        self.assertIn("default-src 'none'", fields["Content-Security-Policy"])

    def test_small_and_dark(self) -> None:
        """
        The page fits a telephone and the night.
        """
        page = self.page("why")
        self.assertIn(b"width=device-width", page)
        self.assertIn(b"prefers-color-scheme: dark", page)

    def test_script_in_the_reason(self) -> None:
        """
        A script in the reason is shown, not run.
        """
        reason = "<script>alert('x')</script>\"&{0}"
        read = tags(self.page(reason))
        self.assertNotIn("script", read.tags)
        self.assertIn(reason, read.text)

    @given(anything)
    @quickly
    def test_reason_adds_no_tag(self, reason: str) -> None:
        """
        Whatever the reason is, the tags of the page stay the same.
        """
        self.assertEqual(tags(self.page(reason)).tags, tags(self.page("why")).tags)
