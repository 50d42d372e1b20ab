"""
Tests for L{relaytunnel.relay.rates}.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import count

from hypothesis import given, settings
from hypothesis import strategies as st

from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.config.limits import Limits
from relaytunnel.relay import rates
from relaytunnel.relay.rates import NotifyRate, TokenBucket, forget_full


class TokenBucketTests(SynchronousTestCase):
    """
    So many a second, and a burst.
    """

    def taken(self, bucket: TokenBucket, now: float) -> int:
        """
        @return: how many can be taken at this time.
        """
        return next(number for number in count() if not self.take(bucket, now))

    def take(self, bucket: TokenBucket, now: float) -> bool:
        """
        Charge one, if there is one.
        """
        found = bucket.has(now)
        if found:
            bucket.charge(now)
        return found

    def test_burst(self) -> None:
        """
        At first the whole burst can be taken, and no more.
        """
        self.assertEqual(self.taken(TokenBucket(2, 5, now=0), 0), 5)

    def test_rate(self) -> None:
        """
        Then as many as the rate says.
        """
        bucket = TokenBucket(2, 5, now=0)
        self.taken(bucket, 0)
        self.assertEqual([self.taken(bucket, now) for now in (0.25, 0.5, 1.0, 2.0)], [0, 1, 1, 2])

    def test_refused_is_free(self) -> None:
        """
        A try that is refused costs nothing.
        """
        bucket = TokenBucket(1, 1, now=0)
        self.taken(bucket, 0)
        self.assertEqual(
            [self.take(bucket, tenth / 8) for tenth in range(1, 9)], [False] * 7 + [True]
        )

    def test_no_more_than_the_burst(self) -> None:
        """
        However long nobody came, no more than the burst can be taken.
        """
        bucket = TokenBucket(2, 5, now=0)
        self.taken(bucket, 0)
        self.assertEqual(self.taken(bucket, 1000), 5)

    def test_under_way(self) -> None:
        """
        Those under way do not count while nothing was charged; from then on they
        are expected to be charged, too.
        """
        bucket = TokenBucket(2, 5, now=0)
        self.assertTrue(bucket.has(0, 100))
        bucket.charge(0)
        self.assertEqual(
            [bucket.has(0, under_way) for under_way in range(5)], [True] * 4 + [False]
        )
        self.assertTrue(bucket.has(0.5, 100))

    def test_on_credit(self) -> None:
        """
        Those that were under way are charged whether there is any left or not,
        and that has to be made good.
        """
        bucket = TokenBucket(2, 5, now=0)
        for _ in range(9):
            bucket.charge(0)
        self.assertEqual([bucket.has(now) for now in (0, 2.0, 2.5)], [False, False, True])

    def test_full(self) -> None:
        """
        When all is made good it says what a new one would.
        """
        bucket = TokenBucket(2, 5, now=0)
        self.assertTrue(bucket.full(0))
        for _ in range(9):
            bucket.charge(0)
        self.assertEqual([bucket.full(now) for now in (0, 4.0, 4.5)], [False, False, True])

    def test_clock_set_back(self) -> None:
        """
        A clock that goes backwards gives nothing.
        """
        bucket = TokenBucket(2, 5, now=100)
        self.taken(bucket, 100)
        self.assertEqual(self.taken(bucket, 50), 0)

    @settings(deadline=None, max_examples=100)
    @given(st.lists(st.integers(0, 40), max_size=60), st.integers(1, 8), st.integers(1, 8))
    def test_bound(self, pauses: list[int], rate: int, burst: int) -> None:
        """
        In any time the burst and the rate's share of it are the most that is taken.
        """
        bucket = TokenBucket(rate, burst, now=0)
        now, taken = 0.0, 0
        for pause in pauses:
            now += pause / 16  # so that no sum is rounded
            taken += self.take(bucket, now)
            self.assertLessEqual(taken, burst + now * rate)


class NotifyRateTests(SynchronousTestCase):
    """
    The rate of a server, and what each source has of it.
    """

    def setUp(self) -> None:
        self.rate = NotifyRate(Limits(notify_rate=8, notify_burst=8), now=0)

    def charge(self, source: str, times: int) -> None:
        for _ in range(times):
            self.rate.charge(source, 0)

    def has(self, source: str, now: float = 0) -> bool:
        return self.rate.has(source, now, 0, 0)

    def test_share(self) -> None:
        """
        A source has a quarter; the others have the rest.
        """
        self.charge("a", 2)
        self.assertEqual([self.has("a"), self.has("b")], [False, True])
        self.charge("b", 6)
        self.assertFalse(self.has("c"))
        self.assertTrue(self.has("c", 0.125))
        self.assertEqual([self.has("a", now) for now in (0.25, 0.5)], [False, True])

    def test_under_way_of_others(self) -> None:
        """
        What others have under way counts for all, and not for one's share.
        """
        self.charge("a", 1)
        self.assertTrue(self.rate.has("a", 0, 6, 0))
        self.assertFalse(self.rate.has("a", 0, 7, 0))
        self.assertFalse(self.rate.has("a", 0, 6, 1))
        self.assertTrue(self.rate.has("b", 0, 6, 6))

    def test_forgotten(self) -> None:
        """
        What was made good is forgotten, of each source and in the end of all.
        """
        self.charge("a", 2)
        self.charge("b", 1)
        self.assertFalse(self.rate.full(0.5))
        self.assertEqual(list(self.rate._shares), ["a", "b"])
        self.assertTrue(self.rate.full(1.0))
        self.assertEqual(list(self.rate._shares), [])

    def test_debt_outlives_the_whole(self) -> None:
        """
        A source that is in debt is not forgotten because the server is not.
        """
        self.charge("a", 8)
        self.assertFalse(self.rate.full(1.5))
        self.assertFalse(self.has("a", 1.5))

    def test_bounded(self) -> None:
        """
        Of many sources those that were charged last are remembered.
        """
        self.patch(rates, "_MOST", 3)
        for source in "abcda":
            self.charge(source, 1)
        self.assertEqual(list(self.rate._shares), ["c", "d", "a"])

    def test_none(self) -> None:
        """
        Where there is nothing to forget, nothing is.
        """
        none: OrderedDict[str, NotifyRate] = OrderedDict()
        forget_full(none, 0)
        self.assertEqual(none, {})
