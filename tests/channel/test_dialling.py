"""
Connecting to an address succeeds, fails or is given up, and says so once.
"""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.error import ConnectionRefusedError, TimeoutError
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from relaytunnel.channel.dialling import Attempt
from relaytunnel.channel.edges import EdgeWatch
from relaytunnel.channel.sockets import EdgeConnection
from tests.channel import Sockets, pause_for, reactor, until


class _Remembers(Protocol):
    """
    A protocol that tells what became of it.
    """

    def __init__(self) -> None:
        self.made = 0
        self.received = b""
        self.lost = False

    def connectionMade(self) -> None:
        self.made += 1

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = True


class AttemptTests(Sockets):
    """
    Attempts to reach servers that are there, and those that are not.
    """

    async def setUp(self) -> None:  # type: ignore[override]
        await super().setUp()
        self.edges = EdgeWatch(reactor)
        self.protocol = _Remembers()
        self.failures: list[Failure] = []

    async def tearDown(self) -> None:  # type: ignore[override]
        if self.protocol.made and not self.protocol.lost:
            transport: Any = self.protocol.transport
            transport.abortConnection()
            await until(lambda: self.protocol.lost, what="its end")
        self.edges.close()
        await super().tearDown()

    def attempt(self, host: str, port: int, within: float = 5, make: Any = None) -> Attempt:
        attempt = Attempt(
            self.edges, reactor, (host, port), self.protocol, self.failures.append, make
        )
        attempt.begin(within)
        return attempt

    def server(self, family: int = socket.AF_INET, backlog: int = 5) -> socket.socket:
        server = socket.socket(family)
        self.addCleanup(server.close)
        server.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        server.listen(backlog)
        return server

    async def _connects(self, server: socket.socket) -> None:
        host, port = server.getsockname()[:2]
        self.attempt(host, port)
        await until(lambda: self.protocol.made, what="the connection")
        near, _ = server.accept()
        with near:
            near.sendall(b"hello")
            await until(lambda: self.protocol.received == b"hello", what="the greeting")
        transport: Any = self.protocol.transport
        self.assertEqual(transport.getPeer().port, port)
        sock = transport.socket
        self.assertTrue(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        self.assertTrue(sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
        self.assertEqual((self.protocol.made, self.failures), (1, []))

    async def test_connects(self) -> None:
        """
        The protocol gets a transport whose socket is tuned.
        """
        await self._connects(self.server())

    async def test_ipv6(self) -> None:
        """
        So it does over IPv6.
        """
        try:
            server = self.server(socket.AF_INET6)
        except OSError:
            self.skipTest("this machine has no IPv6")
        await self._connects(server)

    async def test_other_transport(self) -> None:
        """
        Somebody else may make the transport.
        """
        made: list[EdgeConnection] = []

        def make(sock: socket.socket) -> EdgeConnection:
            made.append(
                EdgeConnection(sock, self.protocol, self.edges, reactor, sock.getpeername())
            )
            return made[0]

        host, port = self.server().getsockname()
        self.attempt(host, port, make=make)
        await until(lambda: self.protocol.made, what="the connection")
        self.assertIs(self.protocol.transport, made[0])

    async def test_refused(self) -> None:
        """
        A refusal is told as Twisted tells it.
        """
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            port = closed.getsockname()[1]
        self.attempt("127.0.0.1", port)
        await until(lambda: self.failures, what="the refusal")
        self.assertIsNotNone(self.failures[0].check(ConnectionRefusedError))
        self.assertEqual(self.protocol.made, 0)

    async def test_no_such_address(self) -> None:
        """
        An address that cannot be is a failure, not an error of ours.
        """
        self.attempt("no address", 1)
        await until(lambda: self.failures, what="the failure")
        self.assertEqual(self.protocol.made, 0)

    def _busy(self) -> tuple[str, int]:
        """
        @return: where connecting neither succeeds nor fails.
        """
        server = self.server(backlog=0)
        for _ in range(3):
            filling = socket.socket()
            self.addCleanup(filling.close)
            filling.setblocking(False)
            filling.connect_ex(server.getsockname())
        host, port = server.getsockname()
        return host, port

    async def test_too_late(self) -> None:
        """
        Who does not answer in time is given up.
        """
        self.attempt(*self._busy(), within=0.1)
        await until(lambda: self.failures, what="the failure")
        self.assertIsNotNone(self.failures[0].check(TimeoutError))
        await pause_for(0.1)
        self.assertEqual((self.protocol.made, len(self.failures)), (0, 1))

    async def test_cancel(self) -> None:
        """
        After it was given up nobody is called, and nothing of it is left.
        """
        attempt = self.attempt(*self._busy(), within=0.1)
        attempt.cancel()
        attempt.cancel()
        await pause_for(0.3)
        self.assertEqual((self.protocol.made, self.failures), (0, []))

    async def test_cancel_late(self) -> None:
        """
        It is too late for that when there is a connection.
        """
        attempt = self.attempt(*self.server().getsockname())
        await until(lambda: self.protocol.made, what="the connection")
        attempt.cancel()
        await pause_for(0.05)
        self.assertFalse(self.protocol.lost)
