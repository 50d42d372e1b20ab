"""
Tests for L{relaytunnel.ratelimited}.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.logger import Logger, LogLevel, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from relaytunnel import ratelimited
from relaytunnel.ratelimited import RateLimitedLog


class RateLimitedLogTests(SynchronousTestCase):
    """
    What is written of lines that come and come.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.lines: list[str] = []
        observer: Any = lambda event: self.lines.append(formatEvent(event))  # noqa: E731
        logger = Logger("test", observer=observer)
        self.log = RateLimitedLog(self.clock, logger, burst=2, interval=10)

    def come(self, times: int, kind: str = "a") -> None:
        for number in range(1, times + 1):
            self.log.emit(LogLevel.info, kind, "{who} has said {number}", who=kind, number=number)

    def test_few(self) -> None:
        """
        A few lines are written as they come, and nothing waits.
        """
        self.come(2)
        self.assertEqual(self.lines, ["a has said 1", "a has said 2"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_many(self) -> None:
        """
        Of those that are too many it is told how many they were, and what the
        last one said.
        """
        self.come(1500)
        self.assertEqual(len(self.lines), 2)
        self.clock.advance(10)
        self.assertEqual(
            self.lines[2:], ["a has said 1500; and 1,497 more like it in the last 10 s"]
        )
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_one_too_many(self) -> None:
        """
        One line is no shorter for being counted.
        """
        self.come(3)
        self.clock.advance(10)
        self.assertEqual(self.lines[2:], ["a has said 3"])

    def test_again(self) -> None:
        """
        After a while as many are written again.
        """
        self.come(2)
        self.clock.advance(10)
        self.come(3)
        self.assertEqual(len(self.lines), 4)
        self.clock.advance(10)
        self.come(2)
        self.assertEqual(len(self.lines), 7)

    def test_each_kind(self) -> None:
        """
        What one says holds up nobody else's lines.
        """
        self.come(5)
        self.come(2, "b")
        self.assertEqual(self.lines[2:], ["b has said 1", "b has said 2"])

    def test_goes_on(self) -> None:
        """
        A flood that goes on for a minute is some lines long.
        """
        for _ in range(600):
            self.come(10)
            self.clock.advance(0.1)
        self.assertLess(len(self.lines), 25)
        counted = [int(line.split()[-9].replace(",", "")) for line in self.lines if ";" in line]
        self.assertGreater(sum(counted), 4900)

    def test_bounded(self) -> None:
        """
        Only so many kinds are remembered; of one that is forgotten it is told
        what was suppressed.
        """
        self.patch(ratelimited, "_MOST_KINDS", 3)
        self.come(4)
        for kind in "bcde":
            self.come(1, kind)
        self.assertEqual(list(self.log._kinds), ["c", "d", "e"])
        self.assertIn("a has said 4; and 1 more like it in the last 0 s", self.lines)
        self.log.close()

    def test_over(self) -> None:
        """
        Kinds that are over are forgotten when another comes.
        """
        for kind in "abc":
            self.come(1, kind)
        self.clock.advance(10)
        self.come(1, "d")
        self.assertEqual(list(self.log._kinds), ["d"])

    def test_close(self) -> None:
        """
        In the end it is told what was suppressed, and nothing waits.
        """
        self.come(5)
        self.clock.advance(2)
        self.log.close()
        self.assertEqual(self.lines[2:], ["a has said 5; and 2 more like it in the last 2 s"])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.log.close()
