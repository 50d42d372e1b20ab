"""
How often an agent may be notified of clients that come to nothing.

Pure state; the time is given.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeVar

from relaytunnel.config.limits import Limits

__all__ = ["NotifyRate", "TokenBucket", "forget_full"]

_MOST = 4096
"""Rates, or shares of one, that are remembered."""
_SHARES = 4
"""One source has one of so many shares of a server's notifications."""


class TokenBucket:
    """
    So many a second, and a burst.
    """

    __slots__ = ("_burst", "_level", "_rate", "_then")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = self._level = float(burst)
        self._then = now

    def _fill(self, now: float) -> float:
        self._level = min(self._burst, self._level + max(0.0, now - self._then) * self._rate)
        self._then = now
        return self._level

    def full(self, now: float) -> bool:
        """
        Whether nothing was charged lately.
        """
        return self._fill(now) >= self._burst

    def has(self, now: float, under_way: int = 0) -> bool:
        """
        @param under_way: how many have begun that may yet be charged; they do
            not count while nothing was charged lately.
        @return: whether one more is within the rate.
        """
        level = self._fill(now)
        return level >= self._burst or level - under_way >= 1

    def charge(self, now: float) -> None:
        """
        Take one, on credit if there is none.
        """
        self._level = self._fill(now) - 1


class NotifyRate:
    """
    The rate of one server: for all its clients, and a share for each source, so
    that one that comes and goes does not keep the others away.
    """

    __slots__ = ("_limits", "_shares", "_whole")

    def __init__(self, limits: Limits, now: float) -> None:
        self._limits = limits
        self._whole = TokenBucket(limits.notify_rate, limits.notify_burst, now)
        self._shares: OrderedDict[str, TokenBucket] = OrderedDict()

    def has(self, source: str, now: float, under_way: int, of_source: int) -> bool:
        """
        @param under_way: notifications of this server that have no answer yet.
        @param of_source: those of them that are of this source.
        @return: whether one more client of this source may be notified.
        """
        share = self._shares.get(source)
        return self._whole.has(now, under_way) and (share is None or share.has(now, of_source))

    def charge(self, source: str, now: float) -> None:
        """
        A notification has come to nothing.
        """
        self._whole.charge(now)
        shares = self._shares
        if source not in shares:
            limits = self._limits
            burst = max(1.0, limits.notify_burst / _SHARES)
            shares[source] = TokenBucket(limits.notify_rate / _SHARES, burst, now)
        shares.move_to_end(source)
        shares[source].charge(now)
        forget_full(shares, now)

    def full(self, now: float) -> bool:
        """
        Whether nothing was charged lately, to any source.
        """
        forget_full(self._shares, now)
        return self._whole.full(now) and not self._shares


_R = TypeVar("_R", TokenBucket, NotifyRate)


def forget_full(rates: OrderedDict[str, _R], now: float) -> None:
    """
    Forget those that were not charged lately: they say what new ones would.

    @param rates: what was charged last stands last.
    """
    while rates and (len(rates) > _MOST or next(iter(rates.values())).full(now)):
        rates.popitem(last=False)
