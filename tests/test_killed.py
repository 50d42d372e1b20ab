"""
What client and server see when the relay or the agent is killed: a session
that is cut is reset, and never looks as if it had ended.
"""

from __future__ import annotations

import signal
import socket

from twisted.trial.unittest import TestCase

from tests.processes import (
    Agent,
    Relay,
    empty_directory,
    own_port,
    start_agent,
    start_relay,
)


class KilledTests(TestCase):
    """
    One session, which both ends keep open.
    """

    async def _start(self) -> tuple[Relay, Agent, int]:
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(self.listening.close)
        self.listening.settimeout(10)
        target = self.listening.getsockname()[1]
        relay = await start_relay(self, empty_directory(self))
        port = own_port()
        agent = await start_agent(self, relay.invitation, [f"web=127.0.0.1:{target},port={port}"])
        return relay, agent, port

    def _connect(self, port: int) -> socket.socket:
        client = socket.create_connection(("127.0.0.1", port), 10)
        self.addCleanup(client.close)
        return client

    def _accept(self, client: socket.socket) -> socket.socket:
        """
        @return: the server's side of the client's session, in which both have
            said and heard something.
        """
        server, _ = self.listening.accept()
        self.addCleanup(server.close)
        server.settimeout(10)
        for one, other in ((client, server), (server, client)):
            one.sendall(b"hello")
            self.assertEqual(other.recv(5, socket.MSG_WAITALL), b"hello")
        return server

    async def test_relay(self) -> None:
        """
        When the relay is killed, both ends are reset.
        """
        relay, _, port = await self._start()
        client = self._connect(port)
        server = self._accept(client)
        await relay.program.stop(by=signal.SIGKILL)
        self.assertRaises(ConnectionResetError, client.recv, 1)
        self.assertRaises(ConnectionResetError, server.recv, 1)

    async def test_agent(self) -> None:
        """
        So they are when the agent is.
        """
        _, agent, port = await self._start()
        client = self._connect(port)
        server = self._accept(client)
        await agent.program.stop(by=signal.SIGKILL)
        self.assertRaises(ConnectionResetError, client.recv, 1)
        self.assertRaises(ConnectionResetError, server.recv, 1)

    async def test_ended(self) -> None:
        """
        What was said, and ended, before the relay was killed is delivered.
        """
        relay, _, port = await self._start()
        client = self._connect(port)
        server = self._accept(client)
        server.sendall(b"all")
        server.shutdown(socket.SHUT_WR)
        self.assertEqual(client.recv(3, socket.MSG_WAITALL), b"all")
        self.assertEqual(client.recv(1), b"")
        await relay.program.stop(by=signal.SIGKILL)
        self.assertRaises(ConnectionResetError, server.recv, 1)

    async def test_waiting(self) -> None:
        """
        A client that is not served yet is reset, too.
        """
        relay, agent, port = await self._start()
        agent.program.transport.signalProcess(signal.SIGSTOP)
        client = self._connect(port)
        client.settimeout(1)
        self.assertRaises(TimeoutError, client.recv, 1)
        client.settimeout(10)
        await relay.program.stop(by=signal.SIGKILL)
        agent.program.transport.signalProcess(signal.SIGCONT)
        self.assertRaises(ConnectionResetError, client.recv, 1)
