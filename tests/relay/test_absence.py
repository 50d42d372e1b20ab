"""
What is left at the relay of agents that are not connected.
"""

from __future__ import annotations

from relaytunnel.relay.service import RelayService
from relaytunnel.wire.data import Kind
from relaytunnel.wire.messages import Accept, Goodbye, Notify
from tests.running import Peer, RawControl, RunningCase, eventually, request


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
