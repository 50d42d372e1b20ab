"""
Tests of how long an agent waits before it dials again.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.agent.backoff import Backoff

modest = settings(deadline=None, max_examples=100)
chances = st.floats(0, 1)


class BackoffTests(SynchronousTestCase):
    """
    Full jitter, unless the relay says something else.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.chance = 1.0
        self.backoff = Backoff(self.clock.seconds, lambda: self.chance)

    def delays(self, number: int) -> list[float]:
        """
        @return: the next delays, one failure after the other.
        """
        return [self.backoff.delay() for _ in range(number)]

    def stay(self, seconds: float) -> None:
        """
        Be welcome at the relay for so long.
        """
        self.backoff.welcomed()
        self.clock.advance(seconds)

    def test_bounds(self) -> None:
        """
        The bound doubles from half a second, and stays at half a minute.
        """
        self.assertEqual(self.delays(9), [0.5, 1, 2, 4, 8, 16, 30, 30, 30])

    def test_full_jitter(self) -> None:
        """
        The delay may be anything from nothing to the bound.
        """
        found = []
        for self.chance in (0.0, 0.25, 0.5, 1.0):
            found.append(self.backoff.delay())
        self.assertEqual(found, [0, 0.25, 1, 4])

    def test_a_long_time(self) -> None:
        """
        However often the relay cannot be reached, the bound stays.
        """
        self.assertEqual(set(self.delays(5000)[6:]), {30})

    def test_healthy(self) -> None:
        """
        After a minute of health it starts over.
        """
        self.delays(5)
        self.stay(60)
        self.assertEqual(self.delays(2), [0.5, 1])

    def test_short_stay(self) -> None:
        """
        A relay that lets the agent in and loses it soon counts as failing.
        """
        self.delays(5)
        self.stay(59.5)
        self.assertEqual(self.delays(1), [16])

    def test_health_does_not_last(self) -> None:
        """
        The time without a control channel is not health.
        """
        self.delays(4)
        self.stay(1)
        self.delays(1)
        self.clock.advance(3600)
        self.assertEqual(self.delays(1), [16])

    def test_stays_do_not_add_up(self) -> None:
        """
        Two short stays are not one long one.
        """
        self.delays(3)
        self.stay(40)
        self.assertEqual(self.delays(1), [4])
        self.stay(40)
        self.assertEqual(self.delays(1), [8])

    def test_denied(self) -> None:
        """
        A relay that denies the agent is left alone for a minute to five.
        """
        found = []
        for self.chance in (0.0, 0.5, 1.0):
            self.backoff.denied(0)
            found.append(self.backoff.delay())
        self.assertEqual(found, [60, 180, 300])

    def test_retry_after(self) -> None:
        """
        If it says for how long, it is for that long at least, and for twice
        that at the most.
        """
        found = []
        for self.chance in (0.0, 0.5, 1.0):
            self.backoff.denied(10)
            found.append(self.backoff.delay())
        self.assertEqual(found, [10, 15, 20])

    def test_restarting(self) -> None:
        """
        After a planned restart the agents come back spread over the time that
        the relay gave.
        """
        found = []
        for self.chance in (0.0, 0.5, 1.0):
            self.backoff.restarting(8)
            found.append(self.backoff.delay())
        self.assertEqual(found, [0, 4, 8])

    def test_said_last(self) -> None:
        """
        What the relay said last is what counts.
        """
        self.backoff.restarting(8)
        self.backoff.denied(100)
        self.assertEqual(self.backoff.delay(), 200)

    def test_once(self) -> None:
        """
        What the relay said is good for one delay; then it goes on where it
        was.
        """
        self.delays(2)
        self.backoff.restarting(8)
        self.assertEqual(self.delays(3), [8, 2, 4])

    def test_asked_after_health(self) -> None:
        """
        Health counts even if the relay said something at its end.
        """
        self.delays(5)
        self.stay(60)
        self.backoff.restarting(8)
        self.assertEqual(self.delays(2), [8, 0.5])

    @modest
    @given(st.lists(chances, max_size=40))
    def test_never_too_long(self, draws: list[float]) -> None:
        """
        Whatever the dice say, no delay is below nothing or beyond its bound.
        """
        numbers = iter(draws)
        backoff = Backoff(self.clock.seconds, lambda: next(numbers))
        for failure in range(len(draws)):
            delay = backoff.delay()
            self.assertTrue(0 <= delay <= min(30, 0.5 * 2**failure))

    @modest
    @given(chances, st.floats(0, 86400))
    def test_never_before_retry_after(self, chance: float, retry_after: float) -> None:
        """
        An agent that was denied never comes before the time that the relay
        named.
        """
        backoff = Backoff(self.clock.seconds, lambda: chance)
        backoff.denied(retry_after)
        self.assertGreaterEqual(backoff.delay(), retry_after)

    def test_no_timers(self) -> None:
        """
        It looks at the clock and sets no alarms.
        """
        self.stay(60)
        self.delays(3)
        self.assertEqual(self.clock.getDelayedCalls(), [])
