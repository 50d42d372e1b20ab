"""
A data channel over TLS: sessions one after another, in frames.

L{DataChannel} is the connection, L{FramedStream} one session on it.  When a
session has ended in both directions the connection is idle and its owner
decides: park it for a later session, or close it.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from zope.interface import implementer

from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from relaytunnel.channel.edges import HANGUP, EdgeWatch, clean_end_before_reset
from relaytunnel.channel.lingering import Lingering
from relaytunnel.channel.sockets import EdgeConnection
from relaytunnel.channel.stream import FramedStream
from relaytunnel.channel.tcp import socket_of, tune, untaken
from relaytunnel.config.model import Limits
from relaytunnel.errors import ProtocolError
from relaytunnel.interfaces import Lost
from relaytunnel.wire.data import (
    EOF_FRAME,
    RESET_FRAME,
    STOP_FRAME,
    FrameReader,
    Kind,
    join_frame,
)

__all__ = ["DataChannel"]

_MOMENT = 0.25
"""Seconds from a reset that was seen while paused until it is acted upon."""


@implementer(IPushProducer)
class DataChannel(Protocol):
    """
    The connection that carries the frames.

    @ivar joining: called with this channel and a ticket when JOIN comes in
        while no session is on; C{None} where JOIN is not expected (the agent).
    @ivar idle: called with this channel when a session has ended cleanly, and
        a peer that was slow to read has taken what there was.
    @ivar lost: called with this channel when the connection is gone.
    @ivar released: whether the relay has let go of the session before, by what
        it has said (the agent).
    @ivar number: what its owner calls it.
    @ivar reader: makes frames of what comes in.
    """

    peer = ""
    number = 0
    released = True
    stream: FramedStream | None = None
    _congested = False
    _draining = False
    _stopping = False
    _stop_said = False
    _closing = False
    _gone = False
    _paused = False
    _watched = -1
    _alarm: IDelayedCall | None = None
    _parted: Callable[[], None] | None = None
    _lingering: Lingering | None = None

    def __init__(self, clock: IReactorTime, limits: Limits, edges: EdgeWatch | None) -> None:
        self._clock = clock
        self._limits = limits
        self._edges = edges
        self.reader = FrameReader()
        self.joining: Callable[[DataChannel, bytes], None] | None = None
        self.idle: Callable[[DataChannel], None] = DataChannel.close
        self.lost: Callable[[DataChannel], None] = lambda _: None

    @property
    def usable(self) -> bool:
        """
        Whether a session could begin now.
        """
        return not (self._closing or self._gone or self._stopping or self.stream)

    @property
    def silent(self) -> bool:
        """
        Whether nothing waits to be read, which on an idle channel could only
        be the news that it is over.
        """
        sock = socket_of(self.transport)
        if sock is None:
            return True
        try:
            sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def read_now(self) -> None:
        """
        Take in what has come, before the reactor says so.
        """
        if isinstance(self.transport, EdgeConnection):
            self.transport.read_now()

    def begin(self) -> FramedStream:
        """
        A session begins.

        @return: its stream.
        """
        self._draining = self._stop_said = self.released = False
        stream = self.stream = FramedStream(self)
        return stream

    def join(self, ticket: bytes) -> FramedStream:
        """
        Begin the session of this ticket (S10, at the agent).

        @return: its stream.
        """
        self.transport.write(join_frame(ticket))  # type: ignore[union-attr]
        return self.begin()

    def refuse(self) -> None:
        """
        The ticket joins nothing: reset the channel.
        """
        self.send_reset()

    def close(self, patience: float | None = None) -> None:
        """
        End the connection cleanly, whatever the peer does.

        @param patience: seconds until it is aborted; the close limit unless
            there is a reason to wait longer.
        """
        if not (self._closing or self._gone):
            self._closing = True
            self._arm(self._limits.close if patience is None else patience)
            transport: Any = self.transport
            transport.unregisterProducer()
            transport.loseConnection()
            self.resume()  # the peer's answer to the close has to be read

    def abort(self) -> None:
        """
        End the connection at once.
        """
        if not self._gone:
            self._closing = True
            transport: Any = self.transport
            transport.unregisterProducer()
            transport.abortConnection()

    # What a stream asks of its connection.

    def send_reset(self) -> None:
        """
        Tell the peer that the session is aborted, then wait for it to close.

        Where the peer has stopped reading, the transport itself is reset.
        What still comes in is discarded, so that nothing unread turns our end
        into a reset that would overtake what was sent.
        """
        self.stream = None
        if self._closing or self._gone:
            return
        if self._congested:
            self.abort()
            return
        self._part(self._limits.close)

    def send_rest(self, parted: Callable[[], None]) -> None:
        """
        Deliver what was written, our end included, and then say that the
        session is aborted, all within the linger limits.

        @param parted: called once, when the peer has answered that, or is gone.
        """
        if self._gone:
            self.stream = None
            parted()
            return
        self._parted = parted
        if self.joining is not None:
            self.send_stop(self._limits.linger)
        else:
            self.stream = None
            if not self._closing:
                self._part(self._limits.linger)
        if not self._gone:
            self._lingering = Lingering(
                self._clock, self._limits, lambda: untaken(self.transport), self._taken
            )
            self._lingering.look()

    def _taken(self, all_of_it: bool) -> None:
        self._lingering = None
        if not all_of_it:
            self.abort()

    def _has_parted(self) -> None:
        """
        Nothing is left of a session that was aborted behind its end.
        """
        parted, self._parted = self._parted, None
        if self._lingering is not None:
            self._lingering.stop()
            self._lingering = None
        if parted is not None:
            parted()

    def send_stop(self, within: float | None = None) -> None:
        """
        Tell the agent that a session is aborted whose end it has been sent.

        It may have ended it, too, and begun the next one: so the channel stays,
        and what comes in before the agent's end is discarded.

        @param within: seconds for the agent's end to come; the close limit if
            not given.
        """
        if self.joining is None:
            self.send_reset()
            return
        self.stream = None
        if self._closing or self._gone:
            return
        self._stopping = self._stop_said = True
        self._arm(self._limits.close if within is None else within)
        self.transport.write(STOP_FRAME)  # type: ignore[union-attr]
        self.resume()

    def _stopped(self, kind: Kind) -> None:
        """
        A frame has come in from an agent that has been told to stop.

        @raise ProtocolError: it may not come now.
        """
        if kind is Kind.EOF:
            self._stopping = False
            if self._alarm is not None:
                self._alarm.cancel()
                self._alarm = None
            self._has_parted()
            self.ended()
        elif kind is Kind.RESET:
            self.close()
        elif kind is not Kind.DATA:
            raise ProtocolError(f"a {kind.name} frame out of turn")

    @property
    def last_words(self) -> bytes:
        """
        What is said behind the last byte of a session whose other direction
        has ended, and has been passed on.
        """
        if self.joining is None:
            return EOF_FRAME
        self._stop_said = True
        return EOF_FRAME + STOP_FRAME

    def answer_stop(self, said: bool) -> None:
        """
        The relay has aborted the session: end it here, and keep the channel.

        @param said: whether our own end has been sent.
        """
        if not said:
            self.transport.write(EOF_FRAME)  # type: ignore[union-attr]
        self._drop_stream(Lost.RESET)
        self.released = True
        self.ended()

    def _part(self, within: float) -> None:
        self._closing = True
        self._arm(within)
        transport: Any = self.transport
        transport.unregisterProducer()
        transport.write(RESET_FRAME)
        self.resume()

    def pause(self) -> None:
        """
        Read nothing for the time being.
        """
        if not (self._paused or self._gone or self._closing):
            self._paused = True
            self.transport.pauseProducing()  # type: ignore[union-attr]
            self._watch()

    def resume(self) -> None:
        """
        Read again.
        """
        if self._paused and not self._gone:
            self._paused = False
            self.transport.resumeProducing()  # type: ignore[union-attr]

    def take_back(self, unsent: bytes) -> None:
        """
        An engine had the connection, and has done with it.

        @param unsent: what it could not send.
        """
        transport: Any = self.transport
        if unsent and not self._gone:
            self._congested = True
        transport.take_back(unsent)

    def ended(self) -> None:
        """
        The stream has ended in both directions.

        The relay says so (STOP) unless it has: before, what comes in may have
        had to wait for a client that is slow to read, and so would the next
        session's JOIN.
        """
        self.stream = None
        if self.joining is not None and not (self._stop_said or self._closing or self._gone):
            self._stop_said = True
            self.transport.write(STOP_FRAME)  # type: ignore[union-attr]
        self.resume()
        if self._congested:
            self._draining = True
        elif not (self._closing or self._gone):
            self.idle(self)

    # What the reactor calls.

    def connectionMade(self) -> None:
        transport: Any = self.transport
        tune(transport)
        address = transport.getPeer()
        self.peer = f"{getattr(address, 'host', 'unix')}:{getattr(address, 'port', '')}"
        transport.registerProducer(self, True)

    def dataReceived(self, data: bytes) -> None:
        if self._closing:
            return
        try:
            for kind, payload in self.reader.feed(data):
                self.take(kind, payload)
                if self._closing:
                    return
        except ProtocolError:
            self._drop_stream(Lost.TRUNCATED)
            self.abort()

    def take_behind(self, kind: Kind, payload: bytes) -> None:
        """
        A frame has come in with what an engine has read, behind the session
        that it read for.

        @raise ProtocolError: it may not come now.
        """
        if not self._closing:
            self.take(kind, payload)

    def take(self, kind: Kind, payload: bytes) -> None:
        """
        A frame has come in.

        @raise ProtocolError: it may not come now.
        """
        stream = self.stream
        if self._stopping:
            self._stopped(kind)
        elif kind is Kind.DATA and stream is not None and not stream.in_ended:
            stream.receiver.data_received(payload)
        elif kind is Kind.EOF and stream is not None and not stream.in_ended:
            stream.take_end()
        elif kind is Kind.RESET:
            self._drop_stream(Lost.RESET)
            self.close()
        elif kind is Kind.STOP and self.joining is None:
            if stream is None:
                self.released = True
            elif stream.in_ended:
                stream.stopped()
        elif kind is Kind.JOIN and stream is None and self.joining is not None:
            self.joining(self, payload)
        else:
            raise ProtocolError(f"a {kind.name} frame out of turn")

    def _drop_stream(self, why: Lost) -> None:
        stream, self.stream = self.stream, None
        if stream is not None:
            stream.lose(why)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._gone = True
        if self._watched >= 0 and self._edges is not None:
            self._edges.forget(self._watched)
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        self._has_parted()
        self._drop_stream(Lost.TRUNCATED)
        self.lost(self)

    # The transport's producer is always this channel, so that it knows whether
    # the peer reads; it passes the word on to whoever feeds the stream.

    def pauseProducing(self) -> None:
        self._congested = True
        if self.stream is not None and self.stream.producer is not None:
            self.stream.producer.pauseProducing()

    def resumeProducing(self) -> None:
        self._congested = False
        if self.stream is not None and self.stream.producer is not None:
            self.stream.producer.resumeProducing()
        if self._draining:
            self._draining = False
            if self.usable:
                self.idle(self)

    def stopProducing(self) -> None:
        """
        The transport is gone; C{connectionLost} says so.
        """

    @property
    def congested(self) -> bool:
        """
        Whether the peer does not take what we write at the moment.
        """
        return self._congested

    def _arm(self, seconds: float) -> None:
        if self._alarm is None:
            self._alarm = self._clock.callLater(seconds, self._abort_late)

    def _abort_late(self) -> None:
        self._alarm = None
        self.abort()

    def _watch(self) -> None:
        for transport in (self.transport, getattr(self.transport, "transport", None)):
            if isinstance(transport, EdgeConnection):
                transport.tell_hangup(self._hung_up)
                return
        sock = socket_of(self.transport)
        if self._edges is not None and sock is not None and sock.fileno() >= 0:
            self._watched = sock.fileno()
            self._edges.watch(self._watched, self._hung_up, HANGUP)

    def _hung_up(self, events: int) -> None:
        sock = socket_of(self.transport)
        if self._alarm is not None or not self._paused or sock is None:
            return
        # Whoever was paused for just this moment may take what came last.
        if clean_end_before_reset(sock) is False:
            self._alarm = self._clock.callLater(_MOMENT, self._reset_late)

    def _reset_late(self) -> None:
        self._alarm = None
        self._drop_stream(Lost.RESET)
        self.abort()
