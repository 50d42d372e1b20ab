"""
When to take no more descriptors, and when to take some again.
"""

from __future__ import annotations

import os
import resource
from unittest.mock import patch

from zope.interface import implementer

from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.channel.descriptors import (
    Descriptors,
    descriptor_limit,
    descriptors_in_use,
    raise_descriptor_limit,
)


class InUseTests(SynchronousTestCase):
    """
    What the system says.
    """

    def test_count(self) -> None:
        """
        Each descriptor counts, however it is counted: by a system that says
        the number, by one that shows them, and by one that does neither.
        """

        def missing(path: str) -> object:
            raise FileNotFoundError(path)

        def one_more() -> int:
            before = descriptors_in_use()
            descriptor = os.open(os.devnull, os.O_RDONLY)
            try:
                return descriptors_in_use() - before
            finally:
                os.close(descriptor)

        self.assertEqual(one_more(), 1)
        with patch.object(os, "stat", missing):
            self.assertEqual(one_more(), 1)
            with patch.object(os, "listdir", missing):
                self.assertGreaterEqual(one_more(), 1)

    def test_none_to_count_with(self) -> None:
        """
        Where there is not one left to count with all are in use.
        """

        def full(*_: object) -> int:
            raise OSError(24, "Too many open files")

        with (
            patch.object(os, "stat", full),
            patch.object(os, "listdir", full),
            patch.object(os, "open", full),
        ):
            self.assertEqual(descriptors_in_use(), descriptor_limit())

    def test_raised(self) -> None:
        """
        The limit can be raised as far as the hard one, or less far.
        """
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        least = descriptors_in_use() + 50
        resource.setrlimit(resource.RLIMIT_NOFILE, (least, hard))
        raise_descriptor_limit(least + 7)
        self.assertEqual(descriptor_limit(), least + 7)
        raise_descriptor_limit(least)
        self.assertEqual(descriptor_limit(), least + 7)
        raise_descriptor_limit()
        self.assertEqual(resource.getrlimit(resource.RLIMIT_NOFILE)[1], hard)
        self.assertEqual(descriptor_limit(), min(hard, 1 << 20) if hard > 0 else 1 << 20)


class DescriptorsTests(SynchronousTestCase):
    """
    A process that may have a thousand.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.in_use = 10
        self.limit: int | None = 1000
        self.looks = 0
        self.went_on: list[str] = []
        self.descriptors = Descriptors(self.clock, limit=lambda: self.limit, in_use=self.count)

    def count(self) -> int:
        self.looks += 1
        return self.in_use

    def go_on(self) -> None:
        self.went_on.append("on")

    def accept(self, each: int = 1) -> None:
        """
        Accept until nothing is to be accepted any more.

        @param each: how many descriptors each connection needs.
        """
        while not self.descriptors.paused:
            self.in_use += each
            self.descriptors.unlooked -= 1
            if self.descriptors.unlooked <= 0:
                self.descriptors.look()

    def said(self) -> list[str]:
        """
        Collect what is logged from now on.
        """
        texts: list[str] = []

        @implementer(ILogObserver)
        def take(event: LogEvent) -> None:
            texts.append(formatEvent(event))

        globalLogPublisher.addObserver(take)
        self.addCleanup(globalLogPublisher.removeObserver, take)
        return texts

    def test_mark(self) -> None:
        """
        At nine tenths nothing is accepted any more, or a hundredth later; they
        were counted a few times until then.
        """
        self.accept()
        self.assertTrue(900 <= self.in_use <= 910, self.in_use)
        self.assertLess(self.looks, 20)

    def test_two_each(self) -> None:
        """
        Nor is it much later where each connection takes another one.
        """
        self.accept(each=2)
        self.assertTrue(900 <= self.in_use <= 920, self.in_use)

    def test_few(self) -> None:
        """
        Where there are few each is counted.
        """
        self.limit = 20
        self.accept()
        self.assertEqual(self.in_use, 18)

    def test_room_again(self) -> None:
        """
        It goes on at eight tenths by itself, with whoever waits for that, once.
        """
        self.accept()
        for _ in range(2):
            self.descriptors.when_again(self.go_on)
        self.in_use = 801
        self.clock.pump([0.25] * 8)
        self.assertTrue(self.descriptors.paused)
        self.in_use = 800
        self.clock.advance(0.25)
        self.assertFalse(self.descriptors.paused)
        self.assertEqual(self.went_on, ["on"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_full_again(self) -> None:
        """
        What came meanwhile is counted at once.
        """
        self.accept()
        self.in_use = 800
        self.clock.advance(0.25)
        self.in_use = 950
        self.accept()
        self.assertEqual((self.in_use, self.descriptors.pauses), (951, 2))

    def test_none_at_all(self) -> None:
        """
        Where the system has none left, whatever is counted here, it is tried
        again a moment later.
        """
        self.descriptors.pause("Too many open files in system")
        self.assertTrue(self.descriptors.paused)
        self.clock.advance(0.25)
        self.assertFalse(self.descriptors.paused)

    def test_no_limit(self) -> None:
        """
        Where there is no limit nothing is counted.
        """
        self.limit = None
        self.descriptors.look()
        self.assertFalse(self.descriptors.paused)
        self.assertEqual(self.looks, 0)

    def test_limit_grows(self) -> None:
        """
        Somebody may give the process more while it waits.
        """
        self.accept()
        self.limit = 2000
        self.clock.advance(0.25)
        self.assertFalse(self.descriptors.paused)

    def test_said(self) -> None:
        """
        That it stops, and that it goes on, is said once in ten seconds.
        """
        said = self.said()
        for _ in range(41):  # a quarter of a second each
            self.descriptors.pause("full")
            self.clock.advance(0.25)
        self.assertEqual(
            said,
            [
                "no connections are accepted for a while: full"
                " (10 of 1000 descriptors, 1 times since the start)",
                "connections are accepted again",
                "no connections are accepted for a while: full"
                " (10 of 1000 descriptors, 41 times since the start)",
                "connections are accepted again",
            ],
        )

    def test_close(self) -> None:
        """
        Closed, it looks no more.
        """
        self.descriptors.pause("full")
        self.descriptors.when_again(self.go_on)
        self.descriptors.close()
        self.descriptors.close()
        self.clock.advance(1)
        self.assertEqual((self.went_on, self.clock.getDelayedCalls()), ([], []))
