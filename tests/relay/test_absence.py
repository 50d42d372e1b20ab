"""
What is left at the relay of agents that are not connected.
"""

from __future__ import annotations

from msgspec.structs import replace

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError
from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.relay.awaymemory import AwayMemory
from relaytunnel.relay.service import RelayService
from relaytunnel.wire.data import Kind
from relaytunnel.wire.messages import Accept, Goodbye, Notify, Register, Rejected
from tests.running import HOST, Peer, RawControl, RunningCase, eventually, request


class AcceptedTests(RunningCase):
    """
    S8 to S10: sessions that an agent has accepted, and then lost its control
    channel.
    """

    async def begin(self, accept: bool = True) -> tuple[RelayService, RawControl, Notify, Peer]:
        """
        Have an agent accept a client, by hand.
        """
        relay = self.start_relay({"waiting": 5})
        control = await self.raw_agent(relay, "web")
        client = await self.client(relay, request("web"))
        notify = await control.hears(Notify)
        if accept:
            control.say(Accept(session=notify.session))
            place = relay.visits.sessions[notify.session]
            await eventually(lambda: place.accepted, "the session is accepted")
        return relay, control, notify, client

    async def gone(self, relay: RelayService) -> None:
        await eventually(lambda: not relay.registry.agents, "the agent is gone")

    async def test_joins(self) -> None:
        """
        The data channel comes though the control channel is lost since, and
        carries the session; its ticket is good once.
        """
        relay, control, notify, client = await self.begin()
        control.abort()
        await self.gone(relay)
        data = await self.raw_data(relay, notify.ticket)
        await data.hears(request("web"))
        data.say(b"hello")
        await client.hears(b"hello")
        again = await self.raw_data(relay, notify.ticket)
        await again.hears_kind(Kind.RESET)

    async def test_not_accepted(self) -> None:
        """
        One that was not accepted is told at once, and its ticket is void.
        """
        relay, control, notify, client = await self.begin(accept=False)
        control.abort()
        await client.hears(b"503")
        data = await self.raw_data(relay, notify.ticket)
        await data.hears_kind(Kind.RESET)

    async def test_never_joins(self) -> None:
        """
        An agent that does not come after all costs its client the deadline of
        the ticket, and nothing is left.
        """
        relay = self.start_relay({"waiting": 1})
        control = await self.raw_agent(relay, "web")
        client = await self.client(relay, request("web"))
        notify = await control.hears(Notify)
        control.say(Accept(session=notify.session))
        place = relay.visits.sessions[notify.session]
        await eventually(lambda: place.accepted, "the session is accepted")
        control.abort()
        await client.hears(b"504")
        await client.end_of_all()
        self.assertEqual((relay.visits.sessions, relay.visits.room.waiting), ({}, 0))

    async def test_back(self) -> None:
        """
        The agent may come back meanwhile, and what it says of the session on
        its new control channel is no fault.
        """
        relay, control, notify, client = await self.begin()
        again = await self.raw_agent(relay, "web")
        await control.hears(Goodbye)
        again.say(Accept(session=notify.session))
        data = await self.raw_data(relay, notify.ticket)
        await data.hears(request("web"))
        self.assertIn("first", relay.registry.agents)
        client.close()

    async def test_revoked(self) -> None:
        """
        When the account is revoked, what it had accepted is called off, though
        it is away.
        """
        relay, control, notify, client = await self.begin()
        control.abort()
        await self.gone(relay)
        self.accounts(relay).revoke("first")
        await client.hears(b"503")
        data = await self.raw_data(relay, notify.ticket)
        await data.hears_kind(Kind.RESET)

    async def test_goodbye(self) -> None:
        """
        An agent that leaves for good has called it off itself.
        """
        relay, control, notify, client = await self.begin()
        control.say(Goodbye(code="shutdown"))
        await client.hears(b"503")
        data = await self.raw_data(relay, notify.ticket)
        await data.hears_kind(Kind.RESET)


