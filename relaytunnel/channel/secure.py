"""
TLS over a socket that OpenSSL reads and writes itself.

Twisted's own TLS goes through memory: each byte is copied twice more, and a
peer's close_notify ends both directions.  Here OpenSSL has the socket, the two
directions end independently (RFC 8446, section 6.1), and an end without
close_notify is an error, never a clean end.
"""

from __future__ import annotations

import contextlib
from typing import Any

from OpenSSL import SSL
from zope.interface import implementer

from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IHandshakeListener,
    INegotiated,
    IProtocol,
)
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.ssl import Certificate
from twisted.python.failure import Failure

from relaytunnel.channel.edges import LOST, EdgeWatch
from relaytunnel.channel.records import RECORD, forget_errors, receiver, sender
from relaytunnel.channel.sockets import EdgeConnection

__all__ = ["TLSConnection"]

_AT_ONCE = 64 * 1024
_DISCARDED_PER_TURN = 16


@implementer(INegotiated)
class TLSConnection(EdgeConnection):
    """
    A connected TCP socket with TLS, as the transport of a protocol.

    The protocol is connected before the handshake, and hears of its end if it
    is an L{IHandshakeListener}.  C{loseWriteConnection} sends close_notify and
    the peer may go on; C{loseConnection} sends it and waits for the peer's,
    without a limit of its own.

    @ivar connection: OpenSSL's end of it, with the socket inside.
    @ivar send_record: writes like C{connection.send}.
    """

    _established = False
    _read_ended = False
    _write_ended = False
    _parting = False
    _tls_broken = False
    _peers: tuple[Any, Any] = (None, None)

    def __init__(
        self,
        connection: SSL.Connection,
        sock: Any,
        protocol: IProtocol,
        edges: EdgeWatch,
        reactor: Any,
        peer: tuple[Any, ...],
        tuned: bool = False,
    ) -> None:
        """
        @param connection: made for this socket, with its role set.
        """
        self.connection = connection
        super().__init__(sock, protocol, edges, reactor, peer, tuned)
        self._recv, self.send_record = receiver(connection), sender(connection)
        # A client speaks first; a server finds out that there is nothing yet.
        edges.again(self._read)
        self._readable = True

    @property
    def negotiatedProtocol(self) -> bytes | None:
        return self.connection.get_alpn_proto_negotiated() or None

    def getPeerCertificate(self) -> Any:
        found = self.connection.get_peer_certificate()
        return None if found is None else Certificate(found)

    def _happened(self, events: int) -> None:
        if events & LOST and self._established:
            # OpenSSL reads nothing any more once it could not write, and the
            # peer may have answered before it went.
            self._tls_broken = True
        super()._happened(events)

    # In

    def doRead(self) -> Any:
        try:
            if not self._established and not self._shake():
                return None
            if self._parting:
                return self._discard()
            data = self._recv(RECORD)
            if len(data) < RECORD - 1024:
                return self._dataReceived(data)
            parts = [data]
            return self._gather(parts)
        except (SSL.WantReadError, SSL.WantWriteError):
            self._readable = False
            return None
        except SSL.Error as fault:
            return self._failed(fault)

    def _gather(self, parts: list[bytes]) -> Any:
        """
        Read some more records, of a peer that has much to say.
        """
        size = len(parts[0])
        why = None
        try:
            while size < _AT_ONCE:
                parts.append(self._recv(RECORD))
                size += len(parts[-1])
        except (SSL.WantReadError, SSL.WantWriteError):
            self._readable = False
        except SSL.Error as fault:
            why = fault
        result = self._dataReceived(b"".join(parts))
        if why is not None and not result and self.connected and self._reading:
            return self._failed(why)
        return result

    def _failed(self, fault: SSL.Error) -> Any:
        forget_errors()
        if isinstance(fault, SSL.ZeroReturnError):
            self._read_ended = True
            return CONNECTION_DONE
        self._tls_broken = True
        if isinstance(fault, SSL.SysCallError):
            return CONNECTION_LOST
        return fault

    def _shake(self) -> bool:
        """
        @return: whether the handshake is done and data may follow.
        """
        self.connection.do_handshake()
        self._established = True
        protocol = self.protocol
        if IHandshakeListener.providedBy(protocol):
            protocol.handshakeCompleted()
        if self._writing and self.connected:
            self._edges.again(self._write)
        return bool(self.connected and self._reading)

    def _discard(self) -> Any:
        for _ in range(_DISCARDED_PER_TURN):
            self._recv(RECORD)
        return None

    # Out

    def writeSomeData(self, data: Any) -> Any:
        if not self._established:
            return 0
        size = len(data)
        if self._tls_broken:
            return size
        sent = 0
        try:
            if 0 < size <= RECORD:
                sent = self.send_record(data)
            view = memoryview(data)
            while sent < size:
                sent += self.send_record(view[sent : sent + RECORD])
        except (SSL.WantWriteError, SSL.WantReadError):
            pass
        except SSL.Error:
            forget_errors()
            self._tls_broken = True
            return CONNECTION_LOST
        return sent

    def _close_notify(self) -> None:
        if self._established and not (self._write_ended or self._tls_broken):
            self._write_ended = True
            # One that finds no room is an end without close_notify to a peer
            # that does not read anyway.
            with contextlib.suppress(SSL.Error):
                self.connection.shutdown()
            forget_errors()

    def _closeWriteConnection(self) -> None:
        self._close_notify()
        half = IHalfCloseableProtocol(self.protocol, None)
        if half is not None:
            half.writeConnectionLost()

    def _postLoseConnection(self) -> Any:
        self._close_notify()
        if self._read_ended or self._tls_broken or not self._established:
            return CONNECTION_DONE
        self._parting = True
        self._reading = True
        self._readable = True
        self.stopWriting()
        self._edges.again(self._read)
        return None

    def loseConnection(self, _connDone: Failure | None = None) -> None:
        if self._parting:
            return
        super().loseConnection()

    def _lose(self, why: Any, reading: bool) -> None:
        if self._parting and why is CONNECTION_LOST:
            # It has gone without a farewell, after ours.
            why = CONNECTION_DONE
        if why is CONNECTION_DONE and self._parting:
            self.stopReading()
            self.connectionLost(Failure(why))
        else:
            super()._lose(why, reading)

    def connectionLost(self, reason: Failure) -> None:
        if hasattr(self, "socket") and reason.check(type(CONNECTION_DONE)):
            self._close_notify()
        super().connectionLost(reason)

    def stopReading(self) -> None:
        if not self._parting or not self.connected:
            super().stopReading()

    # Another may do the reading and writing for a while.

    def lend(self, happened: Any) -> bytes:
        """
        Let somebody else have the connection, who is told of its events.

        @return: what was written and has not left yet; it has to be sent first.
        """
        self._reading = self._writing = False
        unsent = self.waiting
        self.dataBuffer, self.offset = b"", 0
        self._tempDataBuffer, self._tempDataLen = [], 0
        self._edges.hand(self.socket.fileno(), happened)
        return unsent

    def take_back(self, unsent: Any) -> None:
        """
        Read and write again.

        @param unsent: what the other could not send; its beginning may be in
            OpenSSL already.
        """
        if not self.connected:
            return
        self._edges.hand(self.socket.fileno(), self._happened)
        self._readable = True
        self.startReading()
        if unsent:
            self.dataBuffer = bytes(unsent)
            self.producerPaused = True
            self.startWriting()
