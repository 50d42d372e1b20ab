"""
A channel that is a plain TCP (or UNIX) connection: FIN is the end, RST a reset.

Who is at the other end, and what the bytes mean, is not known here.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from zope.interface import implementer

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IDelayedCall,
    IHalfCloseableProtocol,
    IReactorTime,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.tcp import Connection
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure

from relaytunnel.channel.edges import HANGUP, EdgeWatch, clean_end_before_reset
from relaytunnel.channel.holding import Holding
from relaytunnel.channel.lingering import Lingering
from relaytunnel.channel.sockets import (
    EdgeConnection,
    cut_when_killed,
    end_when_killed,
    tune_socket,
    unread,
    unsent,
)
from relaytunnel.config.model import Limits
from relaytunnel.interfaces import IChannel, Lost

__all__ = ["Released", "TCPChannel", "socket_of", "tune", "untaken"]

_USER_TIMEOUT_MS = 60_000
_MOST_AT_ONCE = 128 * 1024


def tune(transport: object, always_read: bool = False) -> None:
    """
    Set what every TCP connection of ours has, if there is a socket under this
    transport: no Nagle delay, and keepalive after 60 s.

    @param always_read: whether the other end reads all the time, as on a
        control channel.  It is dead then if it acknowledges nothing for 60 s
        (RFC 5482).  Elsewhere that would be the end of a reader that takes a
        pause: Linux counts the time of a closed window, too.
    """
    if isinstance(transport, EdgeConnection) and transport.tuned and not always_read:
        return
    sock = socket_of(transport)
    if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
        if not sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY):
            tune_socket(sock)  # else Linux has handed it down from the port
        if always_read and hasattr(socket, "TCP_USER_TIMEOUT"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _USER_TIMEOUT_MS)


def socket_of(transport: object) -> socket.socket | None:
    """
    @return: the socket under a transport, through any wrappers, if there is one.
    """
    while isinstance(transport, TLSMemoryBIOProtocol):
        transport = transport.transport
    found = getattr(transport, "socket", None)
    return found if isinstance(found, socket.socket) else None


def untaken(transport: object) -> int:
    """
    @return: how many bytes the peer's kernel has not acknowledged, as far as is
        known.
    """
    while isinstance(transport, TLSMemoryBIOProtocol):
        transport = transport.transport
    waits = 0
    if isinstance(transport, Connection):
        waits = len(transport.dataBuffer) - transport.offset + transport._tempDataLen
    sock = socket_of(transport)
    return waits if sock is None or sock.fileno() < 0 else waits + unsent(sock)


@dataclass(slots=True)
class Released:
    """
    A connection that its channel has let go of, in the hands of an engine.

    @ivar held: what has come in and nobody has taken.
    @ivar ended: whether the peer's end has been read behind it.
    @ivar unsent: what was written and has not left yet.
    """

    sock: socket.socket
    held: bytes
    ended: bool
    unsent: bytes


@implementer(IChannel, IHalfCloseableProtocol)
class TCPChannel(Protocol):
    """
    One end of a session on a connection of its own.

    @ivar peer: the other end's C{host:port}.
    @ivar host: the other end's address alone, empty for a UNIX socket.
    @ivar holding: what holds the bytes that come in before C{attach}, from the
        time when it is connected.
    @ivar gone: called with this channel when its connection is closed, unless
        it was released.
    """

    # A channel exists once per session, so what starts the same stands here.
    peer = ""
    host = ""
    holding: Holding
    gone: Callable[[TCPChannel], object] | None = None
    _receiver: Any = None
    _over = False
    _in_ended = False
    _out_ended = False
    _out_flushed = False
    _deaf = False
    _broken = False
    _fin_came = False
    _paused = False
    _finishing = False
    _watched = -1
    _alarm: IDelayedCall | None = None
    _last_discard = 0.0
    _linger_until = 0.0
    _lingering: Lingering | None = None
    _left: Callable[[], None] | None = None

    def __init__(
        self,
        clock: IReactorTime,
        limits: Limits,
        edges: EdgeWatch | None,
        connected: Callable[[TCPChannel], None] | None = None,
    ) -> None:
        self._clock = clock
        self._limits = limits
        self._edges = edges
        self._connected = connected

    # What the reactor calls.

    def connectionMade(self) -> None:
        # Not before: one that is never connected would not let go of it.
        self.holding = self._receiver = Holding(self, self._limits.held)
        transport: Any = self.transport
        tune(transport)
        sock = socket_of(transport)
        if sock is not None:
            cut_when_killed(sock)
        if isinstance(transport, EdgeConnection):
            self.host, port = transport.peer[:2]
        else:
            address = transport.getPeer()
            self.host, port = getattr(address, "host", ""), getattr(address, "port", 0)
        self.peer = f"{self.host}:{port}" if self.host else "unix"
        self._hook(transport)
        connected, self._connected = self._connected, None
        if connected is not None:
            connected(self)

    def _hook(self, transport: Any) -> None:
        """
        Have a say in how the bytes are sent and when the connection is lost.
        """
        if isinstance(transport, EdgeConnection):
            transport.write_some = self._write_some
            transport.keeps = self._keeps
            return
        sock = getattr(transport, "socket", None)
        if isinstance(sock, socket.socket):
            lost = transport.connectionLost

            def lost_unless_kept(reason: Failure) -> None:
                if not self._keeps(reason):
                    lost(reason)

            transport.writeSomeData = partial(self._write_some, sock)
            transport.connectionLost = lost_unless_kept

    def _write_some(self, sock: socket.socket, data: bytes) -> int:
        """
        Let a broken pipe end the outgoing direction alone.

        A peer may have sent a last answer and gone, with our bytes unread (a
        server that turns an upload down): what it sent is still to be read.
        Whoever is told of a reset by C{send} is not told again by C{recv},
        which then reads an end: so remember which of the two it was.
        """
        if self._deaf:
            return len(data)
        try:
            return sock.send(memoryview(data)[:_MOST_AT_ONCE])
        except OSError as fault:
            if fault.errno in (errno.EAGAIN, errno.ENOBUFS):
                return 0
            self._deaf = True
            self._broken = fault.errno != errno.EPIPE and not self._fin_came
        if self._in_ended or (self._broken and self._paused):
            self._lose(Lost.RESET)
        if self._finishing:
            self._part()
        self._drain()
        return len(data)

    def _drain(self) -> None:
        """
        The peer is gone, and what it said last is still to be taken: wait for
        that no longer than for one that is being left.
        """
        sock = socket_of(self.transport)
        if self._over or self._lingering is not None or sock is None:
            return
        self._lingering = Lingering(
            self._clock,
            self._limits,
            lambda: unread(sock) + 1,
            lambda taken: self._lose(Lost.RESET),
        )
        self._lingering.look()

    def _keeps(self, reason: Failure) -> bool:
        """
        Keep a peer that has ended and then reset until its end was read.

        The reactor gives up a descriptor that is written to and not read as
        soon as it hangs up, with all that was sent before in the socket still.
        """
        if self._paused and not self._over and reason.check(ConnectionLost):
            sock = socket_of(self.transport)
            if sock is not None and clean_end_before_reset(sock):
                self._deaf = True
                self._drain()
            return self._deaf and not self._broken
        return False

    def dataReceived(self, data: bytes) -> None:
        if self._finishing:
            self._last_discard = self._clock.seconds()
        else:
            self._receiver.data_received(data)

    def readConnectionLost(self) -> None:
        self._in_ended = True
        if self._finishing:
            self._part_when_quiet()
        elif self._broken:
            self._lose(Lost.RESET)
        elif not self._over:
            self._watch()
            self._receiver.end_received()
            if self._deaf:
                self._lose(Lost.RESET)

    def writeConnectionLost(self) -> None:
        self._out_flushed = True
        self._all_said()
        if self._finishing:
            self._part_when_quiet()
            if self._lingering is not None:
                self._lingering.look()
        elif not (self._over or self._deaf):
            self._receiver.end_sent()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._watched >= 0 and self._edges is not None:
            self._edges.forget(self._watched)
            self._watched = -1
        if self._lingering is not None:
            self._lingering.stop()
            self._lingering = None
        if isinstance(self.transport, TLSMemoryBIOProtocol) and reason.check(ConnectionDone):
            self._tls_closed()
        if not self._over:
            self._over = True
            self._receiver.channel_lost(Lost.RESET)
        if self._alarm is not None:  # also that of a close upon the news
            self._alarm.cancel()
            self._alarm = None
        self.holding.take()
        self._unhook()
        gone, self.gone = self.gone, None
        if gone is not None:
            gone(self)
        left, self._left = self._left, None
        if left is not None:
            left()

    def _tls_closed(self) -> None:
        """
        A peer that speaks TLS has closed cleanly, which ends both directions.
        """
        if not (self._over or self._in_ended):
            self._in_ended = True
            self._receiver.end_received()

    # IChannel

    def attach(self, receiver: object) -> None:
        previous, self._receiver = self._receiver, receiver
        if previous is self.holding:
            self.holding.pour(self._receiver)

    def hold(self, held: bytes, ended: bool) -> None:
        """
        Hold what comes in until the next C{attach}, as at the beginning.

        @param held: what has come in and is for who will be attached.
        @param ended: whether the peer's end has come behind it.
        """
        self.holding = self._receiver = holding = Holding(self, self._limits.held)
        holding.held, holding.ended = held, ended
        self.resumeProducing()

    @property
    def releasable(self) -> bool:
        """
        Whether there is a bare socket that C{release} can give away.
        """
        return isinstance(self.transport, Connection) and not (
            self._over or self._out_ended or self._deaf or self._broken
        )

    def release(self) -> Released:
        """
        Give the connection away, to whoever moves the bytes from now on.
        Nobody hears of this channel again.
        """
        transport: Any = self.transport
        self._over = True
        if isinstance(transport, EdgeConnection):
            sock, unsent = transport.surrender()
        else:
            sock, unsent = self._take_from_reactor(transport)
        self.transport = self._receiver = None
        return Released(sock, self.holding.take(), self._in_ended, unsent)

    def _take_from_reactor(self, transport: Any) -> tuple[socket.socket, bytes]:
        transport.unregisterProducer()
        transport.stopReading()
        transport.stopWriting()
        self._unhook()
        transport.connected, transport.disconnected = False, True
        transport.protocol = None
        unsent = b"".join((transport.dataBuffer[transport.offset :], *transport._tempDataBuffer))
        return transport.socket, unsent

    def _unhook(self) -> None:
        """
        Leave no cycle for the collector.
        """
        for hooked in ("writeSomeData", "connectionLost"):
            vars(self.transport).pop(hooked, None)

    def write(self, data: bytes) -> None:
        if not (self._over or self._out_ended or self._deaf):
            self.transport.write(data)  # type: ignore[union-attr]

    def end(self) -> None:
        if not (self._over or self._out_ended):
            self._out_ended = True
            self._half_close()

    def reset(self) -> None:
        if not self._over:
            self._over = True
            self._push()
            self._abort()

    def close(self) -> None:
        if not self._over:
            self._over = True
            self._unregister()
            self._alarm = self._clock.callLater(self._limits.close, self._abort_late)
            self._all_said()
            self.transport.loseConnection()  # type: ignore[union-attr]

    def finish(self) -> None:
        if self._over:
            return
        self._over = self._finishing = True
        self.holding.take()  # for nobody
        self._unregister()
        now = self._clock.seconds()
        self._last_discard = now
        self._linger_until = now + self._limits.linger
        self._alarm = self._clock.callLater(self._limits.linger_idle, self._linger)
        if not self._out_ended:
            self._out_ended = True
            self._half_close()
        if not self._in_ended:
            self.transport.resumeProducing()  # type: ignore[union-attr]
        self._part_when_quiet()

    def deliver_and_reset(self, gone: Callable[[], None]) -> None:
        if self._over or self._deaf:
            self.reset()
            gone()
            return
        self._over = self._finishing = True
        self._unregister()
        self._left = gone
        self._lingering = Lingering(self._clock, self._limits, self._untaken, self._taken)
        if not self._out_ended:
            self._out_ended = True
            self._half_close()
        if not self._in_ended:
            self.transport.resumeProducing()  # type: ignore[union-attr]
        self._part_when_quiet()
        if self._lingering is not None:
            self._lingering.look()

    def abort(self) -> None:
        if self._lingering is not None:
            self._abort()

    def registerProducer(self, producer: object, streaming: bool) -> None:
        if not self._over:
            self.transport.registerProducer(producer, streaming)  # type: ignore[union-attr]

    def unregisterProducer(self) -> None:
        if not self._over:
            self._unregister()

    def pauseProducing(self) -> None:
        if not (self._over or self._in_ended or self._paused):
            self._paused = True
            self.transport.pauseProducing()  # type: ignore[union-attr]
            self._watch()

    def resumeProducing(self) -> None:
        if not (self._over or self._in_ended) and self._paused:
            self._paused = False
            self.transport.resumeProducing()  # type: ignore[union-attr]

    def stopProducing(self) -> None:
        """
        The transport we feed is gone; its own channel says so.
        """

    # What happens inside.

    def _unregister(self) -> None:
        """
        Take any producer off the transport, whatever state it is in.
        """
        self.transport.unregisterProducer()  # type: ignore[union-attr]

    def _all_said(self) -> None:
        sock = socket_of(self.transport)
        if sock is not None:
            end_when_killed(sock)

    def _half_close(self) -> None:
        transport: Any = self.transport
        if isinstance(transport, TLSMemoryBIOProtocol):
            # TLS as Twisted speaks it cannot end one direction alone: the end
            # is sent when the other one has come.
            self.writeConnectionLost()
        else:
            transport.loseWriteConnection()

    def _watch(self) -> None:
        if isinstance(self.transport, EdgeConnection):
            self.transport.tell_hangup(self._hung_up)
            return
        if self._edges is None:
            return
        if self._watched < 0:
            sock = socket_of(self.transport)
            if sock is None or sock.fileno() < 0:
                return
            self._watched = sock.fileno()
        self._edges.watch(self._watched, self._hung_up, HANGUP)

    def _hung_up(self, events: int) -> None:
        sock = socket_of(self.transport)
        if sock is None or self._over or not (self._paused or self._in_ended):
            return
        ended_first = clean_end_before_reset(sock)
        if ended_first is None:
            # Its end alone.  A reset behind it looks like any other once we
            # have ended too.
            self._fin_came = not self._broken
        elif self._in_ended or not (ended_first or self._fin_came):
            self._lose(Lost.RESET)
        else:
            self._deaf = True  # its last bytes, and its end, are still to be read
            self._drain()

    def _lose(self, why: Lost) -> None:
        if not self._over:
            self._over = True
            receiver = self._receiver
            self._abort()
            receiver.channel_lost(why)

    def _push(self) -> None:
        """
        Give the kernel what it takes at once of what was written.

        Of a peer that answered and is gone, the answer and the reset may have
        come in one turn of the reactor.
        """
        transport: Any = self.transport
        if not (self._out_ended or self._deaf) and hasattr(transport, "dataBuffer"):
            self._unregister()
            transport.doWrite()

    def _abort(self) -> None:
        transport: Any = self.transport
        self._unregister()
        transport.abortConnection()

    def _abort_late(self) -> None:
        self._alarm = None
        self._abort()

    def _untaken(self) -> int:
        """
        @return: how many bytes the peer's kernel has not taken.
        """
        return untaken(self.transport) + (not self._out_flushed)

    def _taken(self, all_of_it: bool) -> None:
        if self._out_flushed:
            self._part()
        else:
            self._abort()

    def _linger(self) -> None:
        now = self._clock.seconds()
        quiet_at = self._last_discard + self._limits.linger_idle
        if now < self._linger_until and (now < quiet_at or not self._out_flushed):
            later = self._linger_until if not self._out_flushed else quiet_at
            self._alarm = self._clock.callLater(
                max(0.0, min(later, self._linger_until) - now), self._linger
            )
            return
        self._alarm = None
        if self._out_flushed:
            self._part()
        else:
            self._abort()

    def _part_when_quiet(self) -> None:
        if self._in_ended and (self._out_flushed or self._deaf):
            self._part()

    def _part(self) -> None:
        """
        Nobody has heard what the peer said last, and a reset tells it so.
        """
        sock = socket_of(self.transport)
        if sock is not None and isinstance(self.transport, Connection) and not unsent(sock):
            self._abort()
        else:
            self.transport.loseConnection()  # type: ignore[union-attr]
