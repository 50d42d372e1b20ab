"""
Tests for L{relaytunnel.arrival.response}.
"""

from __future__ import annotations

from http import HTTPStatus

from hypothesis import given, settings
from hypothesis import strategies as st

from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.arrival.response import Form, preferred_form, response
from tests.arrival.test_answers import BROWSER, parts


class FormTests(SynchronousTestCase):
    """
    Which form a client prefers.
    """

    def test_each(self) -> None:
        """
        Each form has its names, in any case of letters.
        """
        for accept, form in (
            (BROWSER, Form.HTML),
            ("application/xhtml+xml", Form.HTML),
            ("APPLICATION/JSON", Form.JSON),
            ("application/problem+json", Form.JSON),
            ("text/plain", Form.TEXT),
            ("image/png", Form.TEXT),
            ("*/*", Form.TEXT),
            ("text/*", Form.TEXT),
            ("", Form.TEXT),
            (None, Form.TEXT),
        ):
            self.assertIs(preferred_form(accept), form, accept)

    def test_first_among_equals(self) -> None:
        """
        Of two that weigh the same the first one counts.
        """
        self.assertIs(preferred_form("application/json, text/html"), Form.JSON)
        self.assertIs(preferred_form("text/html, application/json"), Form.HTML)
        self.assertIs(preferred_form("text/plain, text/html"), Form.TEXT)

    def test_weights(self) -> None:
        """
        A weight goes before the place, also the third digit of it.
        """
        self.assertIs(preferred_form("text/html;q=0.998, application/json;q=0.999"), Form.JSON)
        self.assertIs(preferred_form("application/json;q=0.5, TEXT/HTML; Q=1.0"), Form.HTML)
        self.assertIs(preferred_form("text/plain;q=0.1, text/html; level=1; q=0.2"), Form.HTML)

    def test_not_wanted(self) -> None:
        """
        A weight of nought, and one that is none, makes its form not wanted.
        """
        for weight in ("0", "0.000", "nan", "inf", "2", "-1", "1_0", "", "0.1234"):
            self.assertIs(preferred_form(f"text/html;q={weight}, */*"), Form.TEXT)

    @given(st.text("*/;,=q.019 textplhmjson+", max_size=60))
    @settings(deadline=None, max_examples=100)
    def test_anything(self, accept: str) -> None:
        """
        Whatever it says, there is an answer.
        """
        self.assertIn(preferred_form(accept), Form)


class ResponseTests(SynchronousTestCase):
    """
    A whole response.
    """

    def test_whole(self) -> None:
        """
        Status line, fields and body are as they are given.
        """
        answer = response(HTTPStatus.NOT_FOUND, Form.TEXT, b"no\n", ["X-A: b", "X-C: d"], False)
        line, fields, body = parts(answer)
        self.assertEqual((line, body), ("HTTP/1.1 404 Not Found", b"no\n"))
        self.assertEqual((fields["X-A"], fields["X-C"]), ("b", "d"))
        self.assertEqual(fields["Content-Type"], "text/plain; charset=utf-8")
        self.assertEqual(fields["Content-Length"], "3")
        self.assertEqual(fields["X-Content-Type-Options"], "nosniff")
        self.assertEqual(fields["Connection"], "close")
        self.assertEqual(fields["Cache-Control"], "no-store")

    def test_head_only(self) -> None:
        """
        Without its body it says how long the body would be.
        """
        answer = response(HTTPStatus.OK, Form.JSON, b"{}\n", [], True)
        self.assertTrue(answer.endswith(b"\r\n\r\n"))
        self.assertEqual(parts(answer)[1]["Content-Length"], "3")

    def test_phrase(self) -> None:
        """
        The status line may say something else than usual.
        """
        answer = response(HTTPStatus.BAD_GATEWAY, Form.TEXT, b"", [], False, "Bad: closed")
        self.assertEqual(parts(answer)[0], "HTTP/1.1 502 Bad: closed")

    def test_pages_are_fenced_in(self) -> None:
        """
        A page runs and fetches nothing; the other forms need no such rule.
        """
        for form in Form:
            fields = parts(response(HTTPStatus.OK, form, b"", [], False))[1]
            policy = fields["Content-Security-Policy"]
            if form is Form.HTML:
                self.assertEqual(
                    policy,
                    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none';"
                    " frame-ancestors 'none'",
                )
            else:
                self.assertIsNone(policy)