class AwayTests(RunningCase):
    """
    What clients are told of servers whose agent is not there.
    """

    async def test_planned_stop(self) -> None:
        """
        An agent that drains and stops is away for its clients from the
        beginning, and they are told when to come again.
        """
        relay = self.start_relay()
        agent = await self.start_agent(relay, self.server("web", f"{HOST}:1"))
        await agent.drain()
        await eventually(lambda: not relay.registry.servers, "it is published no more")
        for _ in range(2):
            answer = await self.get(relay, "web")
            self.assertIn("503", answer.split("\r\n")[0])
            self.assertIn("Retry-After: 15", answer)
            await agent.stopService()
            await eventually(lambda: not relay.registry.agents, "the agent is gone")

    async def test_withdrawn(self) -> None:
        """
        What is withdrawn by a command, or was in a file, does not exist.
        """
        relay = self.start_relay()
        agent = await self.start_agent(
            relay, self.server("web", f"{HOST}:1"), self.server("other", f"{HOST}:1")
        )
        agent.withdraw("web")
        agent.reload(replace(agent._config, servers=()))
        await eventually(lambda: not relay.registry.servers, "both are withdrawn")
        await agent.stopService()
        for name in ("web", "other"):
            self.assertIn("404", (await self.get(relay, name)).split("\r\n")[0])

    async def test_revoked(self) -> None:
        """
        What a revoked agent published does not exist either, whether it was
        there or away.
        """
        relay = self.start_relay()
        there = await self.start_agent(relay, self.server("web", f"{HOST}:1"))
        invitation = self.invite(relay, "second")
        away = await self.start_agent(
            relay, self.server("mail", f"{HOST}:1"), invitation=invitation
        )
        await away.stopService()
        self.assertIn("503", await self.get(relay, "mail"))
        for agent in ("first", "second"):
            self.accounts(relay).revoke(agent)
        await eventually(lambda: not relay.registry.agents, "it is revoked")
        await eventually(lambda: not len(relay.registry.away), "nothing is remembered")
        for name in ("web", "mail"):
            self.assertIn("404", (await self.get(relay, name)).split("\r\n")[0])
        await there.stopService()

    async def test_restart(self) -> None:
        """
        A relay that has run before does not know what its agents publish
        until they are back; when all are, it does.
        """
        relay = self.start_relay()
        self.assertIn("404", (await self.get(relay, "web")).split("\r\n")[0])
        agent = await self.start_agent(relay, self.server("web", f"{HOST}:1"))
        invitation = self.first_invitation(relay)
        account = self.accounts(relay)
        await eventually(lambda: account.agents()[0].last_seen, "it is known to have been there")
        await agent.stopService()
        await relay.stopService()
        relay = self.start_relay(state=relay.config.state)
        answer = await self.get(relay, "web")
        self.assertIn("503", answer.split("\r\n")[0])
        self.assertIn("Retry-After: 15", answer)
        await self.start_agent(
            relay,
            self.server("web", f"{HOST}:1"),
            invitation=relay.facts.invitation(invitation.agent, invitation.secret),
        )
        self.assertIn("502", await self.get(relay, "web"))
        await eventually(lambda: not relay.registry.returning(), "all are back")
        self.assertIn("404", (await self.get(relay, "other")).split("\r\n")[0])


class MemoryTests(SynchronousTestCase):
    """
    Names that are remembered.
    """

    def setUp(self) -> None:
        self.now = 0.0
        self.memory = AwayMemory(lambda: self.now, most=4, kept=10.0)

    def test_an_hour(self) -> None:
        """
        They are forgotten when their time is over.
        """
        self.memory.remember("a", [("name", "web")])
        self.now = 9.9
        self.assertIn(("name", "web"), self.memory)
        self.now = 10.0
        self.assertNotIn(("name", "web"), self.memory)
        self.assertEqual(len(self.memory), 0)

    def test_the_largest_pays(self) -> None:
        """
        One agent with many names has none of another's forgotten.
        """
        self.memory.remember("a", [("name", "web")])
        for number in range(100):
            self.memory.remember("evil", [("name", f"evil{number}")])
        self.assertEqual(len(self.memory), 4)
        self.assertIn(("name", "web"), self.memory)
        self.assertIn(("name", "evil99"), self.memory)
        self.assertNotIn(("name", "evil0"), self.memory)

    def test_accounts(self) -> None:
        """
        Those of an agent without an account go, and those of others stay.
        """
        self.memory.remember("a", [("name", "web"), ("host", "web.example")])
        self.memory.remember("b", [("name", "mail")])
        self.memory.remember("b", [("name", "web")])  # it is b's now
        self.memory.keep_only(["b"])
        self.assertIn(("name", "web"), self.memory)
        self.assertNotIn(("host", "web.example"), self.memory)
        self.memory.forget_agent("b")
        self.assertEqual(len(self.memory), 0)


