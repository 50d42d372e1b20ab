"""
Our transports pass the tests that Twisted has for its own, with each reactor.

L{EdgeConnection} and L{TLSConnection} are put behind endpoints, and Twisted's
mixins do the rest.  What does not apply is switched off by name, each with its
reason.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Sequence
from typing import Any

from zope.interface import Interface, implementer

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.interfaces import (
    IHandshakeListener,
    IReactorFDSet,
    IStreamClientEndpoint,
    IStreamServerEndpoint,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.internet.test.connectionmixins import ConnectionTestsMixin, EndpointCreator
from twisted.internet.test.reactormixins import ReactorBuilder
from twisted.internet.test.test_tcp import AbortConnectionMixin, WriteSequenceTestsMixin
from twisted.trial.unittest import SkipTest

import tests.kqueue
from relaytunnel.channel.accepting import accept_with
from relaytunnel.channel.edges import EdgeWatch
from relaytunnel.channel.secure import TLSConnection
from relaytunnel.channel.sockets import EdgeConnection
from relaytunnel.channel.tls import DATA, AgentTLS, RelayTLS
from tests.channel import Makes, identity
from tests.kqueue import KQueueReactor

HOST = "127.0.0.1"

_NOT_OURS = (
    (
        ("test_logPrefix",),
        "",
        "one reader of the reactor serves all connections, so there is one prefix; our log"
        " events name the session themselves",
    ),
    (
        (
            "test_resumeProducingAbort",
            "test_resumeProducingAbortLater",
            "test_resumeProducingThrows",
        ),
        "Asyncio",
        "a delayed call ends this connection, and this reactor's stop() leaves a delayed call"
        " of its own behind when a delayed call calls it",
    ),
)
"""Names of tests, a part of a reactor's name, and why they do not apply there."""


def _watch(reactor: Any) -> EdgeWatch:
    """
    @return: a watch that is closed when the reactor stops.
    """
    on_kqueue = isinstance(reactor, KQueueReactor)
    edges = EdgeWatch(reactor, tests.kqueue if on_kqueue else select)
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

        listens: Deferred[Any] = self._endpoint.listen(factory)
        return listens.addCallback(listening)


@implementer(IStreamClientEndpoint)
class _Client:
    """
    Connects with a transport of ours, which begins when the server's has: the
    mixins abort connections that the server could not have accepted yet.
    """

    def __init__(self, reactor: Any, port: int, make: Any) -> None:
        self._reactor = reactor
        self._edges = _watch(reactor)
        self._port = port
        self._make = make

    def connect(self, factory: Any) -> Deferred[Any]:
        sock = socket.create_connection((HOST, self._port))
        sock.setblocking(False)
        return deferLater(self._reactor, 0.02, self._begin, sock, factory)

    def _begin(self, sock: socket.socket, factory: Any) -> Any:
        where = (HOST, self._port)
        protocol = factory.buildProtocol(IPv4Address("TCP", *where))
        protocol.makeConnection(self._make(sock, protocol, self._edges, self._reactor, where))
        return protocol


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
        return _Client(reactor, serverAddress.port, EdgeConnection)


class _Secure(EndpointCreator):
    def server(self, reactor: Any) -> _Server:
        return _Server(reactor, _accepts_tls)

    def client(self, reactor: Any, serverAddress: Any) -> _Client:
        return _Client(reactor, serverAddress.port, _dials_tls)


class _Ours(ReactorBuilder):
    """
    Reactors that have descriptors; elsewhere Twisted's own transports serve.
    """

    _reactors = [*ReactorBuilder._reactors, "tests.kqueue.EmulatedKQueueReactor"]

    # A reactor that selects in a thread may leave one behind that sleeps until
    # a test's time is up, and the process does not exit before: that is 120 s
    # where nothing else is said.
    timeout = 20

    requiredInterfaces: Sequence[type[Interface]] | None = (IReactorFDSet,)

    _testMethodName: str

    def setUp(self) -> None:
        for names, reactor, reason in _NOT_OURS:
            if self._testMethodName in names and reactor in type(self).__name__:
                raise SkipTest(reason)


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

    endpoints: EndpointCreator

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
            once = Makes(lambda: made)
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
