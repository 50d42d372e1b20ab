"""
Tests for L{relaytunnel.arrival.plain}.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.arrival import Asked, Named, UnknownArrival
from relaytunnel.arrival.plain import one_line, text_line, too_late
from relaytunnel.errors import Code, Failing
from tests.arrival.directory import Servers


class PlainTests(SynchronousTestCase):
    """
    What is said to clients whose protocol is not known.
    """

    def test_line(self) -> None:
        """
        The line has the code and the reason, and ends in CRLF.
        """
        self.assertEqual(
            text_line(Failing(Code.BUSY, "too many visitors")),
            b"relaytunnel: busy: too many visitors\r\n",
        )

    @given(st.text(alphabet=st.characters(), max_size=600))
    @settings(deadline=None, max_examples=100)
    def test_harmless(self, reason: str) -> None:
        """
        Whatever the reason is, it is one printable line within its bound.
        """
        self.assertTrue(one_line(reason).isprintable())
        self.assertLessEqual(len(one_line(reason)), 256)
        self.assertEqual(text_line(Failing(Code.BUSY, reason)).count(b"\n"), 1)

    def test_too_late(self) -> None:
        """
        Who names no server in time is told so in a line.
        """
        self.assertEqual(too_late(), b"relaytunnel: timeout: no server was named in time\r\n")

    def test_unknown(self) -> None:
        """
        A client of an unknown protocol names nobody, whatever it says.
        """
        for data in (b"\x16\x03", b"\0", b"anything"):
            self.assertEqual(UnknownArrival().feed(data), Named("unknown", None))

    def test_unknown_asked(self) -> None:
        """
        It is told what is spoken here instead of being asked, and that is all.
        """
        way = UnknownArrival()
        for why in (None, Failing(Code.AGENT_AWAY, "the server is away")):
            asked = way.ask(Servers(), why)
            assert isinstance(asked, Asked)
            self.assertTrue(asked.over)
            self.assertTrue(asked.data.startswith(b"relaytunnel: unsupported: "))
            self.assertIn(b"HTTP/1.1", asked.data)
            self.assertEqual(asked.data.count(b"\n"), 1)

    def test_unknown_answer(self) -> None:
        """
        A client of an unknown protocol is answered in text.
        """
        failing = Failing(Code.BUSY, "too many visitors")
        self.assertEqual(UnknownArrival().answer(failing), text_line(failing))

    def test_unknown_timed_out(self) -> None:
        """
        A client of an unknown protocol is told in text that it was too slow.
        """
        self.assertIn(b"timeout", UnknownArrival().timed_out())
