"""
Tests for L{relaytunnel.arrival.question}.
"""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.arrival import QUESTION, Asked, Malformed, Named, QuestionArrival
from relaytunnel.errors import Code, Failing
from tests.arrival.directory import Servers

quickly = settings(deadline=None, max_examples=100)

AWAY = Failing(Code.AGENT_AWAY, "the agent that publishes web is not connected now")
PROMPT = b"which server? "


class FitsTests(SynchronousTestCase):
    """
    How somebody who types is recognised.
    """

    def test_text(self) -> None:
        """
        A printable character begins a line, and so do white space and a line's
        end.
        """
        for start in (b"w", b"1", b" ", b"~", b"\t", b"\r", b"\n"):
            self.assertIs(QUESTION.fits(start), True)

    def test_no_text(self) -> None:
        """
        Control characters and bytes above 126 are no text.
        """
        for start in (b"\x00", b"\x05", b"\x16", b"\x1b", b"\x7f", b"\x80", b"\xff"):
            self.assertIs(QUESTION.fits(start), False)

    def test_nothing(self) -> None:
        """
        Without a byte nobody can tell.
        """
        self.assertIs(QUESTION.fits(b""), None)


class LineTests(SynchronousTestCase):
    """
    A line names a server, or nobody.
    """

    def named(self, line: bytes) -> Named:
        """
        Read a line.
        """
        outcome = QuestionArrival().feed(line)
        assert isinstance(outcome, Named), outcome
        return outcome

    def test_name(self) -> None:
        """
        The line is a name, in its canonical form, and is the relay's alone.
        """
        for line in (b"web\n", b"web\r\n", b" WEB. \t\r\n"):
            named = self.named(line)
            self.assertEqual(named, Named("question", "web", consumed=len(line)))

    def test_behind(self) -> None:
        """
        What comes behind the line is the server's.
        """
        self.assertEqual(self.named(b"web\nhello\nhello\n").consumed, 4)

    def test_too_little(self) -> None:
        """
        Before the line's end nothing is found.
        """
        self.assertIsNone(QuestionArrival().feed(b"web\r"))

    def test_empty(self) -> None:
        """
        An empty line names nobody.
        """
        for line in (b"\n", b"\r\n", b"  \t\r\n"):
            self.assertEqual(self.named(line), Named("question", None, consumed=len(line)))

    def test_no_name(self) -> None:
        """
        Nor does a line that cannot be a name.
        """
        for line in (b"a b\n", b"-\n", b"caf\xc3\xa9\n", b"a..b\n", b"\x1b[A\n", b"7\n"):
            self.assertIsNone(self.named(line).host)

    def test_number_before_the_list(self) -> None:
        """
        A number means nothing as long as nothing was listed.
        """
        self.assertIsNone(self.named(b"1\n").host)

    def test_stays(self) -> None:
        """
        What was found stays until the client is asked again.
        """
        way = QuestionArrival()
        self.assertIs(way.feed(b"web\n"), way.feed(b"web\nshop\n"))

    def test_longest(self) -> None:
        """
        A line may have 512 bytes.
        """
        self.assertEqual(self.named(b" " * 508 + b"web\n").host, "web")

    def test_too_long(self) -> None:
        """
        One without an end in 512 bytes is not read further.
        """
        self.assertIsNone(QuestionArrival().feed(b" " * 511))
        for line in (b" " * 512, b" " * 509 + b"web\n", b"a" * 20000):
            outcome = QuestionArrival().feed(line)
            assert isinstance(outcome, Malformed)
            self.assertTrue(outcome.answer.startswith(b"relaytunnel: invalid: "))

    def test_ssh(self) -> None:
        """
        A client of SSH, which would wait for a server's line, is told how it
        can say which one.
        """
        outcome = QuestionArrival().feed(b"SSH-2.0-OpenSSH_9.6\r\n")
        assert isinstance(outcome, Malformed)
        self.assertTrue(outcome.answer.startswith(b"relaytunnel: unsupported: ssh "))
        self.assertTrue(outcome.answer.endswith(b"\r\n"))

    @given(st.binary(max_size=100), st.lists(st.integers(0, 100), max_size=8))
    @quickly
    def test_any_chunking(self, data: bytes, cuts: list[int]) -> None:
        """
        However the bytes are cut, the same is found, and never beyond them.
        """
        whole = QuestionArrival().feed(data)
        edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
        way = QuestionArrival()
        for _, end in pairwise(edges):
            found = way.feed(data[:end])
        self.assertEqual(found, whole)
        if isinstance(whole, Named):
            self.assertEqual(data[: whole.consumed].count(b"\n"), 1)
            self.assertTrue(data[: whole.consumed].endswith(b"\n"))


