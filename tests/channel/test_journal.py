"""
Lines on their way to the log.
"""

from __future__ import annotations

from zope.interface import implementer

from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, Logger, LogLevel, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.channel.journal import Journal


class JournalTests(SynchronousTestCase):
    """
    What is written when.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.events: list[str] = []

        @implementer(ILogObserver)
        def observe(event: LogEvent) -> None:
            self.events.append(formatEvent(event))

        self.journal = Journal(self.clock, Logger("journal", observer=observe))

    def test_first_at_once(self) -> None:
        """
        After a silence a line is written at once, braces and all.
        """
        self.journal.note("a {line}")
        self.assertEqual(self.events, ["a {line}"])
        self.clock.advance(0.2)
        self.journal.note("another")
        self.assertEqual(self.events, ["a {line}", "another"])

    def test_emit(self) -> None:
        """
        A line may be given by its fields, as to a logger.
        """
        self.journal.emit(LogLevel.info, "{who} is {what}", who="a {client}", what=1)
        self.assertEqual(self.events, ["a {client} is 1"])

    def test_together(self) -> None:
        """
        Those that follow soon are written together, in order, within a tenth
        of a second.
        """
        for line in "abc":
            self.journal.note(line)
        self.assertEqual(self.events, ["a"])
        self.clock.advance(0.1)
        self.assertEqual(self.events, ["a", "b\nc"])
        self.journal.note("d")
        self.assertEqual(self.events, ["a", "b\nc"])
        self.clock.advance(0.1)
        self.assertEqual(self.events, ["a", "b\nc", "d"])

    def test_bounded(self) -> None:
        """
        No more than a thousand wait.
        """
        for number in range(1001):
            self.journal.note(str(number))
        self.assertEqual(len(self.events), 2)
        self.assertEqual(self.events[1].split("\n"), [str(n) for n in range(1, 1001)])

    def test_silence(self) -> None:
        """
        No timer runs when there was nothing to write for a while.
        """
        self.journal.note("a")
        self.clock.advance(0.1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_close(self) -> None:
        """
        Closing writes what there is, and stops the timer.
        """
        self.journal.note("a")
        self.journal.note("b")
        self.journal.close()
        self.assertEqual(self.events, ["a", "b"])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.journal.close()
        self.assertEqual(self.events, ["a", "b"])
