"""
Accepting connections for a port of Twisted's, with transports of ours.
"""

from __future__ import annotations

import errno
import socket
from typing import Any

from twisted.internet import tcp
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger

from relaytunnel.channel.edges import IN, EdgeWatch
from relaytunnel.channel.sockets import EdgeConnection, address_of

__all__ = ["accept_with"]

_ACCEPTED_PER_TURN = 16
_NO_MORE = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

_log = Logger()


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
            protocol = factory.buildProtocol(address_of(peer))
            if protocol is not None:
                reactor = self._port.reactor
                protocol.makeConnection(
                    self._kind(sock, protocol, self._edges, reactor, peer, True)
                )
                return
        except Exception:
            _log.failure("a connection was lost by our own fault")
        sock.close()
