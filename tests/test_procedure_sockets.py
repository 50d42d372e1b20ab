"""
The procedure, step by step, between a real relay and a real agent.

Each test is named after the step that it shows.  The same steps without a
socket are told elsewhere, as a script of messages.
"""

from __future__ import annotations

import hashlib
import random
from typing import Any

from relaytunnel.errors import Code
from relaytunnel.wire.data import Kind
from relaytunnel.wire.messages import (
    SAME_ENDPOINT,
    Accept,
    Notify,
    Refuse,
    Register,
    Registered,
    StandingRequest,
    Welcome,
)
from tests.running import HOST, RunningCase, echo, eventually, request


class RegistrationTests(RunningCase):
    """
    S1 to S4: an agent and its servers become known.
    """

    async def test_S1_agent_opens_the_control_channel(self) -> None:
        """
        The agent dials the relay and says who it is; when the channel is
        lost, it opens another.
        """
        relay = self.start_relay()
        agent = await self.start_agent(relay)
        present = relay.registry.agents["first"]
        self.assertEqual(present.epoch, agent.state.epoch)
        assert agent.control is not None
        agent.control.abort("the test")
        await eventually(
            lambda: relay.registry.agents.get("first") not in (None, present), "it is back"
        )

    async def test_S2_relay_confirms_the_agent(self) -> None:
        """
        The relay stores an agent whose secret is right, and welcomes it.
        """
        relay = self.start_relay()
        control = await self.raw_control(relay)
        control.say(self.hello(self.first_invitation(relay)))
        welcome = await control.hears(Welcome)
        self.assertEqual(welcome.relay, HOST)
        self.assertIn("first", relay.registry.agents)

    async def test_S3_agent_registers_its_servers(self) -> None:
        """
        The servers of its configuration are registered, and later one that
        asks the running agent.
        """
        relay = self.start_relay()
        agent = await self.start_agent(relay, self.server("web", "127.0.0.1:1"))
        self.assertEqual(set(relay.registry.servers), {"web"})
        await agent.publish(self.server("shop", "127.0.0.1:2"))
        self.assertEqual(set(relay.registry.servers), {"web", "shop"})

    async def test_S4_relay_confirms_each_server(self) -> None:
        """
        A registered server is confirmed with its addresses, and the standing
        request for it follows.
        """
        relay = self.start_relay()
        control = await self.raw_agent(relay)
        control.say(Register(connection_id="web", http="raw"))
        registered = await control.hears(Registered)
        self.assertEqual(registered.connection_id, "web")
        self.assertTrue(registered.reach)
        standing = await control.hears(StandingRequest)
        self.assertEqual(standing.connection_id, "web")
        self.assertEqual(standing.endpoints, (SAME_ENDPOINT,))


