"""
An agent that is given another configuration, and one that lets its sessions
end.
"""

from __future__ import annotations

import msgspec

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from relaytunnel.accounts.secrets import hash_generated
from relaytunnel.config import AgentConfig, Limits, ServerConfig
from relaytunnel.errors import ConfigError
from tests.running import RunningCase, echo, eventually, reactor, request


class _Running(RunningCase):
    """
    An agent with the servers C{web} and C{wiki}, and a session with C{web}.
    """

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        super().setUp()
        self.relay = self.start_relay()
        self.target_of_all = self.target(echo)
        self.web, self.wiki = (
            self.server(name, self.target_of_all.address) for name in ("web", "wiki")
        )
        self.agent = await self.start_agent(self.relay, self.web, self.wiki)
        self.visitor = await self.client(self.relay, request("web"))
        await self.visitor.hears(request("web"))

    async def goes_on(self) -> None:
        """
        Assert that the session that runs still does.
        """
        self.visitor.say(b"once more")
        await eventually(lambda: self.visitor.received.endswith(b"once more"), "it is heard")

    def with_servers(self, *servers: ServerConfig) -> AgentConfig:
        return msgspec.structs.replace(self.agent._config, servers=servers)

    async def names(self, *names: str) -> None:
        """
        Wait until exactly these servers are published.
        """
        await eventually(lambda: set(self.relay.registry.servers) == set(names), "they are there")


class ReloadTests(_Running):
    """
    Another configuration.
    """

    async def test_nothing(self) -> None:
        """
        The same configuration changes nothing.
        """
        kept = self.relay.registry.servers["web"]
        self.assertEqual(self.agent.reload(self.agent._config), [])
        self.assertIs(self.relay.registry.servers["web"], kept)
        await self.goes_on()

    async def test_servers(self) -> None:
        """
        Servers come, go and change; who stays is not touched, and sessions go
        on, whatever becomes of their server.
        """
        kept = self.relay.registry.servers["web"]
        new = self.server("new", self.target_of_all.address)
        changed = self.agent.reload(self.with_servers(self.web, new))
        self.assertEqual(
            changed, ["[[server]] 'wiki' is withdrawn", "[[server]] 'new' is published"]
        )
        await self.names("web", "new")
        self.assertIs(self.relay.registry.servers["web"], kept)
        listed = msgspec.structs.replace(self.web, listed=True)
        self.assertEqual(
            self.agent.reload(self.with_servers(listed, new)), ["[[server]] 'web' is changed"]
        )
        await eventually(lambda: self.relay.registry.servers["web"].listed, "it is listed")
        self.agent.reload(self.with_servers(new))
        await self.names("new")
        await self.goes_on()

    async def test_asked_for(self) -> None:
        """
        A server that was asked for while the agent runs stays.
        """
        await self.agent.publish(self.server("asked", self.target_of_all.address))
        self.agent.reload(self.with_servers(self.web))
        await self.names("web", "asked")

    async def test_limits(self) -> None:
        """
        Other limits hold from now on.
        """
        limits = Limits(dial=0.7)
        config = msgspec.structs.replace(self.agent._config, limits=limits)
        self.assertEqual(self.agent.reload(config), ["[limits]"])
        self.assertIs(self.agent.limits, limits)
        await self.goes_on()

    async def test_fixed(self) -> None:
        """
        Another relay refuses all of it.
        """
        config = msgspec.structs.replace(
            self.with_servers(), join="relaytunnel://a:b@other:7000/", ca="/other"
        )
        with self.assertRaises(ConfigError) as caught:
            self.agent.reload(config)
        self.assertEqual(
            [fault.partition(":")[0] for fault in caught.exception.faults],
            ["[agent] join", "[agent] ca"],
        )
        await self.names("web", "wiki")


class DrainTests(_Running):
    """
    Letting sessions end.
    """

    async def test_sessions_end(self) -> None:
        """
        Its servers are withdrawn, and the session that runs goes on to its
        end.
        """
        over: list[object] = []
        self.agent.drain().addCallback(over.append)
        await self.names()
        await self.goes_on()
        self.assertEqual(over, [])
        self.visitor.reset()
        await eventually(lambda: over, "it is over")

    async def test_password_being_compared(self) -> None:
        """
        A client whose password is being compared is waited for, and served.
        """
        guarded = msgspec.structs.replace(self.wiki, users=(("alice", hash_generated("secret")),))
        self.agent.reload(self.with_servers(self.web, guarded))
        await eventually(lambda: self.relay.registry.servers["wiki"].users, "it is guarded")
        compared: Deferred[bool] = Deferred()
        self.patch(self.agent._passwords, "check", lambda *given: compared)
        login = b"Authorization: Basic YWxpY2U6c2VjcmV0\r\n"
        said = request("wiki").removesuffix(b"\r\n") + login + b"\r\n"
        client = await self.client(self.relay, said)
        await eventually(lambda: self.agent.state.comparing, "it is being compared")
        over: list[object] = []
        self.agent.drain().addCallback(over.append)
        self.visitor.reset()
        await eventually(lambda: not self.agent.splices, "the other session is over")
        await deferLater(reactor, 0.2)
        self.assertEqual(over, [])
        compared.callback(True)
        await client.hears(said)
        self.assertEqual(over, [])
        client.reset()
        await eventually(lambda: over, "it is over")

    async def test_reconnects_meanwhile(self) -> None:
        """
        An agent that comes back while it drains publishes nothing any more.
        """
        draining = self.agent.drain()
        await self.names()
        control = self.agent.control
        assert control is not None
        control.abort("a test")
        await eventually(lambda: self.agent.control not in (None, control), "it is back")
        self.agent._register_again()
        await deferLater(reactor, 0.2)
        self.assertEqual(set(self.relay.registry.servers), set())
        self.visitor.reset()
        await draining

    async def test_too_long(self) -> None:
        """
        It waits for so long and no longer.
        """
        self.agent.reload(msgspec.structs.replace(self.agent._config, limits=Limits(drain=0.1)))
        began = reactor.seconds()
        await self.agent.drain()
        self.assertGreaterEqual(reactor.seconds() - began, 0.1)
        self.assertTrue(self.agent.splices)


del _Running
