"""
A port of Twisted's accepts for transports of ours.
"""

from __future__ import annotations

import errno
import socket
from typing import Any

from twisted.internet.defer import maybeDeferred
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from relaytunnel.channel.accepting import accept_with
from relaytunnel.channel.descriptors import Descriptors
from relaytunnel.channel.edges import EdgeWatch
from relaytunnel.channel.sockets import EdgeConnection
from tests.channel import Sockets, pause_for, reactor, until


class _Server(Factory):
    """
    Makes protocols that are known here, unless it is told otherwise.
    """

    noisy = False

    def __init__(self) -> None:
        self.visitors: list[_Visitor] = []
        self.instead: list[Any] = []

    def buildProtocol(self, addr: object) -> Protocol | None:
        if self.instead:
            found = self.instead.pop(0)
            if isinstance(found, Exception):
                raise found
            return None
        visitor = _Visitor()
        self.visitors.append(visitor)
        return visitor


class _Visitor(Protocol):
    lost = False

    def connectionMade(self) -> None:
        self.transport.write(b"welcome")  # type: ignore[union-attr]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = True


class _Exhausted:
    """
    A listening socket for which there is no descriptor.

    @ivar asked: how often it was asked for a connection.
    """

    def __init__(self, listening: socket.socket, number: int) -> None:
        self.asked = 0
        self.fileno = listening.fileno
        self._number = number

    def accept(self) -> Any:
        self.asked += 1
        raise OSError(self._number, "on purpose")


class AcceptingTests(Sockets):
    """
    Visitors of a port.
    """

    async def setUp(self) -> None:  # type: ignore[override]
        await super().setUp()
        self.edges = EdgeWatch(reactor)
        self.server = _Server()
        self.port = reactor.listenTCP(0, self.server, interface="127.0.0.1", backlog=200)
        self.address = ("127.0.0.1", self.port.getHost().port)
        self.descriptors = Descriptors(reactor)
        self.stop = accept_with(self.edges, self.port, descriptors=self.descriptors)

    async def tearDown(self) -> None:  # type: ignore[override]
        for visitor in self.server.visitors:
            visitor.transport.abortConnection()  # type: ignore[union-attr]
        await until(lambda: all(each.lost for each in self.server.visitors), what="their ends")
        self.edges.closed(self.port.fileno())
        await maybeDeferred(self.port.stopListening)
        self.descriptors.close()
        self.edges.close()
        await super().tearDown()

    def client(self) -> socket.socket:
        client = socket.create_connection(self.address)
        self.addCleanup(client.close)
        client.setblocking(False)
        return client

    async def hears(self, client: socket.socket) -> bytes:
        """
        @return: what the client hears first; nothing if that is an end.
        """
        heard: list[bytes] = []

        def listen() -> bool:
            try:
                heard.append(client.recv(100))
            except BlockingIOError:
                pass
            except ConnectionResetError:
                heard.append(b"")
            return bool(heard)

        await until(listen, what="something to hear")
        return heard[0]

    async def test_accepts(self) -> None:
        """
        A visitor gets a transport of ours, which knows both addresses.
        """
        client = self.client()
        self.assertEqual(await self.hears(client), b"welcome")
        transport: Any = self.server.visitors[0].transport
        self.assertIs(type(transport), EdgeConnection)
        self.assertEqual(transport.getPeer().port, client.getsockname()[1])
        self.assertEqual(transport.getHost().port, self.address[1])

    async def test_a_burst(self) -> None:
        """
        More of them than are accepted in a turn are accepted all the same.
        """
        clients = [self.client() for _ in range(100)]
        for client in clients:
            self.assertEqual(await self.hears(client), b"welcome")

    async def test_turned_away(self) -> None:
        """
        Whom the factory makes no protocol for is hung up on; the next one is
        served.
        """
        self.server.instead = [None]
        self.assertEqual(await self.hears(self.client()), b"")
        self.assertEqual(await self.hears(self.client()), b"welcome")

    async def test_fault(self) -> None:
        """
        A fault of ours costs that visitor its connection, and no other.
        """
        self.server.instead = [ValueError("on purpose")]
        self.assertEqual(await self.hears(self.client()), b"")
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assertEqual(await self.hears(self.client()), b"welcome")

    async def test_no_descriptors(self) -> None:
        """
        Where no descriptor is left for it a visitor waits, and is served when
        there are some again.
        """
        for number in (errno.EMFILE, errno.ENFILE):
            listening = self.port.socket
            self.port.socket = exhausted = _Exhausted(listening, number)
            client = self.client()
            await until(lambda: self.descriptors.paused, what="a pause")
            self.assertEqual(exhausted.asked, 1)
            self.port.socket = listening
            self.assertEqual(await self.hears(client), b"welcome")
        self.assertEqual(self.descriptors.pauses, 2)

    async def test_mark(self) -> None:
        """
        Where many are in use nobody else is accepted; who is there is not
        concerned, and the others are accepted when there is room.
        """
        self.descriptors.in_use = lambda: len(self.server.visitors)
        self.descriptors.limit = lambda: 10
        clients = [self.client() for _ in range(12)]
        for client in clients[:9]:
            self.assertEqual(await self.hears(client), b"welcome")
        await pause_for(0.6)
        self.assertEqual(len(self.server.visitors), 9)
        visitor = self.server.visitors[0]
        visitor.transport.write(b"still here")  # type: ignore[union-attr]
        self.assertEqual(await self.hears(clients[0]), b"still here")
        self.descriptors.limit = lambda: 100
        for client in clients[9:]:
            self.assertEqual(await self.hears(client), b"welcome")

    async def test_stopped_while_full(self) -> None:
        """
        A port that stops while nobody is accepted does not go on.
        """
        self.descriptors.pause("on purpose")
        client = self.client()
        await pause_for(0.05)
        self.stop()
        await until(lambda: not self.descriptors.paused, what="the end of the pause")
        await pause_for(0.05)
        self.assertRaises(BlockingIOError, client.recv, 100)

    async def test_stopped(self) -> None:
        """
        A port that has stopped listening accepts nobody.
        """
        self.edges.closed(self.port.fileno())
        await self.port.stopListening()
        with socket.socket() as client:
            self.assertNotEqual(client.connect_ex(self.address), 0)

    async def test_other_ports(self) -> None:
        """
        A port that is none of TCP is left as it is.
        """
        name = self.mktemp()
        port = reactor.listenUNIX(name, self.server)
        accept_with(self.edges, port)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(name)
            client.setblocking(False)
            self.assertEqual(await self.hears(client), b"welcome")
        await port.stopListening()
