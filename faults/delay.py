"""
A proxy that passes on everything later: C{python -m faults.delay PORT HOST PORT}.

How much later, in milliseconds, is read from standard input, a line each time.
"""

from __future__ import annotations

import sys
from collections import deque
from typing import Any

from zope.interface import implementer

from twisted.internet import reactor as _reactor
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.stdio import StandardIO
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure

__all__: list[str] = []

reactor: Any = _reactor

_MOST = 1 << 20
"""Bytes on their way in one direction before the sender is paused."""


class _Delay(LineReceiver):
    delimiter = b"\n"
    seconds = 0.0

    def lineReceived(self, line: bytes) -> None:
        self.seconds = float(line) / 1000


_delay = _Delay()


@implementer(IHalfCloseableProtocol)
class _Leg(Protocol):
    """
    One connection; what comes here goes out at the other one, later.
    """

    transport: Any

    def __init__(self) -> None:
        self.other: _Leg | None = None
        self.alone = False
        self._waiting: deque[tuple[str, bytes]] = deque()
        self._size = 0
        self._last = 0.0

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)

    def dataReceived(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > _MOST:
            self.transport.pauseProducing()
        self._later("data", data)

    def readConnectionLost(self) -> None:
        self._later("end", b"")

    def writeConnectionLost(self) -> None:
        pass

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._later("over" if reason.check(ConnectionDone) else "lost", b"")

    def _later(self, what: str, data: bytes) -> None:
        # In order, also when the delay has become shorter.
        self._last = max(self._last, reactor.seconds() + _delay.seconds)
        self._waiting.append((what, data))
        reactor.callLater(max(0, self._last - reactor.seconds()), self._pass_on)

    def _pass_on(self) -> None:
        if self.other is None:
            if not self.alone:
                reactor.callLater(0.01, self._pass_on)
            return
        what, data = self._waiting.popleft()
        out = self.other.transport
        if out is None:
            return
        if what == "data":
            if self._size > _MOST >= self._size - len(data):
                self.transport.resumeProducing()
            self._size -= len(data)
            out.write(data)
        elif what == "end":
            out.loseWriteConnection()
        elif what == "over":
            out.loseConnection()
        else:
            out.abortConnection()


class _Proxy(Factory):
    noisy = False

    def __init__(self, host: str, port: int) -> None:
        self._to = (host, port)

    def buildProtocol(self, addr: object) -> _Leg:
        near = _Leg()
        dialled = TCP4ClientEndpoint(reactor, *self._to).connect(Factory.forProtocol(_Leg))

        def stands(far: Any) -> None:
            near.other, far.other = far, near

        def fails(_: Failure) -> None:
            near.alone = True
            near.transport.abortConnection()

        dialled.addCallbacks(stands, fails)
        return near


def main(arguments: list[str]) -> None:
    """
    Pass on until a signal comes.
    """
    port, host, to = int(arguments[0]), arguments[1], int(arguments[2])
    StandardIO(_delay)
    listening = TCP4ServerEndpoint(reactor, port, backlog=1024).listen(_Proxy(host, to))
    listening.addCallback(lambda _: print("delaying", flush=True))
    listening.addErrback(lambda _: reactor.stop())
    reactor.run()


if __name__ == "__main__":
    main(sys.argv[1:])
