"""
Accepting connections for a port of Twisted's, with transports of ours.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet import tcp
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger

from relaytunnel.channel.descriptors import Descriptors
from relaytunnel.channel.edges import IN, EdgeWatch
from relaytunnel.channel.ports import UnloggedPort
from relaytunnel.channel.sockets import EdgeConnection, address_of

__all__ = ["accept_with"]

_ACCEPTED_PER_TURN = 16
_NO_MORE = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

_log = Logger()


def accept_with(
    edges: EdgeWatch,
    port: IListeningPort,
    kind: type[EdgeConnection] = EdgeConnection,
    descriptors: Descriptors | None = None,
) -> Callable[[], None]:
    """
    Let the connections that a TCP port accepts be L{EdgeConnection}s, where
    there is a watch.  The port is tuned already, and hands that down.

    @param descriptors: says when nothing is to be accepted; what shares it
        stops and goes on together.
    @return: stops accepting; who comes waits in the kernel's queue then.
    """
    if edges.works and type(port) in (tcp.Port, UnloggedPort):
        assert isinstance(port, tcp.Port)
        port.stopReading()
        reactor: Any = port.reactor
        accepting = _Accepting(edges, port, kind, descriptors or Descriptors(reactor))
        edges.watch(port.fileno(), accepting.happened, IN)
        return accepting.stop
    port.startReading()  # type: ignore[attr-defined]
    return port.stopReading  # type: ignore[attr-defined,no-any-return]


class _Accepting:
    """
    Accepts for a port of Twisted's, some connections at a time.
    """

    def __init__(
        self,
        edges: EdgeWatch,
        port: tcp.Port,
        kind: type[EdgeConnection],
        descriptors: Descriptors,
    ) -> None:
        self._edges = edges
        self._port = port
        self._kind = kind
        self._descriptors = descriptors
        self._stopped = False

    def stop(self) -> None:
        """
        Accept nobody any more.
        """
        self._stopped = True
        self._edges.forget(self._port.fileno())

    def happened(self, events: int) -> None:
        """
        There is somebody to accept.
        """
        port, descriptors = self._port, self._descriptors
        for _ in range(_ACCEPTED_PER_TURN):
            if self._stopped or port.disconnecting or not port.connected:
                return
            if descriptors.paused:
                descriptors.when_again(self._go_on)
                return
            try:
                sock, peer = port.socket.accept()
            except BlockingIOError:
                return
            except OSError as fault:
                if fault.errno in _NO_MORE:
                    descriptors.pause(os.strerror(fault.errno))
                continue
            self._begin(sock, peer)
            descriptors.unlooked -= 1
            if descriptors.unlooked <= 0:
                descriptors.look()
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