class VisitTests(RunningCase):
    """
    S5 to S13: a client reaches a server.
    """

    async def test_S5_client_names_its_server(self) -> None:
        """
        A client that connects says by its Host which server it wants.
        """
        relay = self.start_relay()
        control = await self.raw_agent(relay, "web", "shop")
        await self.client(relay, request("shop"))
        notify = await control.hears(Notify)
        self.assertEqual((notify.connection_id, notify.arrived), ("shop", "host:shop"))

    async def test_S5_client_that_says_nothing(self) -> None:
        """
        A client that does not say which server it wants hears from the relay.
        """
        relay = self.start_relay({"arrival": 0.1})
        client = await self.client(relay)
        self.assertIn(b"server", await client.end_of_all())

    async def test_S6_relay_admits_and_holds(self) -> None:
        """
        A client of a server that exists waits with its bytes; one of a server
        that does not is told so.
        """
        relay = self.start_relay()
        control = await self.raw_agent(relay, "web")
        client = await self.client(relay, request("web"))
        await control.hears(Notify)
        self.assertEqual(relay.visits.room.waiting, 1)
        self.assertEqual(client.received, b"")
        self.assertIn("404", await self.get(relay, "nowhere"))

    async def test_S7_relay_notifies_the_agent(self) -> None:
        """
        The agent is told of the client: which server, from where, with which
        ticket, and where to dial.
        """
        relay = self.start_relay()
        control = await self.raw_agent(relay, "web")
        client = await self.client(relay, request("web"))
        notify = await control.hears(Notify)
        self.assertEqual(notify.connection_id, "web")
        self.assertEqual(notify.client, f"{HOST}:{client.port}")
        self.assertEqual(len(notify.ticket), 32)
        self.assertEqual(notify.endpoint, SAME_ENDPOINT)

    async def test_S8_agent_checks_the_connection_id(self) -> None:
        """
        The agent accepts a client of a server that it registered, and refuses
        one of any other.
        """
        target = self.target(echo)
        raw = self.raw_relay()
        self.new_agent(raw.invitation, self.server("web", target.address))
        control = await raw.welcomed()
        await control.hears(Register)
        control.say(Registered(connection_id="web"), StandingRequest(connection_id="web"))
        notify: dict[str, Any] = {"ticket": bytes(32), "client": f"{HOST}:1", "arrived": "name"}
        control.say(Notify(session=1, connection_id="other", **notify))
        refusal = await control.hears(Refuse)
        self.assertEqual((refusal.session, refusal.code), (1, Code.UNKNOWN_ID.value))
        control.say(Notify(session=2, connection_id="web", **notify))
        self.assertEqual((await control.hears(Accept)).session, 2)

    async def test_S9_agent_opens_the_server_channel(self) -> None:
        """
        One connection to the target is made for one client.
        """
        relay = self.start_relay()
        target = self.target()
        await self.start_agent(relay, self.server("web", target.address))
        self.assertEqual(len(target.visits), 0)
        await self.client(relay, request("web"))
        await target.visit()
        self.assertEqual(len(target.visits), 1)

    async def test_S10_agent_opens_the_data_channel(self) -> None:
        """
        A connection from a port of its own presents the ticket, and joins the
        session.
        """
        relay = self.start_relay()
        control = await self.raw_agent(relay, "web")
        _, notify = await self.session(relay, control)
        data = await self.raw_data(relay, notify.ticket)
        await eventually(lambda: relay.visits.room.served, "the session is served")
        self.assertEqual(relay.visits.room.waiting, 0)
        self.assertNotEqual(data.port, control.port)

    async def test_S11_held_bytes_flow_to_the_agent(self) -> None:
        """
        What the client said before is the first that the data channel carries.
        """
        relay = self.start_relay()
        control = await self.raw_agent(relay, "web")
        _, notify = await self.session(relay, control)
        data = await self.raw_data(relay, notify.ticket)
        await data.hears(request("web"))
        self.assertEqual(data.received, request("web"))

    async def test_S12_agent_passes_them_to_the_server(self) -> None:
        """
        The server gets the very bytes that the client sent.
        """
        relay = self.start_relay()
        target = self.target()
        await self.start_agent(relay, self.server("web", target.address))
        await self.client(relay, request("web", "/caf%C3%A9") + b"and a body \0\xff")
        visit = await target.visit()
        await visit.hears(b"\0\xff")
        self.assertEqual(visit.received, request("web", "/caf%C3%A9") + b"and a body \0\xff")

    async def test_S13_free_communication(self) -> None:
        """
        Any bytes go both ways at once, and all arrive in order.
        """
        relay = self.start_relay()
        target = self.target()
        await self.start_agent(relay, self.server("web", target.address))
        head = request("web")
        client = await self.client(relay, head)
        visit = await target.visit()
        up, down = random.randbytes(3_000_000), random.randbytes(3_000_001)
        client.say(up)
        visit.say(down)
        await eventually(lambda: len(client.received) >= len(down), "all came down", 10)
        await eventually(lambda: len(visit.received) >= len(head + up), "all came up", 10)
        for got, sent in ((client.received, down), (visit.received, head + up)):
            self.assertEqual(hashlib.sha256(got).digest(), hashlib.sha256(sent).digest())