class AskTests(SynchronousTestCase):
    """
    The question, and answers to it.
    """

    def setUp(self) -> None:
        self.way = QuestionArrival()
        self.directory = Servers("shop", "web", unlisted=("hidden",))
        self.said = b""

    def ask(self, why: Failing | None = None, over: bool = False) -> bytes:
        """
        Put the question.

        @return: its text.
        """
        asked = self.way.ask(self.directory, why)
        assert isinstance(asked, Asked)
        self.assertIs(asked.over, over)
        return asked.data

    def say(self, line: bytes) -> Named:
        """
        Say one more line.
        """
        self.said += line
        outcome = self.way.feed(self.said)
        assert isinstance(outcome, Named), outcome
        return outcome

    def test_list(self) -> None:
        """
        Those that want to be listed are, with numbers, before the prompt.
        """
        self.assertEqual(
            self.ask(),
            b"This relay leads to these servers; type a number, or a name.\r\n"
            b"  1) shop\r\n  2) web\r\n" + PROMPT,
        )

    def test_nothing_listed(self) -> None:
        """
        Where none wants to be, only a name helps.
        """
        self.directory = Servers(unlisted=("hidden",))
        question = self.ask()
        self.assertNotIn(b"hidden", question)
        self.assertIn(b"type the name of yours", question)

    def test_number(self) -> None:
        """
        A number of the list names its server.
        """
        self.ask()
        self.assertEqual(self.say(b"2\r\n"), Named("question", "web", consumed=3))

    def test_number_out_of_range(self) -> None:
        """
        Other numbers name nobody.
        """
        self.ask()
        for line in (b"0\n", b"3\n", b"-1\n", b"99999999999999999999\n"):
            self.assertIsNone(self.say(line).host)
            self.way._tries = 1
            self.ask()

    def test_name(self) -> None:
        """
        So does a name, listed or not.
        """
        self.ask()
        self.assertEqual(self.say(b"hidden\n").host, "hidden")

    def test_consumed_altogether(self) -> None:
        """
        All lines that were read are the relay's, the last one as well.
        """
        self.say(b"nowhere\n")
        self.ask(AWAY)
        self.assertEqual(self.say(b"web\nhello").consumed, len(b"nowhere\nweb\n"))

    def test_why(self) -> None:
        """
        Who named one that cannot be had is told why; the list is told once.
        """
        self.say(b"web\n")
        first = self.ask(AWAY)
        self.assertTrue(first.startswith(b"agent-away: the agent that publishes web"), first)
        self.assertIn(b"1) shop", first)
        self.say(b"web\n")
        self.assertEqual(self.ask(AWAY), b"agent-away: " + AWAY.reason.encode() + b"\r\n" + PROMPT)

    def test_why_unreadable(self) -> None:
        """
        Who said what cannot be a name is told so.
        """
        self.say(b"a b\n")
        self.assertTrue(self.ask().startswith(b"invalid: that is no server's name: "))
        self.say(b"\n")
        self.assertEqual(self.ask(), PROMPT)

    def test_three_times(self) -> None:
        """
        After the third answer that leads nowhere it is over, with the reason.
        """
        for _ in range(3):
            self.assertTrue(self.ask(AWAY).endswith(PROMPT))
        self.assertEqual(
            self.ask(AWAY, over=True),
            b"relaytunnel: agent-away: " + AWAY.reason.encode() + b"\r\n",
        )

    def test_three_empty_lines(self) -> None:
        """
        Who only says nothing in the end is told that, too.
        """
        for _ in range(3):
            self.ask()
            self.say(b"\n")
        self.assertEqual(
            self.ask(over=True), b"relaytunnel: no-such-server: no server was named\r\n"
        )

    def test_long_list(self) -> None:
        """
        Of very many servers a hundred are listed; the others have no number.
        """
        self.directory = Servers(*(f"server-{number}" for number in range(1, 151)))
        question = self.ask()
        self.assertIn(b"\r\n  100) server-100\r\n" + PROMPT, question)
        self.assertIsNone(self.say(b"101\n").host)
        self.assertEqual(self.say_again(b"100\n").host, "server-100")

    def say_again(self, line: bytes) -> Named:
        self.ask()
        return self.say(line)

    def test_list_stays(self) -> None:
        """
        A number means what it meant when it was shown.
        """
        self.ask()
        self.directory = Servers("another", "shop", "web")
        self.assertEqual(self.say(b"1\n").host, "shop")

    def test_reason_is_harmless(self) -> None:
        """
        A reason cannot move the cursor or begin a line.
        """
        question = self.ask(Failing(Code.NOT_ALLOWED, "x\r\n\x1b[2Jy"))
        self.assertTrue(question.startswith(b"not-allowed: x   [2Jy\r\nThis"), question)

    def test_no_reply(self) -> None:
        """
        Nothing but the question is said unasked.
        """
        self.say(b"web\n")
        self.assertEqual(self.way.take_reply(), b"")

    def test_answer(self) -> None:
        """
        A client that is not served reads why in a line.
        """
        self.assertEqual(
            self.way.answer(Failing(Code.BUSY, "too many")), b"relaytunnel: busy: too many\r\n"
        )

    def test_timed_out(self) -> None:
        """
        One that took too long reads that, on a line of its own.
        """
        line = b"relaytunnel: timeout: no server was named in time\r\n"
        self.assertEqual(self.way.timed_out(), line)
        self.ask()
        self.assertEqual(self.way.timed_out(), b"\r\n" + line)

    @given(st.lists(st.binary(max_size=30).map(lambda text: text.replace(b"\n", b"")), max_size=6))
    @quickly
    def test_ends(self, lines: list[bytes]) -> None:
        """
        Whatever is answered, it is over after three questions at most, and no
        byte of the answers is left to the server.
        """
        way, said, questions, over = QuestionArrival(), b"", 0, False
        for line in lines:
            said += line + b"\n"
            outcome = way.feed(said)
            if not isinstance(outcome, Named):
                break
            self.assertEqual(outcome.consumed, len(said))
            asked = way.ask(self.directory, None)
            assert isinstance(asked, Asked)
            questions, over = questions + 1, asked.over
            if over:
                break
        self.assertEqual(over, questions == 4)
