"""
Connecting to an IP address, with transports of ours.

An endpoint of Twisted's makes a factory, a connector and some Deferreds for a
connection.  An agent dials two of them for each client, to addresses that it
knows, so it does without.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.error import TimeoutError, getConnectError
from twisted.internet.interfaces import IDelayedCall, IProtocol
from twisted.python.failure import Failure

from relaytunnel.channel.edges import OUT, EdgeWatch
from relaytunnel.channel.sockets import EdgeConnection, tune_socket

__all__ = ["Address", "Attempt"]

Address = tuple[str, int]
"""An IP address and a port."""


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
        try:
            protocol.makeConnection(transport)
        except Exception:
            transport.failed()
            raise

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
