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
from relaytunnel.config.access import networks
from relaytunnel.config.names import Reach
from relaytunnel.errors import Code, ConfigError, InvitationError, Rejection, StateError
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
        Another authority, or another socket, refuses all of it.
        """
        config = msgspec.structs.replace(self.with_servers(), ca="/other", local="/socket")
        with self.assertRaises(ConfigError) as caught:
            self.agent.reload(config)
        self.assertEqual(
            [fault.partition(":")[0] for fault in caught.exception.faults],
            ["[agent] ca", "[agent] local"],
        )
        await self.names("web", "wiki")

    async def test_invitation(self) -> None:
        """
        A changed join-file is taken: the agent comes back with the new secret,
        and the session that runs goes on.
        """
        path = self.mktemp()
        rotated = self.accounts(self.relay).rotate("first")
        invitation = self.relay.facts.invitation("first", rotated)
        with open(path, "w", encoding="ascii") as file:
            file.write(f"{invitation}\n")
        before = self.agent.control
        config = msgspec.structs.replace(self.agent._config, join=None, join_file=path)
        self.assertEqual(self.agent.reload(config), ["the invitation"])
        self.assertEqual(self.agent.state.secret, rotated)
        await eventually(lambda: self.agent.control not in (None, before), "it is back")
        await self.published(self.agent)
        await self.names("web", "wiki")
        await self.goes_on()
        # The same again changes nothing.
        self.assertEqual(self.agent.reload(config), [])

    async def test_two_invitations(self) -> None:
        """
        Of two that come at once the last one is taken, also where it is
        another agent's at another relay.
        """
        other = self.start_relay()
        changes = [
            self.relay.facts.invitation("first", "not yet right"),
            self.first_invitation(other),
        ]
        for invitation in changes:
            config = msgspec.structs.replace(self.agent._config, join=str(invitation))
            self.assertEqual(self.agent.reload(config), ["the invitation"])
        await eventually(lambda: set(other.registry.servers) == {"web", "wiki"}, "it is there")
        await self.names()
        await self.goes_on()
        client = await self.client(other, request("web"))
        await client.hears(request("web"))
        client.close()

    async def test_no_invitation(self) -> None:
        """
        A file that holds none is refused, and all is as before.
        """
        path = self.mktemp()
        config = msgspec.structs.replace(self.with_servers(), join=None, join_file=path)
        self.assertRaises(StateError, self.agent.reload, config)
        with open(path, "w", encoding="ascii") as file:
            file.write("none")
        self.assertRaises(InvitationError, self.agent.reload, config)
        await self.names("web", "wiki")

    async def test_withdrawn_by_command(self) -> None:
        """
        What the file says is published again, though a command has withdrawn it
        or put another in its place.
        """
        self.agent.withdraw("wiki")
        other = self.server("web", "127.0.0.1:1")
        await self.agent.publish(other)
        await self.names("web")
        self.assertEqual(
            sorted(self.agent.reload(self.agent._config)),
            ["[[server]] 'web' is changed", "[[server]] 'wiki' is published"],
        )
        await self.names("web", "wiki")
        server = self.agent.state.servers.get("web")
        self.assertEqual(server and server.config, self.web)


class PublishTests(_Running):
    """
    Servers that a command asks for.
    """

    async def test_refused(self) -> None:
        """
        One that the relay refuses is wanted no more: it does not come by
        itself when the relay would take it.
        """
        invitation = self.invite(self.relay, "second")
        owner = await self.raw_agent(self.relay, "new", invitation=invitation)
        new = self.server("new", self.target_of_all.address)
        with self.assertRaises(Rejection) as caught:
            await self.agent.publish(new)
        self.assertIs(caught.exception.code, Code.CONFLICT)
        self.assertIs(self.agent.state.servers.get("new"), None)
        owner.abort()
        await self.names("web", "wiki")
        self.agent._register_again()
        await deferLater(reactor, 0.2)
        await self.names("web", "wiki")

    async def test_refused_instead(self) -> None:
        """
        A refusal leaves what was published under that name.
        """
        taken = self.server("web", "127.0.0.1:1", "port:1")
        await self.assertFailure(self.agent.publish(taken), Rejection)
        await self.names("web", "wiki")
        await self.published(self.agent)
        server = self.agent.state.servers.get("web")
        self.assertEqual(server and server.config, self.web)
        client = await self.client(self.relay, request("web"))
        await client.hears(request("web"))

    async def test_protected(self) -> None:
        """
        Publishing again changes the target, and opens nothing.
        """
        guarded = msgspec.structs.replace(
            self.wiki,
            users=(("alice", hash_generated("secret")),),
            allow=networks(["127.0.0.0/8"]),
            reach=(Reach("host", "wiki.localhost"),),
        )
        self.agent.reload(self.with_servers(self.web, guarded))
        await eventually(lambda: self.relay.registry.servers["wiki"].users, "it is guarded")
        server = await self.agent.publish(ServerConfig.from_option("wiki=127.0.0.1:1"))
        self.assertEqual(server.config, msgspec.structs.replace(guarded, target="tcp:127.0.0.1:1"))
        published = self.relay.registry.servers["wiki"]
        self.assertTrue(published.users and published.allow)
        self.assertEqual([str(way) for way in published.reach], ["host:wiki.localhost"])
        # No password can be given at a port.
        self.assertRaises(
            ConfigError, self.agent.publish, ServerConfig.from_option("wiki=127.0.0.1:1,port=0")
        )
        self.assertIs(self.agent.state.servers.get("wiki"), server)


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
