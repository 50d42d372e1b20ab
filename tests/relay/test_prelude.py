"""
What the relay says to a server before its client's bytes, at a real relay.
"""

from __future__ import annotations

from relaytunnel.relay.service import RelayService
from relaytunnel.wire.data import Kind, data_frames, join_frame
from relaytunnel.wire.messages import Accept, Notify, Register
from tests.arrival.test_postgres import SSL
from tests.arrival.test_tls import hello, server_name
from tests.running import Peer, RawControl, RawData, RunningCase, eventually

HELLO = hello(server_name(b"web.example"))
WEB = Register(connection_id="web", reach=("sni:web.example",))


class PreludeTests(RunningCase):
    """
    A client of PostgreSQL: the relay agrees to TLS in the server's stead, and
    the server has to agree as well.
    """

    async def asked(
        self, limits: dict[str, float] | None = None
    ) -> tuple[RelayService, RawControl, Peer, Notify]:
        """
        S5 to S8.
        """
        relay = self.start_relay(limits)
        control = await self.raw_agent(relay, WEB)
        client = await self.client(relay, SSL)
        await client.hears(b"S")
        client.say(HELLO)
        notify = await control.hears(Notify)
        control.say(Accept(session=notify.session))
        return relay, control, client, notify

    async def met(self, relay: RelayService, notify: Notify) -> RawData:
        """
        S10: the data channel, on which the server is asked.
        """
        data = await self.raw_data(relay, notify.ticket)
        await data.hears(SSL)
        self.assertEqual(data.received, SSL)
        return data

    async def nothing_left(self, relay: RelayService) -> None:
        """
        Wait until the relay has forgotten client and session.
        """
        await eventually(lambda: not relay.visits.sessions, "the session is over")
        self.assertEqual((relay.visits.room.waiting, relay.visits.room.served), (0, 0))
        self.assertEqual((relay.clients.present, relay.clients.splices), (set(), {}))

    async def test_agreed(self) -> None:
        """
        Nothing of the client's own reaches the server before it has agreed;
        its agreement does not reach the client, who has had one.
        """
        relay, _, client, notify = await self.asked()
        data = await self.met(relay, notify)
        self.assertEqual(relay.clients.splices, {})
        data.say(b"S")
        await data.hears(SSL + HELLO)
        self.assertEqual(data.received, SSL + HELLO)
        data.say(b"ServerHello")
        await client.hears(b"ServerHello")
        self.assertEqual(client.received, b"SServerHello")

    async def turned_away(self, relay: RelayService, client: Peer, data: RawData) -> None:
        """
        Assert that the client is told in TLS, and the data channel is over.
        """
        answer = await client.end_of_all()
        self.assertEqual(answer[:2], b"S\x15")  # an alert
        await data.hears_kind(Kind.RESET)
        self.assertEqual(data.received, SSL)
        await self.nothing_left(relay)

    async def test_refused(self) -> None:
        """
        A server that does not agree never sees the client's bytes.
        """
        relay, _, client, notify = await self.asked()
        data = await self.met(relay, notify)
        data.say(b"N")
        await self.turned_away(relay, client, data)

    async def test_says_too_much(self) -> None:
        """
        What comes with the agreement is not TLS yet: somebody on the way may
        have put it in.
        """
        relay, _, client, notify = await self.asked()
        data = await self.met(relay, notify)
        data.say(b"Sx")
        await self.turned_away(relay, client, data)

    async def test_answers_before_it_is_asked(self) -> None:
        """
        A refusal that comes together with the ticket is one as well.
        """
        relay, _, client, notify = await self.asked()
        data = await self.raw_data(relay)
        data.say_raw(join_frame(notify.ticket) + data_frames(b"N"))
        self.assertEqual((await client.end_of_all())[:2], b"S\x15")
        await data.hears_kind(Kind.RESET)
        client.close()
        await self.nothing_left(relay)

    async def test_agrees_before_it_is_asked(self) -> None:
        """
        So is an agreement, and the client is served as if it came in time.
        """
        relay, _, client, notify = await self.asked()
        data = await self.raw_data(relay)
        data.say_raw(join_frame(notify.ticket) + data_frames(b"S"))
        await data.hears(HELLO)
        self.assertEqual(data.received, SSL + HELLO)
        client.reset()
        await self.nothing_left(relay)

    async def test_ended(self) -> None:
        """
        A server that ends instead does not agree.
        """
        relay, _, client, notify = await self.asked()
        data = await self.met(relay, notify)
        data.end()
        await self.turned_away(relay, client, data)

    async def test_reset(self) -> None:
        """
        Nor does one that resets.
        """
        relay, _, client, notify = await self.asked()
        data = await self.met(relay, notify)
        data.say_raw(bytes((Kind.RESET, 0, 0)))
        self.assertEqual((await client.end_of_all())[:2], b"S\x15")
        await self.nothing_left(relay)

    async def test_lost(self) -> None:
        """
        Nor does one whose data channel breaks off.
        """
        relay, _, client, notify = await self.asked()
        data = await self.met(relay, notify)
        data.abort()
        self.assertEqual((await client.end_of_all())[:2], b"S\x15")
        await self.nothing_left(relay)

    async def test_too_late(self) -> None:
        """
        Nor does one that says nothing in time.
        """
        relay, _, client, notify = await self.asked({"dial": 0.1})
        data = await self.met(relay, notify)
        await self.turned_away(relay, client, data)

    async def test_client_leaves(self) -> None:
        """
        A client that leaves meanwhile takes its session with it.
        """
        relay, _, client, notify = await self.asked()
        data = await self.met(relay, notify)
        client.reset()
        await data.hears_kind(Kind.RESET)
        await self.nothing_left(relay)

    async def test_relay_stops(self) -> None:
        """
        A relay that stops meanwhile ends both channels.
        """
        relay, _, client, notify = await self.asked()
        data = await self.met(relay, notify)
        await relay.stopService()
        await client.is_reset(2)
        await data.is_closed()
        await self.nothing_left(relay)

    async def test_cancelled_query(self) -> None:
        """
        A request that needs no server is turned down without one.
        """
        relay = self.start_relay()
        client = await self.client(relay, bytes.fromhex("00000010 04d2162e 00000001 00000002"))
        self.assertEqual(await client.end_of_all(), b"")
        await eventually(lambda: not relay.clients.present, "nobody is present")
