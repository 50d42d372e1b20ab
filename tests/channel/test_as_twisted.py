"""
Our transports pass the tests that Twisted has for its own, with each reactor.

L{EdgeConnection} and L{TLSConnection} are put behind endpoints, and Twisted's
mixins do the rest.  What does not apply is switched off by name, each with its
reason.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from zope.interface import implementer

from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.interfaces import (
    IHandshakeListener,
    IReactorFDSet,
    IStreamClientEndpoint,
    IStreamServerEndpoint,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.test.connectionmixins import ConnectionTestsMixin, EndpointCreator
from twisted.internet.test.reactormixins import ReactorBuilder
from twisted.internet.test.test_tcp import AbortConnectionMixin, WriteSequenceTestsMixin

from relaytunnel.channel.edges import EdgeWatch
from relaytunnel.channel.secure import TLSConnection
from relaytunnel.channel.sockets import Attempt, EdgeConnection, accept_with
from relaytunnel.channel.tls import DATA, AgentTLS, RelayTLS
from tests.channel import identity

HOST = "127.0.0.1"


def _watch(reactor: Any) -> EdgeWatch:
    """
    @return: a watch that is closed when the reactor stops.
    """
    edges = EdgeWatch(reactor)
    reactor.addSystemEventTrigger("after", "shutdown", edges.close)
    return edges


@implementer(IStreamServerEndpoint)
class _Server:
    """
    Listens, and accepts with a transport of ours.
    """

    def __init__(self, reactor: Any, kind: Any) -> None:
        self._edges = _watch(reactor)
        self._endpoint = TCP4ServerEndpoint(reactor, 0, interface=HOST)
        self._kind = kind

    def listen(self, factory: Any) -> Deferred[Any]:
        def listening(port: Any) -> Any:
            accept_with(self._edges, port, self._kind)
            stop = port.stopListening

            def stop_listening() -> Any:
                self._edges.closed(port.fileno())
                return stop()

            port.stopListening = stop_listening
            return port

        return self._endpoint.listen(factory).addCallback(listening)


@implementer(IStreamClientEndpoint)
class _Client:
    """
    Connects with a transport of ours.
    """

    def __init__(self, reactor: Any, port: int, make: Callable[..., EdgeConnection] | None) -> None:
        self._reactor = reactor
        self._edges = _watch(reactor)
        self._port = port
        self._make = make

    def connect(self, factory: Any) -> Deferred[Any]:
        protocol = factory.buildProtocol(None)
        where = (HOST, self._port)
        make = None
        if self._make is not None:
            kind = self._make

            def make(sock: socket.socket) -> EdgeConnection:
                return kind(sock, protocol, self._edges, self._reactor, where)

        failed: list[Any] = []
        Attempt(self._edges, self._reactor, where, protocol, failed.append, make).begin(10)
        assert not failed, failed
        return succeed(protocol)


def _accepts_tls(
    sock: socket.socket, protocol: Any, edges: Any, reactor: Any, peer: Any, tuned: bool = False
) -> TLSConnection:
    connection = RelayTLS(identity()).connection(sock)
    return TLSConnection(connection, sock, protocol, edges, reactor, peer, tuned)


def _dials_tls(
    sock: socket.socket, protocol: Any, edges: Any, reactor: Any, peer: Any
) -> TLSConnection:
    connection = AgentTLS(HOST, DATA, identity().pin).connection(sock)
    return TLSConnection(connection, sock, protocol, edges, reactor, peer)


class _Plain(EndpointCreator):
    def server(self, reactor: Any) -> _Server:
        return _Server(reactor, EdgeConnection)

    def client(self, reactor: Any, serverAddress: Any) -> _Client:
        return _Client(reactor, serverAddress.port, None)


class _Secure(EndpointCreator):
    def server(self, reactor: Any) -> _Server:
        return _Server(reactor, _accepts_tls)

    def client(self, reactor: Any, serverAddress: Any) -> _Client:
        return _Client(reactor, serverAddress.port, _dials_tls)


class _Ours(ReactorBuilder):
    """
    Reactors that have descriptors; elsewhere Twisted's own transports serve.
    """

    requiredInterfaces = (IReactorFDSet,)


class _PlainConnection(_Ours, ConnectionTestsMixin):
    endpoints = _Plain()


class _SecureConnection(_Ours, ConnectionTestsMixin):
    endpoints = _Secure()


class _PlainAbort(_Ours, AbortConnectionMixin):
    endpoints = _Plain()


class _SecureAbort(_Ours, AbortConnectionMixin):
    endpoints = _Secure()


class _Connected(_Ours, WriteSequenceTestsMixin):
    """
    C{writeSequence}, producers and consumers between two transports of ours.
    """

    def getConnectedClientAndServer(self, reactor: Any, interface: str, family: Any) -> Any:
        result: Deferred[Any] = Deferred()
        ends: list[Any] = []
        lost: list[Any] = []

        @implementer(IHandshakeListener)
        class End(Protocol):
            def connectionMade(self) -> None:
                if not isinstance(self.transport, TLSConnection):
                    self._begin()

            def handshakeCompleted(self) -> None:
                self._begin()

            def _begin(self) -> None:
                ends.append(self)
                if len(ends) == 2:
                    ends.sort(key=lambda end: end is not client[0])
                    result.callback((*ends, port[0]))

            def connectionLost(self, reason: Any = None) -> None:
                lost.append(self)
                if len(lost) == 2:
                    port[0].stopListening()
                    reactor.stop()

        port: list[Any] = []
        client: list[Any] = []

        def listening(listens: Any) -> None:
            port.append(listens)
            made = End()
            client.append(made)
            once = Factory()
            once.buildProtocol = lambda address: made  # type: ignore[method-assign]
            self.endpoints.client(reactor, listens.getHost()).connect(once)

        serving = Factory.forProtocol(End)
        serving.noisy = False
        self.endpoints.server(reactor).listen(serving).addCallback(listening)
        return result


class _PlainSequence(_Connected):
    endpoints = _Plain()


class _SecureSequence(_Connected):
    endpoints = _Secure()


for _case in (
    _PlainConnection,
    _SecureConnection,
    _PlainAbort,
    _SecureAbort,
    _PlainSequence,
    _SecureSequence,
):
    globals().update(_case.makeTestCaseClasses())
