"""
What both ends of a control channel share: framing, pings, a bounded send queue.

What the messages mean is decided by the session behind it, which knows no
transport.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from typing import Protocol as Named

from zope.interface import implementer

from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from relaytunnel.channel.tcp import tune
from relaytunnel.channel.workload import Allowance, Workload
from relaytunnel.config.model import Limits
from relaytunnel.config.names import printable
from relaytunnel.errors import Code, ProtocolError
from relaytunnel.wire.control import MAX_BODY, MessageReader, frame
from relaytunnel.wire.messages import Goodbye, Message, Ping, Pong, Register, Withdraw

__all__ = ["ControlChannel", "ControlSession"]

_WORTH = {Register: 8, Withdraw: 4}
"""What messages take, in units of a ping: they change names and ports, and are logged."""


class ControlSession(Named):
    """
    Who is behind a control channel.
    """

    def received(self, message: Message) -> None:
        """
        A message came in; pings are not among them.

        @raise ProtocolError: it may not be said now.
        """

    def lost(self, reason: str) -> None:
        """
        The channel is gone.  Called once.
        """


@implementer(IPushProducer)
class ControlChannel(Protocol):
    """
    One end of the control channel, over TLS.

    @ivar peer: the other end's address.
    @ivar why_lost: once it is gone, why.
    """

    _log = Logger()

    peer = ""
    why_lost = ""
    _session: ControlSession | None = None
    _why = ""
    _congested = False
    _queued = 0
    _closing = False
    _gone = False
    _alarm: IDelayedCall | None = None
    _pulse: IDelayedCall | None = None
    _ping_number = 0

    _unread: Iterator[Message] | None = None

    def __init__(
        self, clock: IReactorTime, limits: Limits, workload: Workload | None = None
    ) -> None:
        """
        @param workload: where those with much to say take turns; one of its own
            for a channel that has no like.
        """
        self._clock = clock
        self._limits = limits
        self._workload = workload or Workload(clock)
        self._allowance = Allowance(clock)
        self.credit = self._workload.new_credit()
        self._reader = MessageReader()
        self._heard_at = clock.seconds()

    def serve(self, session: ControlSession) -> None:
        """
        Give what comes in to this session.
        """
        self._session = session

    def authenticated(self, ping: float) -> None:
        """
        The other end is known: take full-sized messages, and ping it.

        @param ping: seconds between two pings.
        """
        self._reader.max_body = MAX_BODY
        self._ping_every = ping
        # The other end may have been told to ping less often than we expect.
        self._dead_after = max(self._limits.dead, 3 * ping)
        self._heard_at = self._clock.seconds()
        self._pulse = self._clock.callLater(ping, self._ping)

    def send(self, message: Message) -> None:
        """
        Send a message, unless the channel is closing.  A peer that does not
        read while more than the send queue's bound piles up is disconnected.
        """
        if self._closing or self._gone:
            return
        data = frame(message)
        if self._congested:
            self._queued += len(data)
            if self._queued > self._limits.send_queue:
                self.abort("the other end does not read")
                return
        self.transport.write(data)  # type: ignore[union-attr]

    def close(self, why: str) -> None:
        """
        Deliver what was sent and close, within the close limit.
        """
        if self._closing or self._gone:
            return
        self._closing = True
        self._why = why
        transport: Any = self.transport
        if self._unread is not None:
            self._forget_unread()
            transport.resumeProducing()  # for the other end's part of the close
        transport.unregisterProducer()
        self._alarm = self._clock.callLater(self._limits.close, self._abort_late)
        transport.loseConnection()

    def abort(self, why: str) -> None:
        """
        Close at once.
        """
        if not self._gone:
            self._closing = True
            self._forget_unread()
            self._why = self._why or why
            transport: Any = self.transport
            transport.unregisterProducer()
            transport.abortConnection()

    def _abort_late(self) -> None:
        self._alarm = None
        self.abort(self._why)

    # What the reactor calls.

    def connectionMade(self) -> None:
        transport: Any = self.transport
        tune(transport, always_read=True)
        address = transport.getPeer()
        self.peer = f"{getattr(address, 'host', 'unix')}:{getattr(address, 'port', '')}"
        transport.registerProducer(self, True)

    def dataReceived(self, data: bytes) -> None:
        if self._closing:
            return
        self._heard_at = self._clock.seconds()
        if self._unread is not None:
            self._reader.add(data)  # what the transport had read by then
            return
        self._unread = self._reader.feed(data)
        own, of_all = self._allowance, self._workload.allowance
        took, more = self._take_some(min(own.left(), of_all.left()))
        own.spend(took)
        of_all.spend(took)
        if more:
            self.transport.pauseProducing()  # type: ignore[union-attr]
            self._workload.add(self)

    def work(self, units: int) -> tuple[int, bool]:
        """
        Take some of what has come in and is more than the allowance.
        """
        self._heard_at = self._clock.seconds()
        took, more = self._take_some(units)
        if not (more or self._closing):
            self.transport.resumeProducing()  # type: ignore[union-attr]
        return took, more

    def _take_some(self, units: float) -> tuple[int, bool]:
        """
        Take messages until they are worth so many units.

        @return: how many they were worth, and whether there may be more.
        """
        unread = self._unread
        assert unread is not None
        took = 0
        try:
            while took < units:
                message = next(unread, None)
                if message is None:
                    break
                took += _WORTH.get(type(message), 1)
                self._take(message)
                if self._closing:
                    break
            else:
                return took, True
        except ProtocolError as fault:
            self._report(
                "{peer} broke the protocol of the control channel: {fault}",
                peer=self.peer,
                fault=printable(str(fault)),
            )
            self.send(Goodbye(code=Code.PROTOCOL_ERROR.value, reason=str(fault)[:256]))
            self.close(f"protocol error: {fault}")
        self._unread = None
        return took, False

    def _report(self, format: str, **fields: object) -> None:  # noqa: A002
        """
        Write that the other end is at fault.
        """
        self._log.warn(format, **fields)

    def _forget_unread(self) -> None:
        if self._unread is not None:
            self._unread = None
            self._workload.remove(self)

    def _take(self, message: Message) -> None:
        if isinstance(message, Ping):
            self.send(Pong(number=message.number))
        elif isinstance(message, Pong):
            if message.number > self._ping_number:
                raise ProtocolError("a pong that answers no ping")
        elif self._session is not None:
            self._session.received(message)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._gone = True
        for timer in (self._alarm, self._pulse):
            if timer is not None and timer.active():
                timer.cancel()
        self._alarm = self._pulse = None
        self._forget_unread()
        self.why_lost = self._why or describe_loss(reason)
        session, self._session = self._session, None
        if session is not None:
            session.lost(self.why_lost)

    def _ping(self) -> None:
        silent = self._clock.seconds() - self._heard_at
        if silent >= self._dead_after:
            self._pulse = None
            self.abort(f"nothing was heard for {silent:.0f} s")
            return
        self._pulse = self._clock.callLater(self._ping_every, self._ping)
        self._ping_number += 1
        self.send(Ping(number=self._ping_number))

    def pauseProducing(self) -> None:
        self._congested = True

    def resumeProducing(self) -> None:
        self._congested = False
        self._queued = 0

    def stopProducing(self) -> None:
        """
        The transport is gone; C{connectionLost} says so.
        """


def describe_loss(reason: Failure) -> str:
    """
    @return: why a connection was lost, in words for a log line.
    """
    fault = reason.value
    if fault is None:
        return "lost"
    details = fault.args[0] if fault.args else ""
    if isinstance(details, list):  # OpenSSL's error queue
        return "; ".join(str(entry[-1]) for entry in details if entry) or "TLS failure"
    return reason.getErrorMessage()
