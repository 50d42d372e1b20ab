"""
Asking a running agent to publish a server, over a real UNIX socket.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import tempfile
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from relaytunnel.agent.local import Answer, Publish, Withdraw, _Socket, ask_agent, listen_locally
from relaytunnel.agent.servers import OwnServer
from relaytunnel.config import ServerConfig
from relaytunnel.errors import Code, Rejection, StateError


class FakeAgent:
    """
    Publishes C{web}, rejects C{taken}, and never hears of anything else.
    """

    def __init__(self) -> None:
        self.reactor = Clock()
        self.published: list[ServerConfig] = []
        self.pending: list[Deferred[OwnServer]] = []

    def publish(self, config: ServerConfig) -> Deferred[OwnServer]:
        self.published.append(config)
        if config.id == "web":
            return succeed(OwnServer(config, True, addresses=("http://web.localhost/",)))
        if config.id == "taken":
            return fail(Rejection(Code.CONFLICT, "another agent publishes taken"))
        self.pending.append(Deferred())
        return self.pending[-1]

    def withdraw(self, connection_id: str) -> bool:
        return connection_id == "web"


class LocalTests(TestCase):
    timeout = 30

    def setUp(self) -> None:
        # The path of a UNIX socket has 107 bytes at the most.
        directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, directory)
        self.path = os.path.join(directory, "agent")
        self.agent = FakeAgent()
        self.port = listen_locally(reactor, self.path, self.agent)
        self.addCleanup(lambda: self.port.stopListening())

    def ask(self, request: Publish | Withdraw) -> Any:
        return deferToThread(ask_agent, self.path, request)

    async def says(self, line: bytes) -> bytes:
        """
        Send a line of our own making.
        """

        def talk() -> bytes:
            with socket.socket(socket.AF_UNIX) as asking:
                asking.settimeout(10)
                asking.connect(self.path)
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    asking.sendall(line)
                    return asking.makefile("rb").readline()
                return b""

        return await deferToThread(talk)

    async def test_publish(self) -> None:
        """
        Who asks is told where clients find the server.
        """
        answer = await self.ask(Publish("web=127.0.0.1:80,port=0"))
        self.assertEqual(answer, Answer(addresses=("http://web.localhost/",)))
        (config,) = self.agent.published
        self.assertEqual(config, ServerConfig.from_option("web=127.0.0.1:80,port=0"))

    async def test_url(self) -> None:
        """
        Who gives a URL is told what it means.
        """
        answer = await self.ask(Publish("web=http://127.0.0.1:80/"))
        self.assertIn("means tcp:127.0.0.1:80", answer.note)

    async def test_rejected(self) -> None:
        """
        Who asks is told why the relay turns the server down.
        """
        fault = await self.assertFailure(self.ask(Publish("taken=127.0.0.1:80")), StateError)
        self.assertIn("another agent publishes taken", str(fault))

    async def test_bad_server(self) -> None:
        """
        A server that cannot be is not even asked for.
        """
        fault = await self.assertFailure(self.ask(Publish("web")), StateError)
        self.assertIn("expected NAME=TARGET", str(fault))
        self.assertEqual(self.agent.published, [])

    async def test_no_answer(self) -> None:
        """
        When the relay does not answer in time, it is said what comes of it.
        """
        asked = self.ask(Publish("slow=127.0.0.1:80"))
        while not self.agent.pending:
            await deferToThread(lambda: None)
        self.agent.reactor.advance(10)
        fault = await self.assertFailure(asked, StateError)
        self.assertIn("published when it does", str(fault))
        self.assertEqual(self.agent.reactor.getDelayedCalls(), [])

    async def test_hanging_up(self) -> None:
        """
        One who does not wait for the answer leaves nothing behind.
        """
        asking = socket.socket(socket.AF_UNIX)
        asking.connect(self.path)
        asking.sendall(b'{"ask":"publish","server":"slow=127.0.0.1:80"}\n')
        while not self.agent.pending:
            await deferToThread(lambda: None)
        asking.close()
        while self.agent.reactor.getDelayedCalls():
            await deferToThread(lambda: None)
        self.agent.pending[0].callback(OwnServer(self.agent.published[0]))

    async def test_withdraw(self) -> None:
        """
        A server that is published can be withdrawn, another cannot.
        """
        self.assertEqual(await self.ask(Withdraw("web")), Answer())
        fault = await self.assertFailure(self.ask(Withdraw("nothing")), StateError)
        self.assertIn("publishes no nothing", str(fault))

    async def test_garbage(self) -> None:
        """
        What is no request is answered with the reason.
        """
        for line in (b"publish web\n", b"{}\n", b'{"ask":"drop"}\n', b"\xff\n"):
            self.assertIn(b"no request", await self.says(line))

    async def test_endless_line(self) -> None:
        """
        A line without end is cut off.
        """
        self.assertEqual(await self.says(b"x" * 100_000), b"")

    async def test_only_for_its_user(self) -> None:
        """
        Others on the machine may not open the socket.
        """
        self.assertEqual(os.stat(self.path).st_mode & 0o777, 0o600)

    async def test_left_by_the_dead(self) -> None:
        """
        A socket that a dead agent left is replaced; one in use is not.
        """
        fault = self.assertRaises(StateError, listen_locally, reactor, self.path, self.agent)
        self.assertIn(self.path, str(fault))
        left = self.path + "-left"
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(left)
        port = listen_locally(reactor, left, self.agent)
        await maybeDeferred(port.stopListening)

    async def test_not_possible(self) -> None:
        """
        A path that cannot be is named.
        """
        fault = self.assertRaises(
            StateError, listen_locally, reactor, "/nowhere/agent", self.agent
        )
        self.assertIn("/nowhere/agent", str(fault))

    async def test_nobody_there(self) -> None:
        """
        Where no agent listens, the error says how to start one.
        """
        fault = self.assertRaises(StateError, ask_agent, self.path + "x", Withdraw("web"))
        self.assertIn("--local", str(fault))


class AnythingTests(SynchronousTestCase):
    """
    The parser of requests.
    """

    @given(st.binary(max_size=200).filter(lambda line: b"\n" not in line))
    @settings(deadline=None, max_examples=200)
    def test_lines(self, line: bytes) -> None:
        """
        Whatever a line holds, it has one line of answer, with an error.
        """
        agent = FakeAgent()
        transport = StringTransport()
        asked = _Socket(agent).buildProtocol(None)
        assert asked is not None
        asked.makeConnection(transport)
        asked.dataReceived(line + b"\n")
        (said,) = transport.value().splitlines()
        self.assertIn(b'"error"', said)
        self.assertEqual(agent.published, [])
