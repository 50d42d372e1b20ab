"""
TCP connections of Twisted whose events come from an edge-triggered watch.

L{EdgeConnection} is a transport like any other to its protocol.  It is put
into the watch once and taken out of it by being closed, so that a connection
that waits, pauses, or changes hands asks nothing of the kernel.
"""

from __future__ import annotations

import contextlib
import fcntl
import socket
import struct
import sys
import termios
from collections.abc import Callable
from typing import Any

from twisted.internet import tcp
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IProtocol
from twisted.internet.main import CONNECTION_LOST
from twisted.logger import Logger
from twisted.python.failure import Failure

from relaytunnel.channel.edges import HANGUP, IN, LOST, OUT, EdgeWatch

__all__ = [
    "EdgeConnection",
    "PeekedConnection",
    "address_of",
    "cut_when_killed",
    "end_when_killed",
    "tune_socket",
    "unread",
    "unsent",
]

_TURN = 4
"""How often a connection is read, or written, before others have their turn."""

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

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_END_ON_CLOSE = struct.pack("ii", 0, 0)

_log = Logger()


def tune_socket(sock: socket.socket) -> None:
    """
    Set what every TCP socket of ours has: no Nagle delay, and keepalive after
    60 s.  One that listens hands it down to those that it accepts, on Linux.
    """
    for level, name, value in _OPTIONS:
        sock.setsockopt(level, name, value)


def cut_when_killed(sock: socket.socket) -> None:
    """
    Have the kernel reset the connection when it closes the socket, as it does
    if our process is killed.  Otherwise it sends an end, and what the peer has
    got until then looks like all there is.
    """
    with contextlib.suppress(OSError):  # it is gone already
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)


def end_when_killed(sock: socket.socket) -> None:
    """
    All was said: have the kernel deliver it, whatever becomes of our process.
    """
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _END_ON_CLOSE)


def unsent(sock: socket.socket) -> int:
    """
    @return: bytes that the peer's kernel has not acknowledged, an end counts
        as one; as if there always were one where ours does not tell.
    """
    if not hasattr(termios, "TIOCOUTQ"):
        return 1
    try:
        answer = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4))
    except OSError:
        return 1
    return int.from_bytes(answer, sys.byteorder)


def unread(sock: socket.socket) -> int:
    """
    @return: bytes that have come in and were not read; 0 where the kernel does
        not tell.
    """
    try:
        answer = fcntl.ioctl(sock.fileno(), termios.FIONREAD, bytes(4))
    except OSError:
        return 0
    return int.from_bytes(answer, sys.byteorder)


def address_of(told: tuple[Any, ...]) -> IPv4Address | IPv6Address:
    """
    @return: an address of the kernel's as Twisted has it.
    """
    kind = IPv4Address if len(told) == 2 else IPv6Address
    return kind("TCP", *told)


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
        return address_of(self.peer)

    def getHost(self) -> IPv4Address | IPv6Address:
        return address_of(self.socket.getsockname())

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

    def failed(self) -> None:
        """
        A method that the watch has called has raised.
        """
        if self.connected:
            self.connectionLost(Failure(CONNECTION_LOST))

    def read_now(self) -> None:
        """
        Take in what has come, before the watch says so.
        """
        self._readable = True
        self._read()

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
