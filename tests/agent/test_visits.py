"""
What a client of a real agent meets when its server does not behave.
"""

from __future__ import annotations

import contextlib
import os
import socket

from twisted.internet.error import (
    ConnectError,
    ConnectionRefusedError,
    DNSLookupError,
    NoRouteError,
    TCPTimedOutError,
)
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.agent.service import AgentService
from relaytunnel.agent.targets import describe_target
from relaytunnel.channel.identity import own_identity
from relaytunnel.channel.tls import RelayTLS
from relaytunnel.errors import Code
from relaytunnel.relay.service import RelayService
from tests.running import HOST, Peer, RunningCase, Target, eventually, hello_page, reactor, request

_OPTIONS = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
)


class TargetTests(RunningCase):
    """
    S9: targets that cannot be reached.
    """

    async def test_refuses(self) -> None:
        """
        A target that refuses is a 502 with the reason, and the address inside
        is not told.
        """
        relay = self.start_relay()
        await self.start_agent(relay, self.server("web", f"{HOST}:1"))
        answer = await self.get(relay, "web")
        self.assertTrue(answer.startswith("HTTP/1.1 502 "), answer)
        self.assertIn("refused-by-target: the target refused the connection", answer)
        self.assertNotIn(HOST, answer)

    async def test_hangs(self) -> None:
        """
        A target that does not answer is a 504 when the agent's patience ends.
        """
        relay = self.start_relay()
        agent = await self.start_agent(
            relay, self.server("web", self.hanging()), limits={"dial": 0.3}
        )
        began = reactor.seconds()
        answer = await self.get(relay, "web")
        self.assertTrue(answer.startswith("HTTP/1.1 504 "), answer)
        self.assertIn("did not answer within 0.3 s", answer)
        self.assertLess(reactor.seconds() - began, 2)
        self.assertEqual(agent.state.visits, {})

    async def test_no_such_socket(self) -> None:
        """
        A UNIX socket that is not there is a 502.
        """
        relay = self.start_relay()
        await self.start_agent(relay, self.server("web", "unix:/nowhere/at.all"))
        answer = await self.get(relay, "web")
        self.assertTrue(answer.startswith("HTTP/1.1 502 "), answer)
        self.assertNotIn("nowhere", answer)

    async def test_unix(self) -> None:
        """
        A UNIX socket is as good as a port.
        """
        path = self.mktemp()
        target = Target(hello_page)
        port = reactor.listenUNIX(path, target)
        self.addCleanup(port.stopListening)
        relay = self.start_relay()
        await self.start_agent(relay, self.server("web", f"unix:{path}"))
        self.assertIn("hello", await self.get(relay, "web"))

    async def test_ipv6(self) -> None:
        """
        Where the control channel goes over IPv6, the data channels do, too.
        """
        relay = self.start_relay(name="::1", agents="tcp6:0:interface=\\:\\:1")
        target = self.target(hello_page)
        await self.start_agent(relay, self.server("web", target.address))
        self.assertIn("hello", await self.get(relay, "web"))
        (agent,) = relay.registry.agents.values()
        self.assertEqual(agent.host, "::1")

    async def test_tls(self) -> None:
        """
        A target that speaks TLS is spoken to in TLS, and its close, which ends
        both directions, is a clean end for the client.
        """
        directory = self.mktemp()
        os.mkdir(directory)
        identity = own_identity(directory, HOST)
        os.unlink(os.path.join(directory, "key.pem"))
        factory = TLSMemoryBIOFactory(RelayTLS(identity), False, Target(hello_page))
        port = reactor.listenTCP(0, factory, interface=HOST)
        self.addCleanup(port.stopListening)
        relay = self.start_relay()
        target = f"tls:{HOST}:{port.getHost().port}:trustRoots={directory}"
        agent = await self.start_agent(relay, self.server("web", target))
        client = await self.client(relay, request("web"))
        self.assertIn(b"hello", await client.end_of_all())
        self.assertFalse(client.was_reset)
        client.close()
        await eventually(lambda: not agent.splices, "the session is over")

    async def test_resets_at_once(self) -> None:
        """
        A target that resets as soon as it is reached is a reset or a 502 for
        the client, and never a silent end.
        """
        relay = self.start_relay()
        target = self.target()
        self.patch(target, "buildProtocol", lambda address: _Resets())
        await self.start_agent(relay, self.server("web", target.address))
        client = await self.client(relay, request("web"))
        await client.end_of_all()
        self.assertTrue(client.was_reset or client.received.startswith(b"HTTP/1.1 502 "))

    async def test_closes_at_once(self) -> None:
        """
        A target that closes without a word is a clean end without a word.
        """
        relay = self.start_relay()
        target = self.target()
        self.patch(target, "buildProtocol", lambda address: _Closes())
        agent = await self.start_agent(relay, self.server("web", target.address))
        client = await self.client(relay, request("web"))
        self.assertEqual(await client.end_of_all(), b"")
        client.close()
        await eventually(lambda: not agent.splices, "the session is over")

    async def test_another_client(self) -> None:
        """
        What goes wrong for one client is no matter for the next.
        """
        relay = self.start_relay()
        target = self.target(hello_page)
        await self.start_agent(
            relay, self.server("web", target.address), self.server("dead", f"{HOST}:1")
        )
        for _ in range(2):
            self.assertIn("502", await self.get(relay, "dead"))
            self.assertIn("hello", await self.get(relay, "web"))


