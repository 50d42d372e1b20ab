"""
Targets as people write them, and what a dial to one may raise.
"""

from __future__ import annotations

import os
import socket
import ssl
from typing import Any
from unittest.mock import patch

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.agent.targets import check_targets, dial_target, target_endpoint
from relaytunnel.channel.edges import EdgeWatch
from relaytunnel.channel.identity import own_identity
from relaytunnel.channel.tls import RelayTLS
from relaytunnel.config import AgentConfig, Limits, ServerConfig
from relaytunnel.errors import ConfigError
from tests.running import HOST, RunningCase, Target, eventually, hello_page, reactor, request


class EndpointTests(SynchronousTestCase):
    """
    Endpoints are made before a client needs one.
    """

    def refused(self, description: str, reason: str) -> None:
        fault = self.assertRaises(ValueError, target_endpoint, reactor, description)
        self.assertIn(reason, str(fault))

    def test_no_endpoint(self) -> None:
        """
        What no plugin knows is refused, with what may have been meant.
        """
        self.refused("foo:bar", "no endpoint begins with 'foo:'; did you mean HOST:PORT?")
        self.refused("tpc:localhost:80", "did you mean 'tcp:localhost:80'?")

    def test_wrong_certificate(self) -> None:
        """
        A certificate that is not there, or none, is told with its file.
        """
        self.refused("tls:localhost:443:certificate=/nowhere.pem", "/nowhere.pem: No such file")
        path = self.mktemp()
        with open(path, "w", encoding="ascii") as file:
            file.write("no certificate")
        self.refused(
            f"tls:localhost:443:certificate={path}:privateKey={path}",
            "its certificate or key cannot be used: no start line",
        )

    def test_every_fault(self) -> None:
        """
        The faults of all servers are told at once, each with its server.
        """
        servers = [
            ServerConfig(id=name, target=where)
            for name, where in (("a", "foo:bar"), ("b", "127.0.0.1:80"), ("c", "bar:foo"))
        ]
        fault = self.assertRaises(ConfigError, check_targets, reactor, servers)
        self.assertEqual([each.split()[1] for each in fault.faults], ["'a'", "'c'"])

    def test_urls(self) -> None:
        """
        Twisted makes endpoints of what URLs mean, of addresses as well.
        """
        for url in ("https://[::1]:8443/", "https://web.example", "http://[::1]", "http://a:1/"):
            check_targets(reactor, [ServerConfig(id="web", target=url)])


class DialTests(RunningCase):
    """
    Whatever comes of a dial is told to its client, and to nobody else.
    """

    async def test_raises(self) -> None:
        """
        An endpoint that raises instead of failing costs its client a 502, and
        the other servers of the agent nothing.
        """

        class Raises:
            def connect(self, factory: object) -> Deferred[Any]:
                raise OverflowError("a plugin's own fault")

        relay = self.start_relay()
        target = self.target(hello_page)
        agent = await self.start_agent(
            relay, self.server("web", target.address), self.server("raises", "tcp:localhost:1")
        )
        before = agent.control
        with patch("relaytunnel.agent.targets.clientFromString", lambda *given: Raises()):
            self.assertTrue((await self.get(relay, "raises")).startswith("HTTP/1.1 502 "))
        with patch("relaytunnel.agent.targets.clientFromString", side_effect=OSError("gone")):
            self.assertTrue((await self.get(relay, "raises")).startswith("HTTP/1.1 502 "))
        self.assertIn("hello", await self.get(relay, "web"))
        self.assertIs(agent.control, before)
        await eventually(lambda: not agent.state.visits, "no visit is left")

    async def test_start_and_reload(self) -> None:
        """
        No agent starts with what is no endpoint, nor reloads it.
        """
        relay = self.start_relay()
        bad = self.server("bad", "foo:bar")
        invitation = self.first_invitation(relay)
        self.assertRaises(ConfigError, self.new_agent, invitation, bad)
        agent = await self.start_agent(relay, self.server("web", f"{HOST}:1"))
        config = AgentConfig(join=str(invitation), servers=(bad,))
        self.assertRaises(ConfigError, agent.reload, config)
        self.assertRaises(ConfigError, agent.publish, bad)
        self.assertEqual([server.config.id for server in agent.state.servers], ["web"])

    async def test_url(self) -> None:
        """
        C{http://HOST:PORT} means HOST:PORT, which is said once.
        """
        relay = self.start_relay()
        target = self.target(hello_page)
        logged = self.logged()
        url = f"http://{target.address}/"
        await self.start_agent(relay, self.server("web", url))
        for _ in range(2):
            self.assertIn("hello", await self.get(relay, "web"))
        notes = [text for text in logged if url in text]
        self.assertEqual(notes, [f"web: the target {url} means tcp:{target.address}, plain TCP"])

    async def test_given_up(self) -> None:
        """
        A target that takes the connection and says nothing of TLS is given up
        with its client, and leaves no socket.
        """
        relay = self.start_relay()
        target = self.target()
        await self.start_agent(
            relay, self.server("web", f"https://{target.address}"), limits={"dial": 0.3}
        )
        answer = await self.get(relay, "web")
        self.assertTrue(answer.startswith("HTTP/1.1 504 "), answer)
        visit = await target.visit()
        await eventually(lambda: visit.lost is not None, "it is gone")

    async def test_cancelled_at_once(self) -> None:
        """
        A dial that is given up at once fails as cancelled, and no more.
        """
        edges = EdgeWatch(reactor)
        dialling = dial_target(reactor, Limits(), edges, f"tcp:{HOST}:1")
        dialling.cancel()
        self.failureResultOf(dialling)
        edges.close()


