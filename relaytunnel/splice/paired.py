"""
The portable splice engine: each channel is the push producer of the other.

It joins any two L{relaytunnel.interfaces.IChannel}s.  What comes in on one is
written to the other, which pauses the first while its peer does not read, so
that no more than the transports' own buffers is ever held.
"""

from __future__ import annotations

from typing import Any

from zope.interface import implementer

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from relaytunnel.interfaces import (
    IChannelReceiver,
    IRunningSplice,
    ISpliceEngine,
    Lost,
    SpliceLimits,
)
from relaytunnel.splice.report import (
    CLEAN,
    CLOSED,
    HALF_CLOSED_IDLE,
    IDLE,
    SpliceReport,
)
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
        if self.ended:
            survivor.finish()
        else:
            survivor.reset()
        self._splice.over(f"{self.name} {why.value}")


@implementer(IRunningSplice)
class PairedSplice:
    """
    Two channels joined by producer/consumer pairing.
    """

    def __init__(
        self, first: object, second: object, limits: SpliceLimits, clock: IReactorTime
    ) -> None:
        self._limits = limits
        self._clock = clock
        self._began = self._moved_at = clock.seconds()
        self._moved = 0
        self._first = _Leg(self, first, "first")
        self._second = _Leg(self, second, "second")
        self._patience = limits.idle
        self._timer: IDelayedCall | None = clock.callLater(self._check_after(), self._check)
        self.done: Deferred[SpliceReport] = Deferred()

    def start(self) -> None:
        """
        Let the bytes flow.
        """
        first, second = self._first, self._second
        first.meet(second)
        second.meet(first)
        first.channel.attach(first)
        second.channel.attach(second)

    @property
    def forward(self) -> int:
        return self._first.count

    @property
    def backward(self) -> int:
        return self._second.count

    def close(self) -> None:
        if self._timer is not None:
            self._end_both(CLOSED)

    # What the legs say.

    def half_closed(self) -> None:
        """
        One direction has ended: less patience from now on.
        """
        if self._timer is not None and self._patience != self._limits.half_closed:
            self._patience = self._limits.half_closed
            self._moved_at = self._clock.seconds()
            self._timer.reset(self._check_after())

    def end_if_all_did(self) -> None:
        """
        Both directions have ended and were flushed: let go of the channels.
        """
        first, second = self._first, self._second
        if first.ended and second.ended and first.flushed and second.flushed:
            first.channel.close()
            second.channel.close()
            self.over(CLEAN)

    def over(self, reason: str) -> None:
        """
        The channels are taken care of: report.
        """
        if self._timer is None:
            return
        if self._timer.active():
            self._timer.cancel()
        self._timer = None
        self.done.callback(
            SpliceReport(self.forward, self.backward, reason, self._clock.seconds() - self._began)
        )

    # Quiet is measured by looking at the counters now and then, so that a byte
    # that moves pays nothing for it.

    def _check_after(self) -> float:
        return self._patience / 4

    def _check(self) -> None:
        now = self._clock.seconds()
        moved = self.forward + self.backward
        if moved != self._moved:
            self._moved = moved
            self._moved_at = now
        if now - self._moved_at >= self._patience:
            self._end_both(IDLE if self._patience == self._limits.idle else HALF_CLOSED_IDLE)
        else:
            self._timer = self._clock.callLater(self._check_after(), self._check)

    def _end_both(self, reason: str) -> None:
        for leg in (self._first, self._second):
            leg.channel.unregisterProducer()
        for leg in (self._first, self._second):
            leg.channel.reset()
        self.over(reason)


@implementer(ISpliceEngine)
class PairedEngine:
    """
    Makes L{PairedSplice}s.
    """

    name = "paired"

    def join(
        self, first: object, second: object, limits: SpliceLimits, clock: IReactorTime
    ) -> PairedSplice:
        splice = PairedSplice(first, second, limits, clock)
        splice.start()
        return splice
