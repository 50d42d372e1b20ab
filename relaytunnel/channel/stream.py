"""
One session on a data channel over TLS, as a channel of its own.

Whoever has it need not know that there is a connection beneath that carries
one session after the other; that is in L{relaytunnel.channel.framed}.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from zope.interface import implementer

from relaytunnel.channel.secure import TLSConnection
from relaytunnel.interfaces import IChannel, Lost
from relaytunnel.wire.data import EOF_FRAME, data_frames

if TYPE_CHECKING:
    from relaytunnel.channel.framed import DataChannel

__all__ = ["FramedStream"]


@implementer(IChannel)
class FramedStream:
    """
    One session on a data channel.

    @ivar in_ended: whether the peer's EOF has come.
    """

    receiver: Any = None
    producer: Any = None

    @property
    def lendable(self) -> bool:
        """
        Whether an engine could have the connection for this session.
        """
        return isinstance(self.channel.transport, TLSConnection) and not (
            self._over or self._out_ended or self.in_ended or self.channel.congested
        )

    def over(self) -> None:
        """
        The engine that had the connection has ended the session.
        """
        self._over = True
        self.producer = self.receiver = None

    def __init__(self, channel: DataChannel) -> None:
        self.channel = channel
        self.peer = channel.peer
        self.in_ended = False
        self._out_ended = False
        self._over = False

    def attach(self, receiver: object) -> None:
        self.receiver = receiver
        if self._out_ended:
            self.receiver.end_sent()

    def write(self, data: bytes) -> None:
        if not (self._over or self._out_ended):
            self.channel.transport.write(data_frames(data))  # type: ignore[union-attr]

    def end(self) -> None:
        if not (self._over or self._out_ended):
            self._out_ended = True
            last = self.channel.last_words if self.in_ended else EOF_FRAME
            self.channel.transport.write(last)  # type: ignore[union-attr]
            # Let go of the channel first: whoever hears that this was the last
            # end closes the stream, which would reset one that is still on.
            self._end_if_both()
            if self.receiver is not None:
                self.receiver.end_sent()

    def take_end(self) -> None:
        """
        The peer's EOF has come.
        """
        self.in_ended = True
        self.receiver.end_received()
        self._end_if_both()
        if not self._over:
            # Whoever held it up hears nothing of that any more, and behind an
            # end there is no data, but perhaps the news of a reset.
            self.channel.resume()

    def _end_if_both(self) -> None:
        if self.in_ended and self._out_ended and not self._over:
            self._over = True
            self.producer = None
            self.channel.ended()

    def lose(self, why: Lost) -> None:
        """
        The session is over, and not cleanly.
        """
        if not self._over:
            self._over = True
            self.producer = None
            if self.receiver is not None:
                self.receiver.channel_lost(why)

    def stopped(self) -> None:
        """
        The relay has aborted the session, after its end.
        """
        if not self._over:
            self.channel.answer_stop(self._out_ended)

    def reset(self) -> None:
        if not self._over:
            self._over = True
            self.producer = None
            if self._out_ended:
                self.channel.send_stop()
            else:
                self.channel.send_reset()

    def finish(self) -> None:
        self.deliver_and_reset(lambda: None)

    def deliver_and_reset(self, gone: Callable[[], None]) -> None:
        self.end()
        if self._over:
            gone()
        else:
            self._over = True
            self.producer = None
            self.channel.send_rest(gone)

    def abort(self) -> None:
        self.channel.abort()

    def close(self) -> None:
        """
        Nothing to do: a stream that has ended both ways has let go already.
        """
        self.reset()

    def registerProducer(self, producer: object, streaming: bool) -> None:
        if not self._over:
            self.producer = producer
            if self.channel.congested:
                self.producer.pauseProducing()

    def unregisterProducer(self) -> None:
        self.producer = None

    def pauseProducing(self) -> None:
        if not (self._over or self.in_ended):
            self.channel.pause()

    def resumeProducing(self) -> None:
        if not self._over:
            self.channel.resume()

    def stopProducing(self) -> None:
        """
        The transport we feed is gone; its own channel says so.
        """