class TLSTests(RunningCase):
    """
    C{https://HOST}: TLS with the target, its certificate verified.
    """

    def setUp(self) -> None:
        super().setUp()
        self.directory = self.mktemp()
        os.mkdir(self.directory)
        self.identity = own_identity(self.directory, HOST)
        trusted = os.path.abspath(os.path.join(self.directory, "certificate.pem"))
        self.trusted = {"SSL_CERT_FILE": trusted}

    def tls_target(self, name: str = HOST) -> str:
        """
        @return: the URL of a target that speaks TLS.
        """
        factory = TLSMemoryBIOFactory(RelayTLS(self.identity), False, Target(hello_page))
        port = reactor.listenTCP(0, factory, interface=HOST)
        self.addCleanup(port.stopListening)
        return f"https://{name}:{port.getHost().port}/"

    async def test_verified(self) -> None:
        """
        A certificate that this machine trusts is good, and the client's end is
        carried on.
        """
        relay = self.start_relay()
        with patch.dict(os.environ, self.trusted):
            agent = await self.start_agent(relay, self.server("web", self.tls_target()))
            client = await self.client(relay, request("web"))
            self.assertIn(b"hello", await client.end_of_all())
        self.assertFalse(client.was_reset)
        client.close()
        await eventually(lambda: not agent.splices, "the session is over")

    async def test_not_trusted(self) -> None:
        """
        One that it does not is a 502 that says so, without the address.
        """
        relay = self.start_relay()
        await self.start_agent(relay, self.server("web", self.tls_target()))
        answer = await self.get(relay, "web")
        self.assertTrue(answer.startswith("HTTP/1.1 502 "), answer)
        self.assertIn("target-unreachable", answer)
        self.assertIn("certificate verify failed", answer)
        self.assertNotIn(HOST, answer)

    async def test_another_name(self) -> None:
        """
        So is one of another name.
        """
        relay = self.start_relay()
        with patch.dict(os.environ, self.trusted):
            await self.start_agent(relay, self.server("web", self.tls_target("localhost")))
            answer = await self.get(relay, "web")
        self.assertTrue(answer.startswith("HTTP/1.1 502 "), answer)
        self.assertIn("the target's certificate is for another name", answer)

    async def test_no_tls(self) -> None:
        """
        A target that speaks no TLS is one as well.
        """
        relay = self.start_relay()
        target = self.target(lambda peer: peer.say(b"HTTP/1.1 400 Bad Request\r\n\r\n"))
        await self.start_agent(relay, self.server("web", f"https://{target.address}"))
        answer = await self.get(relay, "web")
        self.assertTrue(answer.startswith("HTTP/1.1 502 "), answer)
        self.assertIn("there is no TLS with the target", answer)

    async def test_half_closed(self) -> None:
        """
        A target that waits for its client's end hears of it, and its answer of
        1 MB still comes.
        """
        own_identity(self.directory, HOST)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(
            self.trusted["SSL_CERT_FILE"], os.path.join(self.directory, "key.pem")
        )
        listening = socket.create_server((HOST, 0))
        self.addCleanup(listening.close)

        def serve() -> bytes:
            plain, _ = listening.accept()
            plain.settimeout(10)
            heard = b""
            with context.wrap_socket(plain, server_side=True) as talking:
                while data := talking.recv(65536):
                    heard += data
                talking.sendall(b"y" * 1_000_000)
                talking.unwrap()
            return heard

        serving = deferToThread(serve)
        relay = self.start_relay()
        with patch.dict(os.environ, self.trusted):
            url = f"https://{HOST}:{listening.getsockname()[1]}"
            agent = await self.start_agent(relay, self.server("web", url))
            client = await self.client(relay, request("web") + b"x" * 200_000)
            client.end()
            self.assertEqual(await client.end_of_all(), b"y" * 1_000_000)
        self.assertEqual(len(await serving), len(request("web")) + 200_000)
        await eventually(lambda: not agent.splices, "the session is over")
