"""
What a browser chose, signed.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.arrival import LONGEST_CHOICE
from relaytunnel.arrival.credentials import cookie_value, set_cookie
from relaytunnel.relay.choices import Choices

SOURCE = "203.0.113.9"


class ChoicesTests(SynchronousTestCase):
    """
    A choice is what this relay has signed for this source.
    """

    def setUp(self) -> None:
        self.choices = Choices(b"key")

    def token(self, connection_id: str = "web.office", source: str = SOURCE) -> str:
        token = self.choices.token(connection_id, source)
        assert token is not None
        return token

    def test_again(self) -> None:
        """
        It comes back as it was, through a cookie.
        """
        pair = set_cookie(self.token()).removeprefix("Set-Cookie: ").partition(";")[0]
        value = cookie_value([pair.encode()])
        assert value is not None
        self.assertEqual(self.choices.chosen(value, SOURCE), "web.office")

    def test_of_another(self) -> None:
        """
        That of another relay, another source or another server is none.
        """
        token = self.token()
        self.assertIsNone(Choices(b"other").chosen(token, SOURCE))
        self.assertIsNone(self.choices.chosen(token, "203.0.113.10"))
        self.assertIsNone(self.choices.chosen(token.replace("web", "bad"), SOURCE))
        self.assertIsNone(self.choices.chosen(self.token("web") + ".office", SOURCE))

    def test_longest(self) -> None:
        """
        An ID that is too long for a cookie has none.
        """
        self.assertEqual(len(self.token("a" * 230)), LONGEST_CHOICE)
        self.assertIsNone(self.choices.token("a" * 231, SOURCE))

    @given(st.text(max_size=300))
    @settings(deadline=None, max_examples=200)
    def test_made_up(self, text: str) -> None:
        """
        What somebody made up is none, and does no harm.
        """
        for token in (text, self.token()[:22] + text, "." * 16000):
            self.assertIsNone(self.choices.chosen(token, SOURCE))
