"""
The portable splice engine: each channel is the push producer of the other.

It joins any two L{relaytunnel.interfaces.IChannel}s.  What comes in on one is
written to the other, which pauses the first while its peer does not read, so
that no more than the transports' own buffers is ever held.
"""

from __future__ import annotations

from typing import Any

from zope.interface import implementer

from twisted.internet.interfaces import IReactorTime

from relaytunnel.interfaces import IChannelReceiver, ISpliceEngine, Lost, SpliceLimits
from relaytunnel.splice.report import CLEAN
from relaytunnel.splice.running import Round, Rounds, RunningSplice, Total
from relaytunnel.steps import happened

__all__ = ["PairedEngine", "PairedSplice"]


@implementer(IChannelReceiver)
class _Leg:
    """
    What comes in on one channel, on its way to the other.

    @ivar count: bytes taken from this channel so far.
    """

    __slots__ = ("_splice", "channel", "count", "ended", "flushed", "name", "other", "write")

    other: _Leg

    def __init__(self, splice: PairedSplice, channel: Any, name: str) -> None:
        self._splice = splice
        self.channel = channel
        self.name = name
        self.count = 0
        self.ended = False
        self.flushed = False

    def meet(self, other: _Leg) -> None:
        self.other = other
        self.write = other.channel.write
        other.channel.registerProducer(self.channel, True)

    def let_go(self) -> None:
        """
        The splice is over: take the rings apart that legs, channels and splice
        make, since the collector seldom comes.
        """
        del self.other, self.write, self.channel, self._splice

    def data_received(self, data: bytes) -> None:
        self.count += len(data)
        self.write(data)

    def end_received(self) -> None:
        self.ended = True
        happened("end", self.name)
        self.other.channel.unregisterProducer()
        self._splice.half_closed()
        self.other.channel.end()

    def end_sent(self) -> None:
        self.flushed = True
        self._splice.end_if_all_did()

    def channel_lost(self, why: Lost) -> None:
        # Unregister before anything else: a survivor that the lost channel had
        # paused would stay in neither the reactor's readers nor its writers.
        survivor = self.other.channel
        survivor.unregisterProducer()
        splice = self._splice
        if self.ended:
            splice.leaving(survivor)
            survivor.deliver_and_reset(lambda: splice.left(survivor))
        else:
            survivor.reset()
        splice.over(f"{self.name} {why.value}")


class PairedSplice(RunningSplice):
    """
    Two channels joined by producer/consumer pairing.
    """

    __slots__ = ("_legs",)

    first: _Leg | Total
    second: _Leg | Total
    _legs: tuple[_Leg, ...]

    def __init__(self, round_: Round, first: object, second: object) -> None:
        super().__init__(round_)
        self.first = one = _Leg(self, first, "first")
        self.second = two = _Leg(self, second, "second")
        self._legs = (one, two)

    def start(self) -> None:
        """
        Let the bytes flow.
        """
        first, second = self._legs
        first.meet(second)
        second.meet(first)
        for leg in (first, second):
            if self.running:
                leg.channel.attach(leg)

    def end_if_all_did(self) -> None:
        """
        Both directions have ended and were flushed: let go of the channels.
        """
        if all(leg.ended and leg.flushed for leg in self._legs):
            for leg in self._legs:
                leg.channel.close()
            self.over(CLEAN)

    def over(self, reason: str) -> None:
        if self.running:
            legs, self._legs = self._legs, ()
            self.first, self.second = Total(self.first.count), Total(self.second.count)
            super().over(reason)
            for leg in legs:
                leg.let_go()

    def _end_both(self) -> None:
        for leg in self._legs:
            leg.channel.unregisterProducer()
        for leg in self._legs:
            leg.channel.reset()


@implementer(ISpliceEngine)
class PairedEngine:
    """
    Makes L{PairedSplice}s.
    """

    name = "paired"

    def __init__(self) -> None:
        self._rounds = Rounds()

    def join(
        self, first: object, second: object, limits: SpliceLimits, clock: IReactorTime
    ) -> PairedSplice:
        splice = PairedSplice(self._rounds.of(limits, clock), first, second)
        splice.start()
        return splice
