"""
A client's HTTP connection as the first channel of a splice, while the requests
on it are for one server.

Which requests those are is decided in L{relaytunnel.arrival.exchange}; here is
the channel that is held up meanwhile, and given back when the session ends and
the client does not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zope.interface import implementer

from relaytunnel.arrival import Exchange, Mode
from relaytunnel.arrival.head import Fault
from relaytunnel.channel.tcp import TCPChannel
from relaytunnel.deadlines import Deadline, Deadlines
from relaytunnel.interfaces import IChannel, IChannelReceiver, Lost

__all__ = ["HttpChannel"]


@implementer(IChannel, IChannelReceiver)
class HttpChannel:
    """
    A client channel whose requests are looked at as they pass.

    To the splice it is a channel; to the client's own channel it is the
    receiver.  When the next request is for another server, the splice sees the
    client's end and its loss, and the client's own channel goes back.

    @ivar peer: see L{IChannel}.
    """

    _receiver: Any = None
    _deadline: Deadline | None = None
    _leaving: TCPChannel | None = None
    _paused = False
    _full = False
    _ended = False
    _ended_told = False

    def __init__(
        self,
        channel: TCPChannel,
        exchange: Exchange,
        deadlines: Deadlines,
        patience: float,
        back: Callable[[TCPChannel, bytes, bool, bool], None],
        leave: Callable[[TCPChannel], None],
    ) -> None:
        """
        @param patience: seconds for a request's head to come in whole.
        @param back: takes the client's own channel back when the next request
            is for another session: with what is held, whether the client has
            ended behind it, and whether the head took too long.
        @param leave: ends the client's own channel behind what it was sent.
        """
        self._channel: TCPChannel | None = channel
        self._exchange = exchange
        self._deadlines = deadlines
        self._patience = patience
        self._back = back
        self._leave = leave
        self.peer = channel.peer

    # What the splice asks of the channel.

    def attach(self, receiver: object) -> None:
        self._receiver = receiver
        assert self._channel is not None
        self._channel.attach(self)

    def write(self, data: bytes) -> None:
        channel, exchange = self._channel, self._exchange
        if channel is None:
            return
        try:
            passed = exchange.server_says(data)
        except Fault:
            self._break()
            return
        if passed:
            channel.write(passed)
        mode = exchange.mode
        if mode is Mode.OVER:
            self._part(self._leave)
        elif exchange.can_leave:
            self._go_back()
        elif self._full and not exchange.stopped:
            self._go_on()

    def end(self) -> None:
        if self._channel is not None:
            said = self._exchange.server_ended()
            if said:
                self._channel.write(said)
            self._channel.end()
            if self._full:
                self._go_on()

    def reset(self) -> None:
        if self._channel is not None:
            self._let_go().reset()

    def finish(self) -> None:
        if self._channel is not None:
            self._let_go().finish()

    def deliver_and_reset(self, gone: Callable[[], None]) -> None:
        def left() -> None:
            self._leaving = None
            gone()

        if self._channel is None:
            gone()
        else:
            leaving = self._leaving = self._let_go()
            leaving.deliver_and_reset(left)

    def abort(self) -> None:
        if self._leaving is not None:
            self._leaving.abort()

    def close(self) -> None:
        if self._channel is not None:
            self._let_go().close()

    def registerProducer(self, producer: object, streaming: bool) -> None:
        if self._channel is not None:
            self._channel.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        if self._channel is not None:
            self._channel.unregisterProducer()

    def pauseProducing(self) -> None:
        self._paused = True
        self._hold_up()

    def resumeProducing(self) -> None:
        self._paused = False
        self._hold_up()

    def stopProducing(self) -> None:
        """
        The transport we feed is gone; its own channel says so.
        """

    # What comes from the client.

    def data_received(self, data: bytes) -> None:
        exchange = self._exchange
        try:
            passed = exchange.client_says(data)
        except Fault:
            self._break()
            return
        if passed:
            self._receiver.data_received(passed)
            if self._channel is None:
                return
        if exchange.stopped is not self._full:
            self._full = not self._full
            self._hold_up()
        if exchange.held or self._deadline is not None:
            self._look_at_held()

    def end_received(self) -> None:
        self._ended = True
        self._exchange.leave_if_begun()
        self._look_at_held()
        self._pass_end()

    def end_sent(self) -> None:
        self._receiver.end_sent()

    def channel_lost(self, why: Lost) -> None:
        receiver = self._receiver
        self._let_go()
        receiver.channel_lost(why)

    # What happens inside.

    def _hold_up(self) -> None:
        if self._channel is not None:
            if self._paused or self._full:
                self._channel.pauseProducing()
            else:
                self._channel.resumeProducing()

    def _look_at_held(self) -> None:
        """
        A part of a head is waited for, for so long; another session's request
        is not.
        """
        exchange = self._exchange
        if exchange.can_leave:
            self._go_back()
        elif not exchange.begun:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None
        elif self._deadline is None:
            self._deadline = self._deadlines.within(self._patience, self._too_late)

    def _too_late(self) -> None:
        self._deadline = None
        self._exchange.leave()
        if self._exchange.can_leave:
            self._go_back(late=True)
        else:
            self._full = True
            self._hold_up()

    def _go_on(self) -> None:
        """
        What was held may go on, and the client with it.
        """
        self._full = False
        self.data_received(b"")
        if self._channel is not None:
            self._hold_up()
            self._pass_end()

    def _pass_end(self) -> None:
        """
        The client's end goes on behind all that it has said.
        """
        exchange = self._exchange
        if self._channel is None or self._ended_told or not self._ended:
            return
        if not exchange.held:
            self._ended_told = True
            self._receiver.end_received()

    def _let_go(self) -> TCPChannel:
        """
        Have nothing to do with the client's own channel any more, nor with who
        decides: they have each other, and the collector seldom comes.
        """
        channel, self._channel, self._receiver = self._channel, None, None
        assert channel is not None
        self._exchange.close()
        del self._back, self._leave
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        return channel

    def _part(self, take: Callable[[TCPChannel], None]) -> None:
        """
        The session ends, and the client's own channel is taken care of.
        """
        receiver, channel = self._receiver, self._let_go()
        channel.unregisterProducer()
        if not self._ended_told:
            receiver.end_received()
        receiver.channel_lost(Lost.REROUTED)
        take(channel)

    def _go_back(self, late: bool = False) -> None:
        held, ended, back = self._exchange.held, self._ended, self._back
        self._part(lambda channel: back(channel, held, ended, late))

    def _break(self) -> None:
        """
        What has passed and what the other side makes of it may differ.
        """
        receiver, channel = self._receiver, self._let_go()
        channel.reset()
        receiver.channel_lost(Lost.RESET)