class KeptTests(RunningCase):
    """
    Ports of servers whose agent is expected back.
    """

    async def lost(self, **limits: float) -> tuple[RelayService, int, RawControl]:
        """
        Have an agent with a port lose its control channel.
        """
        relay = self.start_relay(limits)
        port = relay.config.ports.first
        control = await self.raw_agent(relay, Register(connection_id="ssh", reach=("port:0",)))
        control.abort()
        await eventually(lambda: not relay.registry.agents, "the agent is gone")
        return relay, port, control

    async def test_waits(self) -> None:
        """
        Who comes meanwhile is served when the agent is back, which has its port
        again though it asks for any.
        """
        relay, port, _ = await self.lost()
        client = await self.dial(port)
        client.say(b"hello")
        again = await self.raw_agent(relay, Register(connection_id="ssh", reach=("port:0",)))
        notify = await again.hears(Notify)
        self.assertEqual(notify.arrived, f"port:{port}")
        data = await self.raw_data(relay, notify.ticket)
        await data.hears(b"hello")
        data.say(b"welcome")
        await client.hears(b"welcome")
        other = await self.dial(port)
        await eventually(lambda: relay.visits.room.waiting, "the port is as before")
        for each in (client, other):
            each.reset()

    async def test_nobody_elses(self) -> None:
        """
        No other agent gets the port meanwhile, be it by its number or as any.
        """
        relay, port, _ = await self.lost()
        other = await self.raw_agent(relay, invitation=self.invite(relay, "second"))
        other.say(Register(connection_id="mine", reach=(f"port:{port}",)))
        rejected = await other.hears(Rejected)
        self.assertEqual(rejected.code, "port-taken")
        other.say(Register(connection_id="any", reach=("port:0",)))
        await eventually(lambda: "any" in relay.registry.servers, "it is published")
        self.assertNotEqual(relay.registry.servers["any"].ports, [port])

    async def test_never_back(self) -> None:
        """
        When the agent does not come, who waits is reset, the port closes, and
        others may have it.
        """
        relay, port, _ = await self.lost(ping=1, dead=1.5)
        client = await self.dial(port)
        await client.is_reset()
        kept = relay.publisher.kept
        await eventually(lambda: kept is not None and port not in kept, "the port is free")
        other = await self.raw_agent(relay, invitation=self.invite(relay, "second"))
        other.say(Register(connection_id="mine", reach=(f"port:{port}",)))
        await eventually(lambda: "mine" in relay.registry.servers, "it is published")

    async def test_as_long_as_clients_wait(self) -> None:
        """
        A client waits as long as any other does, and one that leaves is
        forgotten.
        """
        relay, port, _ = await self.lost(waiting=1)
        leaving = await self.dial(port)
        client = await self.dial(port)
        await eventually(lambda: len(relay.clients.present) == 2, "both wait")
        leaving.reset()
        await eventually(lambda: len(relay.clients.present) == 1, "one is gone")
        await client.is_reset()
        again = await self.raw_agent(relay, Register(connection_id="ssh", reach=("port:0",)))
        self.assertEqual(relay.registry.servers["ssh"].ports, [port])
        self.assertFalse(relay.clients.present)
        again.abort()

    async def test_too_many(self) -> None:
        """
        Only so many of one source wait, the others are reset at once.
        """
        _relay, port, _ = await self.lost(waiting_per_client=2)
        clients = [await self.dial(port) for _ in range(3)]
        await clients[2].is_reset()
        self.assertEqual([client.lost for client in clients[:2]], [None, None])
        for client in clients[:2]:
            client.reset()

    async def test_on_purpose(self) -> None:
        """
        Of an agent that leaves on purpose, or whose account is revoked, no port
        stays open.
        """
        relay = self.start_relay()
        port = relay.config.ports.first
        control = await self.raw_agent(relay, Register(connection_id="ssh", reach=("port:0",)))
        control.say(Goodbye(code="shutdown"))
        await eventually(lambda: not relay.registry.agents, "the agent is gone")
        await self.assertFailure(self.dial_deferred(port), ConnectionRefusedError)
        control = await self.raw_agent(relay, Register(connection_id="ssh", reach=("port:0",)))
        control.abort()
        await eventually(lambda: not relay.registry.agents, "the agent is gone")
        client = await self.dial(port)
        self.accounts(relay).revoke("first")
        await client.is_reset()
        await self.assertFailure(self.dial_deferred(port), ConnectionRefusedError)

    def dial_deferred(self, port: int) -> Deferred[Peer]:
        return Deferred.fromCoroutine(self.dial(port))
