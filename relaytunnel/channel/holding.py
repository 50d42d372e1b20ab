"""
Holding what comes in on a channel until somebody takes it, within a bound.
"""

from __future__ import annotations

from collections.abc import Callable

from zope.interface import implementer

from twisted.internet.interfaces import IPushProducer

from relaytunnel.interfaces import IChannelReceiver, Lost

__all__ = ["Holding"]


@implementer(IChannelReceiver)
class Holding:
    """
    The receiver of a channel that has no other yet.

    @ivar held: the bytes, at most C{limit} and one read of the transport more.
    @ivar ended: whether the peer has ended its direction behind them.
    @ivar heard: called when bytes or the end came in.
    @ivar lost: called when the channel is lost.

    Channel and holding have each other, until one of C{pour}, C{take} and
    C{channel_lost}.
    """

    __slots__ = ("_channel", "_limit", "_paused", "ended", "heard", "held", "lost")

    def __init__(self, channel: IPushProducer, limit: int) -> None:
        self._channel: IPushProducer | None = channel
        self._limit = limit
        self._paused = False
        self.held = b""
        self.ended = False
        self.heard: Callable[[], None] | None = None
        self.lost: Callable[[Lost], None] | None = None

    def bound(self, limit: int) -> None:
        """
        Hold this many bytes before the channel is paused.
        """
        self._limit = limit
        if self._paused and len(self.held) < limit and self._channel is not None:
            self._paused = False
            self._channel.resumeProducing()
        self._pause_when_full()

    def replace(self, size: int, instead: bytes) -> None:
        """
        Hold this in place of the first bytes.

        @param size: how many they are.
        """
        if size or instead:
            self.held = instead + self.held[size:]

    def data_received(self, data: bytes) -> None:
        self.held += data
        self._pause_when_full()
        if self.heard is not None:
            self.heard()

    def _pause_when_full(self) -> None:
        if len(self.held) >= self._limit and not self._paused and self._channel is not None:
            self._paused = True
            self._channel.pauseProducing()

    def end_received(self) -> None:
        self.ended = True
        if self.heard is not None:
            self.heard()

    def end_sent(self) -> None:
        pass

    def channel_lost(self, why: Lost) -> None:
        lost = self.lost
        self.take()
        if lost is not None:
            lost(why)

    def take(self) -> bytes:
        """
        Hold nothing any more.

        @return: what was held.
        """
        self.heard = self.lost = self._channel = None
        held, self.held = self.held, b""
        return held

    def pour(self, receiver: IChannelReceiver) -> None:
        """
        Give everything to the receiver that has come, and let the channel flow.
        """
        channel = self._channel
        held = self.take()
        if self._paused and channel is not None:
            channel.resumeProducing()
        if held:
            receiver.data_received(held)
        if self.ended:
            receiver.end_received()
