"""
Tests for L{relaytunnel.arrival.credentials}.
"""

from __future__ import annotations

from base64 import b64encode

from hypothesis import given, settings
from hypothesis import strategies as st

from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.arrival import Login
from relaytunnel.arrival.credentials import basic_login, cookie_value, set_cookie

quickly = settings(deadline=None, max_examples=100)


def basic(text: str, scheme: bytes = b"Basic") -> bytes:
    """
    Write credentials.
    """
    return scheme + b" " + b64encode(text.encode())


class LoginTests(SynchronousTestCase):
    """
    User names and passwords.
    """

    def test_example(self) -> None:
        """
        The examples of RFC 7617 are read: 2, and 2.1 with a character beyond
        ASCII.
        """
        self.assertEqual(
            basic_login(b"Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="), Login("Aladdin", "open sesame")
        )
        self.assertEqual(basic_login(b"Basic dGVzdDoxMjPCow=="), Login("test", "123\xa3"))

    def test_scheme(self) -> None:
        """
        The scheme is read in any case of letters, and no other one is.
        """
        self.assertEqual(basic_login(basic("a:b", b"bASIC")), Login("a", "b"))
        for scheme in (b"Bearer", b"Digest", b"Basic2", b""):
            self.assertIsNone(basic_login(basic("a:b", scheme)))

    def test_nothing(self) -> None:
        """
        Where nothing is said there is no login.
        """
        for value in (None, b"", b"Basic", b"Basic "):
            self.assertIsNone(basic_login(value))

    def test_colons(self) -> None:
        """
        The first colon ends the name; the password may have more of them, and
        both may be empty.
        """
        self.assertEqual(basic_login(basic("a:b:c")), Login("a", "b:c"))
        self.assertEqual(basic_login(basic(":")), Login("", ""))
        self.assertIsNone(basic_login(basic("no colon")))

    def test_white_space(self) -> None:
        """
        White space around the code does not count.
        """
        self.assertEqual(basic_login(b"Basic  \t" + b64encode(b"a:b") + b" \t"), Login("a", "b"))

    def test_not_understood(self) -> None:
        """
        What is no Base64, or no UTF-8 in it, counts as not said.
        """
        for coded in (b"YTpi!", b"YTp", b"YT pi", b"=", b64encode(b"a:\xff"), b"\xff"):
            self.assertIsNone(basic_login(b"Basic " + coded))

    def test_hidden(self) -> None:
        """
        A password does not stand in logs.
        """
        self.assertNotIn("sesame", repr(basic_login(basic("Aladdin:open sesame"))))

    @given(st.text(alphabet=st.characters(exclude_categories=["Cs"])), st.binary(max_size=60))
    @quickly
    def test_anything(self, password: str, value: bytes) -> None:
        """
        Every password can be given, and nothing that is sent raises.
        """
        self.assertEqual(basic_login(basic(f"user:{password}")), Login("user", password))
        for given_value in (value, b"Basic " + value, b"Basic " + b64encode(value)):
            self.assertIsInstance(basic_login(given_value), (Login, type(None)))


class CookieTests(SynchronousTestCase):
    """
    What a client has chosen before.
    """

    def test_found(self) -> None:
        """
        Ours is found wherever it stands.
        """
        for values in (
            [b"relaytunnel=web"],
            [b"a=b; relaytunnel=web; c=d"],
            [b"a=b;relaytunnel=web"],
            [b"a=b", b"c=d; \trelaytunnel=web "],
        ):
            self.assertEqual(cookie_value(values), "web")

    def test_two(self) -> None:
        """
        Of two neither counts, though they are the same: somebody else has set
        one of them.
        """
        for values in (
            [b"relaytunnel=a; relaytunnel=b"],
            [b"relaytunnel=a;relaytunnel=a"],
            [b"relaytunnel=a", b"c=d; relaytunnel=c"],
        ):
            self.assertEqual(cookie_value(values), "")

    def test_longest(self) -> None:
        """
        One that is longer than any that was set does not count.
        """
        for length, found in ((253, "a" * 253), (254, ""), (16000, "")):
            self.assertEqual(cookie_value([b"relaytunnel=" + b"a" * length]), found)

    def test_not_ours(self) -> None:
        """
        Others are not taken for it.
        """
        for values in (
            [],
            [b""],
            [b"relaytunnel"],
            [b"Relaytunnel=web"],
            [b"xrelaytunnel=web"],
            [b"a=relaytunnel=web"],
        ):
            self.assertIsNone(cookie_value(values))

    def test_set(self) -> None:
        """
        It is kept until the browser is closed, and out of scripts' reach; what
        is set is what is found.
        """
        field = set_cookie("web")
        self.assertEqual(field, "Set-Cookie: relaytunnel=web; Path=/; HttpOnly; SameSite=Lax")
        pair = field.removeprefix("Set-Cookie: ").partition(";")[0]
        self.assertEqual(cookie_value([pair.encode()]), "web")

    def test_forget(self) -> None:
        """
        One that is to be forgotten is over at once.
        """
        self.assertIn("relaytunnel=; Max-Age=0; Path=/", set_cookie(None))

    @given(st.lists(st.binary(max_size=60), max_size=4))
    @quickly
    def test_anything(self, values: list[bytes]) -> None:
        """
        Nothing that is sent raises.
        """
        self.assertIsInstance(cookie_value(values), (str, type(None)))