class _Resets(Peer):
    def connectionMade(self) -> None:
        self.reset()


class _Closes(Peer):
    def connectionMade(self) -> None:
        self.close()


class SessionTests(RunningCase):
    """
    S11 to S20: ends and resets, through relay and agent.
    """

    async def begin(self) -> tuple[RelayService, AgentService, Peer, Peer]:
        """
        Have a client talk with a server.
        """
        relay = self.start_relay()
        target = self.target()
        agent = await self.start_agent(relay, self.server("web", target.address))
        client = await self.client(relay, request("web"))
        visit = await target.visit()
        await visit.hears(request("web"))
        return relay, agent, client, visit

    async def over(self, relay: RelayService, agent: AgentService) -> None:
        await eventually(lambda: not agent.splices, "it is over at the agent")
        await eventually(lambda: not relay.clients.splices, "it is over at the relay")
        self.assertEqual(agent.state.visits, {})
        self.assertEqual(relay.visits.sessions, {})
        room = relay.visits.room
        self.assertEqual((room.waiting, room.served), (0, 0))

    async def test_keepalive(self) -> None:
        """
        Each end of ours of all four channels has keepalive; those of control
        channels, which are always read, have a user timeout as well.
        """
        relay, _, client, visit = await self.begin()
        agents = relay.facts.agents
        theirs = (client.transport.fileno(), visit.transport.fileno())
        found: dict[tuple[bool, int], list[tuple[int, ...]]] = {}
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(name))) as sock:
                ports = sock.getpeername()[1], sock.getsockname()[1]
                if int(name) not in theirs:
                    options = tuple(sock.getsockopt(*option) for option in _OPTIONS)
                    kind = (agents in ports, max(options) > 60)
                    found.setdefault(kind, []).append(options)
        alive = (1, 60, 10, 6)
        self.assertEqual(
            found,
            {
                (True, True): [(*alive, 60_000)] * 2,  # control
                (True, False): [(*alive, 0)] * 2,  # data
                (False, False): [(*alive, 0)] * 2,  # client and server
            },
        )

    async def test_client_ends_first(self) -> None:
        """
        The client's end reaches the server, whose answer still comes.
        """
        relay, agent, client, visit = await self.begin()
        client.end()
        await visit.end_of_all()
        visit.say(b"x" * 200_000)
        visit.close()
        self.assertEqual(len(await client.end_of_all()), 200_000)
        await self.over(relay, agent)

    async def test_server_ends_first(self) -> None:
        """
        The server's end reaches the client, whose words still go.
        """
        relay, agent, client, visit = await self.begin()
        visit.end()
        await client.end_of_all()
        client.say(b"one more thing")
        client.close()
        self.assertTrue((await visit.end_of_all()).endswith(b"one more thing"))
        await self.over(relay, agent)

    async def test_client_resets(self) -> None:
        """
        The client's reset is one for the server.
        """
        relay, agent, client, visit = await self.begin()
        client.reset()
        await visit.is_reset()
        self.assertFalse(visit.ended)
        await self.over(relay, agent)

    async def test_server_resets(self) -> None:
        """
        The server's reset is one for the client.
        """
        relay, agent, client, visit = await self.begin()
        visit.reset()
        await client.is_reset()
        self.assertFalse(client.ended)
        await self.over(relay, agent)

    async def test_server_answers_and_closes(self) -> None:
        """
        A server that answers an upload early and closes is heard to the end.
        """
        relay, agent, client, visit = await self.begin()
        client.say(b"x" * 2_000_000)
        visit.say(b"413 too large")
        visit.close()
        self.assertEqual(await client.end_of_all(), b"413 too large")
        client.close()
        await self.over(relay, agent)

    async def test_no_limit_is_held(self) -> None:
        """
        A client that does not read holds the server back.
        """
        _, _, client, visit = await self.begin()
        client.transport.pauseProducing()
        producer = _Flood(visit)
        visit.transport.registerProducer(producer, True)
        await eventually(lambda: producer.paused, "the server is held back", 20)
        before = producer.written
        client.transport.resumeProducing()
        await eventually(lambda: len(client.received) >= before, "all of it comes", 20)
        visit.transport.unregisterProducer()

    async def test_control_channel_is_lost(self) -> None:
        """
        A running session goes on when the control channel is killed, and the
        agent publishes its server again.
        """
        relay, agent, client, visit = await self.begin()
        before = relay.registry.agents["first"]
        assert agent.control is not None
        agent.control.abort("the test")
        await eventually(
            lambda: relay.registry.agents.get("first") not in (None, before), "it is back"
        )
        await self.published(agent)
        visit.say(b"still here")
        await client.hears(b"still here")


