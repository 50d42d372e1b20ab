"""
TCP ports that come and go as peers ask for them.
"""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet import tcp
from twisted.internet.error import CannotListenError

__all__ = ["UnloggedPort"]


class UnloggedPort(tcp.Port):
    """
    A port like any other of Twisted's, of which it writes no lines: there would
    be as many as a peer likes.
    """

    def startListening(self) -> None:
        """
        @raise CannotListenError: the port cannot be had.
        """
        address: Any = (self.interface, self.port)
        sock = self.createInternetSocket()
        try:
            if self.addressFamily == socket.AF_INET6:  # the zone is a number there
                flags = socket.AI_NUMERICHOST
                [(*_, address)] = socket.getaddrinfo(
                    self.interface, self.port, type=socket.SOCK_STREAM, flags=flags
                )
            sock.bind(address)
            sock.listen(self.backlog)
        except OSError as fault:
            sock.close()
            raise CannotListenError(self.interface, self.port, fault) from None
        self._realPortNumber = sock.getsockname()[1]
        self.factory.doStart()  # type: ignore[union-attr]
        self.socket = sock
        self.fileno = sock.fileno  # type: ignore[method-assign]
        self.connected = True
        self.numberAccepts = 100  # a turn, where it is Twisted that accepts
        self.startReading()

    def _logConnectionLostMsg(self) -> None:
        pass
