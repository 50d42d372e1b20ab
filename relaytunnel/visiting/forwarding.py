"""
A port of this machine whose connections are visits to one server.

Each connection has a CONNECT of its own; what is asked and answered is read
in L{relaytunnel.visiting.asking}.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from typing import Any, TextIO

from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IDelayedCall, IListeningPort
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from relaytunnel.agent.channels import OneProtocol
from relaytunnel.channel.accepting import accept_with
from relaytunnel.channel.edges import EdgeWatch
from relaytunnel.channel.tcp import TCPChannel, socket_of, tune
from relaytunnel.config.limits import Limits
from relaytunnel.errors import ProtocolError, StateError
from relaytunnel.interfaces import IRunningSplice, Lost
from relaytunnel.splice import SpliceReport, best_engine
from relaytunnel.terminal import say
from relaytunnel.visiting.asking import PATIENCE, AnswerReader, HostPort

__all__ = ["Forward", "run_forward"]

_BACKLOG = 128
_FOREVER = 30 * 86400.0
_LIMITS = Limits(idle=_FOREVER, half_closed=_FOREVER)
"""How long a visit may be quiet is for the relay to say."""


class Forward:
    """
    All visits to one server, by way of one port.
    """

    def __init__(
        self,
        reactor: Any,
        relay: HostPort,
        request: bytes,
        tell: Callable[[str], None],
        patience: float = PATIENCE,
    ) -> None:
        """
        @param request: as made by C{asking_for}.
        @param tell: called with a line for each visit that comes to nothing.
        @param patience: seconds until the relay has answered.
        """
        self.reactor = reactor
        self.relay = relay
        self.request = request
        self.tell = tell
        self.patience = patience
        self.edges = EdgeWatch(reactor)
        self.engine = best_engine(self.edges)
        self.asking: set[_Visit] = set()
        self.splices: set[IRunningSplice] = set()
        self._port: IListeningPort | None = None

    def listen(self, address: str, port: int) -> tuple[str, int]:
        """
        Take connections.

        @param address: an IP address of this machine.
        @param port: 0 for any that is free.
        @return: where.
        @raise StateError: it cannot be had.
        """
        try:
            listening = self.reactor.listenTCP(port, _Visits(self), _BACKLOG, address)
        except CannotListenError as fault:
            reason = getattr(fault.socketError, "strerror", None) or fault.socketError
            raise StateError(f"cannot listen on {HostPort(address, port)}: {reason}") from None
        tune(listening)
        accept_with(self.edges, listening)
        self._port = listening
        where = listening.getHost()
        return where.host, where.port

    def close(self) -> Deferred[Any]:
        """
        Reset all visits and take no more.

        @return: fires when all of it is gone.
        """
        for visit in list(self.asking):
            visit.close()
        for splice in list(self.splices):
            splice.close()
        stopped: Deferred[Any] = deferLater(self.reactor, 0)  # the resets need a turn
        port, self._port = self._port, None
        if port is not None:
            sock = socket_of(port)
            if sock is not None:
                self.edges.closed(sock.fileno())
            stopped = gatherResults([stopped, maybeDeferred(port.stopListening)])
        return stopped.addCallback(lambda _: self.edges.close())


class _Visits(Factory):
    noisy = False

    def __init__(self, forward: Forward) -> None:
        self._forward = forward

    def buildProtocol(self, addr: object) -> TCPChannel:
        forward = self._forward
        return TCPChannel(forward.reactor, _LIMITS, forward.edges, self._connected)

    def _connected(self, local: TCPChannel) -> None:
        _Visit(self._forward, local)


class _Visit:
    """
    One local connection, until it is joined with the server.
    """

    def __init__(self, forward: Forward, local: TCPChannel) -> None:
        self._forward = forward
        self._local = local
        self._far: TCPChannel | None = None
        self._reader = AnswerReader()
        self._fed = 0
        local.holding.lost = self._left
        forward.asking.add(self)
        reactor = forward.reactor
        self._alarm: IDelayedCall = reactor.callLater(forward.patience, self._took_too_long)
        relay = forward.relay
        self._dialling: Deferred[Any] = HostnameEndpoint(reactor, relay.host, relay.port).connect(
            OneProtocol(lambda: TCPChannel(reactor, _LIMITS, forward.edges, self._connected))
        )
        self._dialling.addErrback(self._not_connected)

    def _connected(self, far: TCPChannel) -> None:
        self._far = far
        far.holding.heard = self._heard
        far.holding.lost = self._lost
        far.write(self._forward.request)

    def _not_connected(self, failure: Failure) -> None:
        if self in self._forward.asking:
            reason = failure.getErrorMessage().rstrip(".")
            self._fail(f"cannot reach the relay at {self._forward.relay}: {reason}")

    def _heard(self) -> None:
        assert self._far is not None
        holding = self._far.holding
        data, self._fed = holding.held[self._fed :], len(holding.held)
        try:
            answer = self._reader.feed(data)
            if answer is None and holding.ended:
                answer = self._reader.cut_off("it closed the connection")
        except ProtocolError as fault:
            self._no_relay(fault)
            return
        if answer is None:
            return
        if answer.granted:
            self._join(self._far)
        else:
            self._fail(f"the relay at {self._forward.relay} says {answer}")

    def _join(self, far: TCPChannel) -> None:
        self._end()
        forward = self._forward
        far.holding.heard = far.holding.lost = self._local.holding.lost = None
        far.holding.held = self._reader.rest
        splice = forward.engine.join(self._local, far, _LIMITS, forward.reactor)
        forward.splices.add(splice)
        done: Deferred[SpliceReport] = splice.done
        done.addCallback(lambda _: forward.splices.discard(splice))

    # What goes wrong

    def _took_too_long(self) -> None:
        if self._far is None:
            limit = self._forward.patience
            self._fail(f"cannot reach the relay at {self._forward.relay}: not within {limit:g} s")
        else:
            self._cut_off("it took too long")

    def _lost(self, why: Lost) -> None:
        self._far = None
        self._cut_off("it reset the connection")

    def _cut_off(self, how: str) -> None:
        try:
            answer = self._reader.cut_off(how)
        except ProtocolError as fault:
            self._no_relay(fault)
        else:
            self._fail(f"the relay at {self._forward.relay} says {answer}")

    def _no_relay(self, fault: ProtocolError) -> None:
        self._fail(f"what is at {self._forward.relay} does not answer as a relay: {fault}")

    def _fail(self, why: str) -> None:
        self._forward.tell(f"{self._local.peer} is not served: {why}")
        self.close()

    def _left(self, why: Lost) -> None:
        self.close()

    def close(self) -> None:
        """
        Let go of everything.
        """
        self._end()
        self._dialling.cancel()
        for channel in (self._local, self._far):
            if channel is not None:
                channel.holding.heard = channel.holding.lost = None
                channel.reset()

    def _end(self) -> None:
        self._forward.asking.discard(self)
        if self._alarm.active():
            self._alarm.cancel()


def run_forward(
    reactor: Any,
    relay: HostPort,
    connection_id: str,
    request: bytes,
    address: str,
    port: int,
) -> int:
    """
    Forward a port until SIGINT or SIGTERM.

    @param request: as made by C{asking_for}.
    @return: the exit code, 0.
    @raise StateError: the port cannot be had.
    """
    forward = Forward(
        reactor, relay, request, lambda line: _tell(f"relaytunnel: {line}", sys.stderr)
    )
    where = HostPort(*forward.listen(address, port))
    reactor.addSystemEventTrigger("before", "shutdown", forward.close)
    # Not before signals are taken care of: who reads it may send one.
    line = f"forwarding {where} to {connection_id} through {relay}"
    reactor.callWhenRunning(_tell, line, sys.stdout)
    reactor.run()
    return 0


def _tell(line: str, stream: TextIO) -> None:
    with contextlib.suppress(OSError):  # nobody reads it
        say(line, stream)
