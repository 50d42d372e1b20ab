"""
TCP connections of Twisted whose events come from an edge-triggered watch.

L{EdgeConnection} is a transport like any other to its protocol.  It is put
into the watch once and taken out of it by being closed, so that a connection
that waits, pauses, or changes hands asks nothing of the kernel.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import sys
import termios
from collections.abc import Callable
from typing import Any

from twisted.internet import tcp
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import ConnectionDone, TimeoutError, getConnectError
from twisted.internet.interfaces import IDelayedCall, IListeningPort, IProtocol
from twisted.internet.main import CONNECTION_LOST
from twisted.logger import Logger
from twisted.python.failure import Failure

from relaytunnel.channel.edges import HANGUP, IN, LOST, OUT, EdgeWatch

__all__ = [
    "Address",
    "Attempt",
    "EdgeConnection",
    "PeekedConnection",
    "accept_with",
    "tune_socket",
    "unsent",
]

_TURN = 4
"""How often a connection is read, or written, before others have their turn."""
_ACCEPTED_PER_TURN = 16
_NO_MORE = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

_OPTIONS = [
    (level, getattr(socket, name), value)
    for level, name, value in (
        (socket.IPPROTO_TCP, "TCP_NODELAY", 1),
        (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
        (socket.IPPROTO_TCP, "TCP_KEEPIDLE", 60),
        (socket.IPPROTO_TCP, "TCP_KEEPINTVL", 10),
        (socket.IPPROTO_TCP, "TCP_KEEPCNT", 6),
    )
    if hasattr(socket, name)
]

_log = Logger()

Address = tuple[str, int]
"""An IP address and a port."""


def tune_socket(sock: socket.socket) -> None:
    """
    Set what every TCP socket of ours has: no Nagle delay, and keepalive after
    60 s.  One that listens hands it down to those that it accepts, on Linux.
    """
    for level, name, value in _OPTIONS:
        sock.setsockopt(level, name, value)


class EdgeConnection(tcp.Connection):
    """
    A connected TCP socket, as the transport of a protocol.

    @ivar peer: the other end's address and port.
    @ivar tuned: whether the options of our sockets are set already.
    @ivar hung_up: called when the peer has ended its direction, or reset,
        whether anybody reads or not.
    @ivar write_some: sends bytes in C{writeSomeData}'s stead.
    @ivar keeps: asked whether to keep the connection, for the time being,
        that would be lost for this reason.
    """

    hung_up: Callable[[int], None] | None = None
    write_some: Callable[[socket.socket, Any], int] | None = None
    keeps: Callable[[Failure], bool] | None = None
    logstr = "edges"
    _reading = True
    _writing = False
    _readable = False
    _hung = False

    def __init__(
        self,
        sock: socket.socket,
        protocol: IProtocol,
        edges: EdgeWatch,
        reactor: Any,
        peer: tuple[Any, ...],
        tuned: bool = False,
    ) -> None:
        """
        @param peer: the other end's address and port, as the kernel says it.
        @param tuned: whether the options of our sockets are set already.
        """
        super().__init__(sock, protocol, reactor)
        self._edges = edges
        self.peer = peer
        self.tuned = tuned
        self.connected = True
        edges.watch(sock.fileno(), self._happened)

    def getPeer(self) -> IPv4Address | IPv6Address:
        return _address(self.peer)

    def getHost(self) -> IPv4Address | IPv6Address:
        return _address(self.socket.getsockname())

    # What the watch calls.

    def _happened(self, events: int) -> None:
        if events & (HANGUP | LOST):
            self._hung = True
        if self._writing and events & (OUT | LOST):
            self._write()
        if events & (IN | LOST):
            self._readable = True
            if self._reading:
                self._read()
        if events & (HANGUP | LOST) and self.hung_up is not None and self.connected:
            self.hung_up(events)

    def tell_hangup(self, hung_up: Callable[[int], None]) -> None:
        """
        Call this from now on, and soon if it has happened already.
        """
        self.hung_up = hung_up
        if self._hung:
            self._edges.again(self._tell)

    def _tell(self) -> None:
        if self.connected and self.hung_up is not None:
            self.hung_up(HANGUP)

    def _read(self) -> None:
        for _ in range(_TURN):
            if not (self._reading and self._readable):
                return
            try:
                why: Any = self.doRead()
            except BaseException:
                _log.failure("a protocol failed")
                why = sys.exc_info()[1]
            if why:
                self._lose(why, True)
                return
        self._edges.again(self._read)

    def _write(self) -> None:
        for _ in range(_TURN):
            if not self._writing:
                return
            waits = len(self.dataBuffer) - self.offset + self._tempDataLen
            try:
                why: Any = self.doWrite()
            except BaseException:
                _log.failure("a protocol failed")
                why = sys.exc_info()[1]
            if why:
                self._lose(why, False)
                return
            if len(self.dataBuffer) - self.offset + self._tempDataLen == waits:
                return  # until there is room again
        self._edges.again(self._write)

    def _lose(self, why: Any, reading: bool) -> None:
        self.stopReading()
        if reading and isinstance(why, ConnectionDone):
            self.readConnectionLost(Failure(why))
        else:
            self.connectionLost(Failure(why))

    def doRead(self) -> Any:
        try:
            data = self.socket.recv(self.bufferSize)
        except BlockingIOError:
            self._readable = False
            return None
        except OSError:
            return CONNECTION_LOST
        if len(data) < self.bufferSize:
            self._readable = self._hung
        return self._dataReceived(data)

    def writeSomeData(self, data: Any) -> Any:
        if self.write_some is not None:
            return self.write_some(self.socket, data)
        return super().writeSomeData(data)

    def connectionLost(self, reason: Failure) -> None:
        if self.keeps is not None and self.keeps(reason):
            return
        if hasattr(self, "socket"):
            self._edges.closed(self.socket.fileno())
            self.hung_up = self.write_some = self.keeps = None
        super().connectionLost(reason)

    def surrender(self) -> tuple[socket.socket, bytes]:
        """
        Let go of the socket, for somebody else.  Its protocol hears nothing of
        it.

        @return: the socket, and what was written and has not left yet.
        """
        self._reading = self._writing = False
        self.producer = None
        self.connected, self.disconnected = False, True
        self.hung_up = self.write_some = self.keeps = None
        self.protocol = None  # type: ignore[assignment]
        return self.socket, self.waiting

    @property
    def waiting(self) -> bytes:
        """What was written and has not left yet."""
        if not self.dataBuffer and not self._tempDataBuffer:
            return b""
        return b"".join((self.dataBuffer[self.offset :], *self._tempDataBuffer))

    # What Twisted asks of the reactor elsewhere.

    def startReading(self) -> None:
        if not self._reading:
            self._reading = True
            if self._readable:
                self._edges.again(self._read)

    def stopReading(self) -> None:
        self._reading = False

    def startWriting(self) -> None:
        if not self._writing:
            self._writing = True
            self._edges.again(self._write)

    def stopWriting(self) -> None:
        self._writing = False


class PeekedConnection(EdgeConnection):
    """
    A connection whose protocol is asked about the first byte before it is
    read: C{starts_with(byte)} may take the connection over, and says so.
    """

    _known = False

    def doRead(self) -> Any:
        if not self._known:
            try:
                first = self.socket.recv(1, socket.MSG_PEEK)
            except BlockingIOError:
                self._readable = False
                return None
            except OSError:
                return CONNECTION_LOST
            self._known = True
            if first and self.protocol.starts_with(first):  # type: ignore[attr-defined]
                return None
        return super().doRead()


def _address(told: tuple[Any, ...]) -> IPv4Address | IPv6Address:
    kind = IPv4Address if len(told) == 2 else IPv6Address
    return kind("TCP", *told)


def accept_with(
    edges: EdgeWatch, port: IListeningPort, kind: type[EdgeConnection] = EdgeConnection
) -> None:
    """
    Let the connections that a TCP port accepts be L{EdgeConnection}s, where
    there is a watch.  The port is tuned already, and hands that down.
    """
    if edges.works and type(port) is tcp.Port:
        port.stopReading()
        edges.watch(port.fileno(), _Accepting(edges, port, kind).happened, IN)


class _Accepting:
    """
    Accepts for a port of Twisted's, some connections at a time.
    """

    def __init__(self, edges: EdgeWatch, port: tcp.Port, kind: type[EdgeConnection]) -> None:
        self._edges = edges
        self._port = port
        self._kind = kind

    def happened(self, events: int) -> None:
        """
        There is somebody to accept.
        """
        port = self._port
        for _ in range(_ACCEPTED_PER_TURN):
            if port.disconnecting or not port.connected:
                return
            try:
                sock, peer = port.socket.accept()
            except BlockingIOError:
                return
            except OSError as fault:
                if fault.errno in _NO_MORE:
                    port.doRead()  # Twisted has kept a descriptor for that
                continue
            self._begin(sock, peer)
        self._edges.again(self._go_on)

    def _go_on(self) -> None:
        self.happened(IN)

    def _begin(self, sock: socket.socket, peer: tuple[Any, ...]) -> None:
        try:
            factory: Any = self._port.factory
            protocol = factory.buildProtocol(_address(peer))
            if protocol is not None:
                reactor = self._port.reactor
                protocol.makeConnection(
                    self._kind(sock, protocol, self._edges, reactor, peer, True)
                )
                return
        except Exception:
            _log.failure("a connection was lost by our own fault")
        sock.close()


def unsent(sock: socket.socket) -> int:
    """
    @return: bytes that the peer's kernel has not acknowledged; 0 where this
        one does not tell.
    """
    if not hasattr(termios, "TIOCOUTQ"):
        return 0
    answer = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4))
    return int.from_bytes(answer, sys.byteorder)


class Attempt:
    """
    An attempt to connect to an IP address, with a protocol for the connection.
    """

    __slots__ = (
        "_address",
        "_alarm",
        "_edges",
        "_failed",
        "_make",
        "_protocol",
        "_reactor",
        "_sock",
    )

    def __init__(
        self,
        edges: EdgeWatch,
        reactor: Any,
        address: Address,
        protocol: IProtocol,
        failed: Callable[[Failure], None],
        make: Callable[[socket.socket], EdgeConnection] | None = None,
    ) -> None:
        """
        @param failed: called with why there is no connection.
        @param make: makes the transport, if it is to be any other than an
            L{EdgeConnection}.
        """
        self._make = make
        self._edges = edges
        self._reactor = reactor
        self._address = address
        self._protocol = protocol
        self._failed = failed
        self._sock: socket.socket | None = None
        self._alarm: IDelayedCall | None = None

    def begin(self, within: float) -> None:
        """
        Connect, within so many seconds.  On the same machine it is done, or has
        failed, when this returns.
        """
        try:
            family = socket.AF_INET6 if ":" in self._address[0] else socket.AF_INET
            sock = self._sock = socket.socket(family, socket.SOCK_STREAM)
            tune_socket(sock)
            sock.setblocking(False)
            code = sock.connect_ex(self._address)
            if code == errno.EINPROGRESS:
                code = sock.connect_ex(self._address)  # is it there by now?
        except OSError as fault:
            self._fail(fault)
            return
        if code in (0, errno.EISCONN):
            self._stand()
        elif code in (errno.EINPROGRESS, errno.EALREADY):
            self._alarm = self._reactor.callLater(within, self._too_late)
            self._edges.watch(sock.fileno(), self._happened, OUT)
        else:
            self._fail(OSError(code, os.strerror(code)))

    def cancel(self) -> None:
        """
        Give up, if it is not over; nobody is called.
        """
        if self._sock is not None:
            self._drop()
            self._let_go()

    def _happened(self, events: int) -> None:
        assert self._sock is not None
        code = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._fail(OSError(code, os.strerror(code)))
        elif events & OUT:
            self._stand()

    def _stand(self) -> None:
        sock, self._sock = self._sock, None
        assert sock is not None
        self._disarm()
        protocol, make, _ = self._let_go()
        if make is not None:
            transport = make(sock)
        else:
            transport = EdgeConnection(
                sock, protocol, self._edges, self._reactor, self._address, True
            )
        protocol.makeConnection(transport)

    def _let_go(self) -> tuple[IProtocol, Any, Callable[[Failure], None]]:
        """
        Whom it was for has it, too: leave no cycle for the collector.
        """
        found = self._protocol, self._make, self._failed
        del self._protocol, self._make, self._failed
        return found

    def _too_late(self) -> None:
        self._alarm = None
        self._drop()
        self._let_go()[2](Failure(TimeoutError()))

    def _fail(self, fault: OSError) -> None:
        self._drop()
        self._let_go()[2](Failure(getConnectError((fault.errno, fault.strerror))))

    def _drop(self) -> None:
        self._disarm()
        sock, self._sock = self._sock, None
        if sock is not None:
            self._edges.closed(sock.fileno())
            sock.close()

    def _disarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