class _Flood:
    """
    Writes as long as it may.
    """

    paused = False
    written = 0

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        reactor.callLater(0, self.resumeProducing)

    def resumeProducing(self) -> None:
        self.paused = False
        while not self.paused and self.written < 100_000_000:
            self.written += 65536
            self._peer.say(bytes(65536))

    def pauseProducing(self) -> None:
        self.paused = True

    def stopProducing(self) -> None:
        self.paused = True


class ReasonTests(SynchronousTestCase):
    """
    What is said of a target that could not be reached.
    """

    def test_reasons(self) -> None:
        """
        Each kind of failure has its code.
        """
        for fault, code in (
            (ConnectionRefusedError(), Code.REFUSED_BY_TARGET),
            (ConnectTimeout(), Code.TIMEOUT),
            (TCPTimedOutError(), Code.TIMEOUT),
            (DNSLookupError(), Code.TARGET_UNREACHABLE),
            (NoRouteError(), Code.TARGET_UNREACHABLE),
            (ConnectError(), Code.TARGET_UNREACHABLE),
            (ValueError("10.1.2.3 is inside"), Code.TARGET_UNREACHABLE),
        ):
            failing = describe_target(Failure(fault), 5.0)
            self.assertIs(failing.code, code, fault)
            self.assertTrue(failing.reason)

    def test_nothing_from_inside(self) -> None:
        """
        No address from inside is told.
        """
        for kind in (ConnectionRefusedError, DNSLookupError, NoRouteError, ConnectError):
            failing = describe_target(Failure(kind("10.1.2.3:22 is inside")), 5.0)
            self.assertNotIn("10.1.2.3", failing.reason)
