"""
Data channels at the agent: dialled, parked, used again, given up.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.agent.channels import Demand
from relaytunnel.agent.service import AgentService
from relaytunnel.channel.framed import DataChannel
from relaytunnel.errors import Code
from relaytunnel.relay.service import RelayService
from relaytunnel.wire.messages import (
    FRESH,
    Accept,
    Cancel,
    Notify,
    Refuse,
    Register,
    Registered,
    StandingRequest,
)
from tests.running import (
    HOST,
    Peer,
    RunningCase,
    Target,
    echo,
    eventually,
    hello_page,
    reactor,
    request,
    sockets,
)


class ChannelsCase(RunningCase):
    """
    A relay, and an agent with one server.
    """

    async def begin(
        self, heard: Any = hello_page, slow: bool = False, **limits: Any
    ) -> tuple[RelayService, AgentService, Target]:
        """
        @param slow: whether dialling the target takes longer than a moment.
        """
        relay = self.start_relay()
        target = self.target(heard)
        address = f"tcp:localhost:{target.port}" if slow else target.address
        agent = await self.start_agent(relay, self.server("web", address), limits=limits)
        return relay, agent, target

    async def is_parked(self, agent: AgentService, number: int = 1) -> None:
        await eventually(lambda: agent.channels.parked == number, f"{number} parked")


class DemandTests(SynchronousTestCase):
    """
    How many clients have come lately.
    """

    def test_level(self) -> None:
        """
        Nobody, then some, who are forgotten again.
        """
        clock = Clock()
        demand = Demand(clock, 5)
        self.assertEqual(demand.level, 0)
        demand.add()
        self.assertEqual(demand.level, 1)
        clock.advance(9)
        self.assertEqual(demand.level, 1)
        clock.advance(3)
        self.assertEqual(demand.level, 0)
        for _ in range(10):
            demand.add()
        levels = []
        for _ in range(6):
            clock.advance(3)
            levels.append(demand.level)
        self.assertEqual(levels, [6, 3, 2, 1, 1, 1])

    def test_rate(self) -> None:
        """
        A steady stream has as many as come within that time.
        """
        clock = Clock()
        demand = Demand(clock, 5)
        for _ in range(2000):
            clock.advance(0.05)
            demand.add()
        self.assertTrue(98 <= demand.level <= 102, demand.level)

    def test_clock_set_back(self) -> None:
        """
        A clock that is set back, by however much, makes none of them more.
        """
        clock = Clock()
        clock.advance(1e9)
        demand = Demand(clock, 1)
        demand.add()
        clock.rightNow -= 3600
        self.assertEqual(demand.level, 1)
        clock.advance(3)
        self.assertEqual(demand.level, 0)


class ParkedTests(ChannelsCase):
    """
    Channels between two sessions.
    """

    async def test_next_client(self) -> None:
        """
        The next client is served by the channel of the one before: no more
        are dialled.
        """
        relay, agent, target = await self.begin()
        for _ in range(3):
            answer = await self.get(relay, "web")
            self.assertIn("hello", answer)
            await self.is_parked(agent)
        self.assertEqual(len(target.visits), 3)
        self.assertEqual(agent.channels._dialled, 1)
        self.assertEqual(relay.clients.finished, 3)

    async def test_several_at_once(self) -> None:
        """
        Clients that come at the same time have a channel each.
        """
        relay, agent, target = await self.begin(echo)
        clients = [
            await self.client(relay, b"GET / HTTP/1.1\r\nHost: web\r\n\r\n") for _ in range(4)
        ]
        for client in clients:
            await client.hears(b"GET")
        self.assertEqual(agent.channels._dialled, 4)
        self.assertEqual(len(target.visits), 4)

    async def test_expires(self) -> None:
        """
        One that nobody wants expires: an agent that is idle holds one
        connection.
        """
        relay, agent, _ = await self.begin(parked=0.2)
        before = sockets()
        await self.get(relay, "web")
        await self.is_parked(agent)
        await self.is_parked(agent, 0)
        await eventually(lambda: not relay.agents_port.parked, "nor at the relay")
        await eventually(lambda: sockets() == before, "no connection is left of it")

    async def test_as_many_as_came(self) -> None:
        """
        Sessions that end together, but began long ago, leave no more channels
        than clients have come lately.
        """
        relay, agent, target = await self.begin(echo, parked=0.4)
        clients = [
            await self.client(relay, b"GET / HTTP/1.1\r\nHost: web\r\n\r\n") for _ in range(6)
        ]
        for client in clients:
            await client.hears(b"GET")
        await eventually(lambda: agent.channels.demand.level == 0, "they came long ago")
        late = await self.client(relay, b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")
        await late.hears(b"GET")
        for end in (*clients, *target.visits[:6]):
            end.end()
        await eventually(lambda: len(agent.splices) == 1, "all but the late one are over")
        self.assertLessEqual(agent.channels.parked, 1)

    async def test_not_after_a_reset(self) -> None:
        """
        One whose session was aborted is not used again.
        """
        relay, agent, _ = await self.begin(echo)
        client = await self.client(relay, b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")
        await client.hears(b"GET")
        client.reset()
        await eventually(lambda: not agent.splices, "the session is over")
        self.assertEqual(agent.channels.parked, 0)

    async def test_lost_while_parked(self) -> None:
        """
        One that was lost meanwhile is forgotten, and another is dialled.
        """
        relay, agent, _ = await self.begin()
        await self.get(relay, "web")
        await self.is_parked(agent)
        relay.agents_port.close()
        await self.is_parked(agent, 0)
        self.assertIn("hello", await self.get(relay, "web"))
        self.assertEqual(agent.channels._dialled, 2)

    async def test_lost_when_it_is_wanted(self) -> None:
        """
        One that is lost at the moment when it is wanted is replaced.
        """
        relay, agent, _ = await self.begin(slow=True)
        await self.get(relay, "web")
        await self.is_parked(agent)
        (channel,) = agent.channels._parked
        send = agent.send

        def accepted(message: Any) -> None:
            send(message)
            if isinstance(message, Accept):
                channel.abort()

        self.patch(agent, "send", accepted)
        self.assertIn("hello", await self.get(relay, "web"))
        self.assertEqual(agent.channels._dialled, 2)

    async def test_lost_when_it_is_used(self) -> None:
        """
        So is one that is lost at the moment when its ticket is presented.
        """
        relay, agent, _ = await self.begin()
        await self.get(relay, "web")
        await self.is_parked(agent)
        take = agent.channels.take_parked

        def taken() -> DataChannel | None:
            channel = take()
            assert channel is not None
            channel.abort()
            return channel

        self.patch(agent.channels, "take_parked", taken)
        self.assertIn("hello", await self.get(relay, "web"))
        self.assertEqual(agent.channels._dialled, 2)

    def dies_with_ticket(self, relay: RelayService) -> None:
        """
        Let the next parked channel die when a ticket has been written to it.
        """
        join = DataChannel.join

        def joins(channel: DataChannel, ticket: bytes) -> Any:
            for parked in list(relay.agents_port._parked):
                parked.abort()
            return join(channel, ticket)

        self.patch(DataChannel, "join", joins)

    async def test_dies_with_the_ticket(self) -> None:
        """
        So is one that dies before the relay has read the ticket.
        """
        relay, agent, target = await self.begin(hello_page)
        await self.get(relay, "web")
        await self.is_parked(agent)
        self.dies_with_ticket(relay)
        self.assertIn("hello", await self.get(relay, "web", 2))
        self.assertEqual(agent.channels._dialled, 2)
        self.assertEqual(len(target.visits), 3)
        await eventually(lambda: not (agent.state.visits or agent.splices), "all is over")
        self.assertEqual(relay.agents_port.turned_away, {})

    async def test_dies_with_the_ticket_and_no_other(self) -> None:
        """
        If there is no other channel to be had, the client is told at once.
        """
        relay, agent, _ = await self.begin()
        await self.get(relay, "web")
        await self.is_parked(agent)
        self.dies_with_ticket(relay)
        self.patch(agent.channels, "dial", lambda: fail(ConnectionRefusedError()))
        answer = await self.get(relay, "web", 2)
        self.assertIn("no data channel to the relay", answer)
        await eventually(lambda: not (agent.state.visits or agent.splices), "all is over")

    async def test_fresh_one_dies_with_the_ticket(self) -> None:
        """
        A client whose fresh channel was lost so is told at once.
        """
        relay, agent, _ = await self.begin()
        join = DataChannel.join

        def joins(channel: DataChannel, ticket: bytes) -> Any:
            relay.agents_port.close()
            return join(channel, ticket)

        self.patch(DataChannel, "join", joins)
        self.assertIn("lost at once", await self.get(relay, "web", 2))
        self.assertFalse(agent.state.visits)

    async def test_alone(self) -> None:
        """
        The channel of a client that came alone is parked for a short time only.
        """
        relay, agent, _ = await self.begin(parked=2.0)
        await self.get(relay, "web")
        await self.is_parked(agent)
        await eventually(lambda: not agent.channels.parked, "it is given up", 1)

    async def test_not_alone(self) -> None:
        """
        Where others came shortly before, it is parked for longer.
        """
        relay, agent, _ = await self.begin(parked=2.0)
        for _ in range(3):
            await self.get(relay, "web")
            await self.is_parked(agent)
        (due,) = agent.channels._parked.values()
        self.assertGreater(due.getTime() - reactor.seconds(), 1.0)

    async def test_makes_room(self) -> None:
        """
        What is parked is given up for a dial that is not answered.
        """
        relay, agent, _ = await self.begin()
        await self.get(relay, "web")
        await self.is_parked(agent)
        dialled: list[Deferred[Any]] = []
        dial = agent.channels.dial

        def slow() -> Deferred[Any]:
            dialled.append(Deferred())
            return dialled[-1]

        self.patch(agent.channels, "take_parked", lambda: None)
        self.patch(agent.channels, "dial", slow)
        client = await self.client(relay, request("web"))
        await eventually(lambda: not agent.channels.parked, "it is given up", 3)
        dial().chainDeferred(dialled[-1])
        self.assertEqual(len(dialled), 2)
        self.assertIn("hello", str(await client.end_of_all(3)))
        client.close()

    async def test_makes_room_when_refused(self) -> None:
        """
        And for one that fails, which is tried once more.
        """
        relay, agent, _ = await self.begin()
        await self.get(relay, "web")
        await self.is_parked(agent)
        dial, failing = agent.channels.dial, [fail(OSError("no port is left"))]
        self.patch(agent.channels, "take_parked", lambda: None)
        self.patch(agent.channels, "dial", lambda: failing.pop() if failing else dial())
        self.assertIn("hello", await self.get(relay, "web", 2))
        self.assertEqual(failing, [])

    async def test_parked_when_the_target_refuses(self) -> None:
        """
        A channel that was not needed because the target refused serves the
        next client.
        """
        relay = self.start_relay()
        target = self.target(hello_page)
        agent = await self.start_agent(
            relay,
            self.server("web", target.address),
            self.server("dead", f"{HOST}:1"),
        )
        await self.get(relay, "web")
        await self.is_parked(agent)
        self.assertIn("502", await self.get(relay, "dead"))
        await self.is_parked(agent)
        self.assertIn("hello", await self.get(relay, "web"))
        self.assertEqual(agent.channels._dialled, 1)

    async def test_accept_says_which(self) -> None:
        """
        The relay is told whether a channel is new.
        """
        relay, agent, _ = await self.begin(slow=True)
        first, second = await self.accepted(relay, agent)
        self.assertEqual(first.channel, FRESH)
        self.assertNotEqual(second.channel, FRESH)

    async def test_ticket_at_once(self) -> None:
        """
        Where both channels stand at once, the ticket says all there is to say.
        """
        relay, agent, _ = await self.begin()
        (first,) = await self.accepted(relay, agent)
        self.assertEqual(first.channel, FRESH)

    async def accepted(self, relay: RelayService, agent: AgentService) -> list[Accept]:
        """
        Visit the server twice, the second time by a parked channel.

        @return: what the relay was told.
        """
        said: list[Accept] = []
        send = agent.send

        def note(message: Any) -> None:
            if isinstance(message, Accept):
                said.append(message)
            send(message)

        self.patch(agent, "send", note)
        for _ in range(2):
            await self.get(relay, "web")
            await self.is_parked(agent)
        return said

    async def test_never_used(self) -> None:
        """
        A channel that was dialled for a client that left before it was served
        is closed: the relay knows nothing of it, and would hang up.
        """
        relay = self.start_relay()
        agent = await self.start_agent(relay, self.server("web", self.hanging()))
        client = await self.client(relay, request("web"))
        await eventually(lambda: relay.agents_port._channels, "the data channel is up")
        visit: Any
        (visit,) = agent.state.visits.values()
        await eventually(lambda: "DataUp" in str(visit.__automat_transitioner__._state), "known")
        client.reset()
        await eventually(lambda: not relay.agents_port._channels, "it is closed")
        self.assertEqual(agent.channels.parked, 0)
        self.assertNotIn("silent", relay.agents_port.turned_away)

    async def test_another_relay(self) -> None:
        """
        When the control channel finds the relay at another address, what is
        parked is closed; at the same one it stays.
        """
        relay, agent, _ = await self.begin()
        await self.get(relay, "web")
        await self.is_parked(agent)
        channels = agent.channels
        assert channels._address is not None
        channels.found_at(channels._relay, channels._address)
        self.assertEqual(channels.parked, 1)
        channels.found_at(channels._relay, IPv4Address("TCP", "192.0.2.1", 7000))
        self.assertEqual(channels.parked, 0)
        await eventually(lambda: not relay.agents_port._channels, "it is closed")

    async def test_survives_the_control_channel(self) -> None:
        """
        Parked channels are used when the agent is back.
        """
        relay, agent, _ = await self.begin()
        await self.get(relay, "web")
        await self.is_parked(agent)
        assert agent.control is not None
        agent.control.abort("the test")
        await eventually(lambda: agent.control is None, "it is lost")
        await self.published(agent)
        self.assertIn("hello", await self.get(relay, "web"))
        self.assertEqual(agent.channels._dialled, 1)


class DialTests(ChannelsCase):
    """
    Channels that cannot be had.
    """

    async def test_nobody_there(self) -> None:
        """
        When the relay's port is closed the visit is refused, with the reason.
        """
        raw = self.raw_relay()
        target = self.target(echo)
        self.new_agent(raw.invitation, self.server("web", target.address))
        control = await raw.welcomed()
        await control.hears(Register)
        control.say(Registered(connection_id="web"), StandingRequest(connection_id="web"))
        await raw.stop_listening()
        control.say(
            Notify(
                session=1,
                connection_id="web",
                ticket=bytes(32),
                client=f"{HOST}:1",
                arrived="name",
            )
        )
        await control.hears(Accept)
        refusal = await control.hears(Refuse)
        self.assertEqual(refusal.code, Code.INTERNAL.value)
        self.assertIn("refused", refusal.reason)

    async def test_no_data_channels(self) -> None:
        """
        What takes no data channels is no relay of ours.
        """
        raw = self.raw_relay()
        target = self.target(echo)
        self.new_agent(raw.invitation, self.server("web", target.address))
        control = await raw.welcomed()
        await control.hears(Register)
        control.say(Registered(connection_id="web"), StandingRequest(connection_id="web"))
        raw.take_no_channels()
        control.say(
            Notify(
                session=1,
                connection_id="web",
                ticket=bytes(32),
                client=f"{HOST}:1",
                arrived="name",
            )
        )
        refusal = await control.hears(Refuse)
        self.assertIn("takes no data channels", refusal.reason)

    async def test_called_off(self) -> None:
        """
        A channel that is being dialled when its client goes is given up.
        """
        raw = self.raw_relay()
        target = self.target(echo)
        agent = self.new_agent(raw.invitation, self.server("web", target.address))
        control = await raw.welcomed()
        await control.hears(Register)
        control.say(Registered(connection_id="web"), StandingRequest(connection_id="web"))
        control.say(
            Notify(
                session=1,
                connection_id="web",
                ticket=bytes(32),
                client=f"{HOST}:1",
                arrived="name",
            ),
            Cancel(session=1),
        )
        await control.hears(Accept)
        await eventually(lambda: not agent.state.visits, "the visit is over")
        self.assertEqual(agent.channels.parked, 0)


class PlainTests(RunningCase):
    """
    Data channels without TLS.
    """

    async def begin(self, heard: Any = None) -> tuple[RelayService, AgentService, Target, Peer]:
        relay = self.start_relay()
        target = self.target(heard)
        port = relay.config.ports.first
        server = self.server("ssh", target.address, f"port:{port}", data="plain")
        agent = await self.start_agent(relay, server)
        return relay, agent, target, await self.dial(port)

    async def test_both_ways(self) -> None:
        """
        Bytes go both ways, and none is added or lost.
        """
        _, _, target, client = await self.begin()
        visit = await target.visit()
        visit.say(b"SSH-2.0-server\r\n")
        await client.hears(b"SSH-2.0-server\r\n")
        client.say(b"x" * 1_000_000)
        await eventually(lambda: len(visit.received) == 1_000_000, "all of it")
        self.assertEqual(client.received, b"SSH-2.0-server\r\n")

    async def test_half_close(self) -> None:
        """
        An end goes through alone; the other direction goes on.
        """
        relay, agent, target, client = await self.begin()
        visit = await target.visit()
        client.say(b"the question")
        client.end()
        self.assertEqual(await visit.end_of_all(), b"the question")
        visit.say(b"the answer")
        visit.close()
        self.assertEqual(await client.end_of_all(), b"the answer")
        self.assertFalse(client.was_reset)
        await eventually(lambda: not agent.splices and not relay.clients.splices, "it is over")
        self.assertEqual(agent.channels.parked, 0)

    async def test_reset(self) -> None:
        """
        So does a reset.
        """
        _, agent, target, client = await self.begin()
        visit = await target.visit()
        client.say(b"hello")
        await visit.hears(b"hello")
        client.reset()
        await eventually(lambda: visit.was_reset, "the server sees it")
        await eventually(lambda: not agent.splices, "it is over")