class CloseTests(RunningCase):
    """
    S14 to S20: either side closes, and the other sees it.
    """

    async def test_S14_client_asks_for_the_end(self) -> None:
        """
        The client asks in its own protocol, and the server hears it.
        """
        relay = self.start_relay()
        target = self.target()
        await self.start_agent(relay, self.server("web", target.address))
        client = await self.client(relay, request("web"))
        visit = await target.visit()
        client.say(b"QUIT\r\n")
        await visit.hears(b"QUIT\r\n")

    async def test_S15_agent_sees_the_server_close(self) -> None:
        """
        The end that the server sends reaches the agent's server channel.
        """
        relay = self.start_relay()
        target = self.target()
        agent = await self.start_agent(relay, self.server("web", target.address))
        client = await self.client(relay, request("web"))
        visit = await target.visit()
        await visit.hears(b"GET")
        visit.say(b"bye")
        visit.close()
        await eventually(lambda: visit.lost or client.ended, "the server has closed")
        client.end()
        await eventually(lambda: not agent.splices, "the agent's splice is over")

    async def test_S16_agent_closes_the_data_channel(self) -> None:
        """
        What is an end at the server is one on the data channel, which then
        serves no session any more.
        """
        relay = self.start_relay()
        target = self.target()
        agent = await self.start_agent(relay, self.server("web", target.address))
        client = await self.client(relay, request("web"))
        visit = await target.visit()
        await visit.hears(b"GET")
        visit.close()
        await client.end_of_all()
        client.close()
        await eventually(lambda: agent.channels.parked == 1, "it is parked at the agent")
        await eventually(lambda: relay.agents_port.parked == 1, "and at the relay")
        self.assertEqual(relay.visits.room.served, 0)

    async def test_S17_relay_closes_the_client_channel(self) -> None:
        """
        An end on the data channel is one for the client, behind all bytes.
        """
        relay = self.start_relay()
        control = await self.raw_agent(relay, "web")
        client, notify = await self.session(relay, control)
        data = await self.raw_data(relay, notify.ticket)
        data.say(b"the last words")
        data.end()
        self.assertEqual(await client.end_of_all(), b"the last words")
        self.assertFalse(client.was_reset)

    async def test_S18_client_closes(self) -> None:
        """
        The relay notices the end of the client channel.
        """
        relay = self.start_relay()
        control = await self.raw_agent(relay, "web")
        client, notify = await self.session(relay, control)
        data = await self.raw_data(relay, notify.ticket)
        await data.hears(b"GET")
        client.end()
        await data.hears_kind(Kind.EOF)
        data.end()
        await eventually(lambda: client.ended, "both directions have ended")
        await eventually(lambda: relay.clients.finished, "the session is over")

    async def test_S19_relay_closes_the_data_channel(self) -> None:
        """
        A client that closed is an end on the data channel, behind all bytes.
        """
        relay = self.start_relay()
        control = await self.raw_agent(relay, "web")
        client, notify = await self.session(relay, control)
        data = await self.raw_data(relay, notify.ticket)
        client.say(b"the last words")
        client.end()
        await data.hears_kind(Kind.EOF)
        self.assertEqual(data.received, request("web") + b"the last words")

    async def test_S20_agent_closes_the_server_channel(self) -> None:
        """
        The server sees the end of its client, and nothing is left of the
        session.
        """
        relay = self.start_relay()
        target = self.target()
        agent = await self.start_agent(relay, self.server("web", target.address))
        client = await self.client(relay, request("web"))
        visit = await target.visit()
        client.close()
        self.assertEqual(await visit.end_of_all(), request("web"))
        visit.close()
        await eventually(lambda: not agent.splices, "the agent's splice is over")
        await eventually(lambda: not relay.clients.splices, "the relay's splice is over")
        self.assertEqual(relay.visits.room.served, 0)
