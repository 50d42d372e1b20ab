"""
The port that agents dial, at a real relay: who gets through, and which tickets
join what.
"""

from __future__ import annotations

import os
from typing import Any

from OpenSSL import SSL

from relaytunnel.channel.tls import AgentTLS
from relaytunnel.relay.service import RelayService
from relaytunnel.wire.data import Kind, data_frames, join_frame, plain_preamble
from relaytunnel.wire.messages import Notify, Ping, Pong, Register, Welcome
from tests.processes import until
from tests.running import (
    HOST,
    Peer,
    RawControl,
    RawData,
    RunningCase,
    echo,
    eventually,
    reactor,
    request,
)


class TicketTests(RunningCase):
    """
    S10: each ticket joins one session, once.
    """

    async def waiting(self, **limits: Any) -> tuple[RelayService, Peer, Notify]:
        relay = self.start_relay(limits)
        self.control = await self.raw_agent(relay, "web")
        client, notify = await self.session(relay, self.control)
        return relay, client, notify

    async def joins_nothing(self, relay: RelayService, data: RawData) -> None:
        await data.hears_kind(Kind.RESET)
        self.assertEqual(data.received, b"")
        self.assertTrue(relay.agents_port.turned_away["no such ticket"])

    async def test_twice(self) -> None:
        """
        A ticket that was used joins nothing, and the session that it joined
        goes on.
        """
        relay, client, notify = await self.waiting()
        first = await self.raw_data(relay, notify.ticket)
        await first.hears(b"GET")
        await self.joins_nothing(relay, await self.raw_data(relay, notify.ticket))
        first.say(b"undisturbed")
        await client.hears(b"undisturbed")

    async def test_race(self) -> None:
        """
        Of many that present it at the same time exactly one wins.
        """
        relay, _, notify = await self.waiting()
        racers = [await self.raw_data(relay) for _ in range(8)]
        for racer in racers:
            racer.join(notify.ticket)
        await eventually(lambda: all(racer.frames for racer in racers), "all have an answer")
        self.assertEqual(sum(Kind.RESET not in racer.kinds for racer in racers), 1)
        self.assertEqual(relay.visits.room.served, 1)

    async def test_invented(self) -> None:
        """
        A ticket that was never given joins nothing; who waits goes on waiting.
        """
        relay, _client, notify = await self.waiting()
        await self.joins_nothing(relay, await self.raw_data(relay, os.urandom(32)))
        almost = notify.ticket[:-1] + bytes((notify.ticket[-1] ^ 1,))
        await self.joins_nothing(relay, await self.raw_data(relay, almost))
        data = await self.raw_data(relay, notify.ticket)
        await data.hears(b"GET")

    async def test_too_late(self) -> None:
        """
        A ticket is good for as long as its client waits.
        """
        relay, client, notify = await self.waiting(waiting=0.15)
        await client.end_of_all()
        await self.joins_nothing(relay, await self.raw_data(relay, notify.ticket))

    async def test_not_logged(self) -> None:
        """
        A ticket that joins nothing is not shown either.
        """
        relay, _, _ = await self.waiting()
        logged = self.logged()
        await self.joins_nothing(relay, await self.raw_data(relay, b"s3cr3t! " * 4))
        self.assertNotIn("s3cr3t", "\n".join(logged))


class PlainTests(RunningCase):
    """
    Data channels without TLS.
    """

    async def plain(self, relay: RelayService, ticket: bytes, more: bytes = b"") -> Peer:
        peer = await self.dial(relay.facts.agents)
        peer.say(plain_preamble(ticket) + more)
        return peer

    async def test_for_a_plain_server(self) -> None:
        """
        It joins the session of a server that was registered so; ends go
        through.
        """
        relay = self.start_relay()
        control = await self.raw_agent(relay, Register(connection_id="web", data="plain"))
        client, notify = await self.session(relay, control)
        data = await self.plain(relay, notify.ticket, b"the answer")
        await data.hears(request("web"))
        await client.hears(b"the answer")
        client.end()
        await data.end_of_all()
        data.say(b" and more")
        data.end()
        self.assertEqual(await client.end_of_all(), b"the answer and more")

    async def test_in_pieces(self) -> None:
        """
        Magic and ticket may come byte by byte.
        """
        relay = self.start_relay()
        control = await self.raw_agent(relay, Register(connection_id="web", data="plain"))
        _client, notify = await self.session(relay, control)
        data = await self.dial(relay.facts.agents)
        for byte in plain_preamble(notify.ticket):
            data.say(bytes((byte,)))
        await data.hears(b"GET")

    async def test_for_a_tls_server(self) -> None:
        """
        It is reset for any other server, whose ticket stays good.
        """
        relay = self.start_relay()
        control = await self.raw_agent(relay, "web")
        _, notify = await self.session(relay, control)
        stranger = await self.plain(relay, notify.ticket)
        await stranger.is_reset()
        self.assertEqual(stranger.received, b"")
        data = await self.raw_data(relay, notify.ticket)
        await data.hears(b"GET")

    async def test_invented(self) -> None:
        """
        An invented ticket is reset.
        """
        relay = self.start_relay()
        stranger = await self.plain(relay, os.urandom(32))
        await stranger.is_reset()

    async def test_tls_for_a_plain_server(self) -> None:
        """
        A server that was registered as plain may have a data channel that is
        better than that.
        """
        relay = self.start_relay()
        control = await self.raw_agent(relay, Register(connection_id="web", data="plain"))
        _, notify = await self.session(relay, control)
        data = await self.raw_data(relay, notify.ticket)
        await data.hears(b"GET")

    async def test_reset(self) -> None:
        """
        A reset goes through, too.
        """
        relay = self.start_relay()
        control = await self.raw_agent(relay, Register(connection_id="web", data="plain"))
        client, notify = await self.session(relay, control)
        data = await self.plain(relay, notify.ticket)
        await data.hears(b"GET")
        data.reset()
        await client.is_reset()


class FrameTests(RunningCase):
    """
    What cannot be understood ends that data channel, and nothing else.
    """

    async def breaks(self, said: bytes, joined: bool, ended: bool = False) -> None:
        """
        Say this on a data channel, with or without a session; another agent's
        session goes on.
        """
        relay = self.start_relay()
        other = await self.start_agent(
            relay,
            self.server("echo", self.target(echo).address),
            invitation=self.invite(relay, "office"),
        )
        undisturbed = await self.client(relay, request("echo"))
        await undisturbed.hears(b"GET")
        control = await self.raw_agent(relay, "web")
        client, notify = await self.session(relay, control)
        data = await self.raw_data(relay, notify.ticket if joined else None)
        if joined:
            await data.hears(b"GET")
        data.say_raw(said)
        await data.is_closed()
        if joined:
            await client.end_of_all()
            self.assertEqual((client.ended, client.was_reset), (ended, not ended))
        undisturbed.say(b"undisturbed")
        await undisturbed.hears(b"undisturbed")
        self.assertIsNot(other.control, None)
        self.assertIs(control.lost, None)

    async def test_garbage_before(self) -> None:
        """
        Bytes that are no frame, instead of a ticket.
        """
        await self.breaks(b"\xff" * 64, joined=False)

    async def test_garbage_after(self) -> None:
        """
        Bytes that are no frame, in a session.
        """
        await self.breaks(b"\xff" * 64, joined=True)

    async def test_oversized(self) -> None:
        """
        A frame that is too large, from its header alone.
        """
        await self.breaks(b"\x02\xff\xff", joined=True)

    async def test_empty_data(self) -> None:
        """
        A DATA frame without data.
        """
        await self.breaks(b"\x02\x00\x00", joined=True)

    async def test_short_ticket(self) -> None:
        """
        A ticket of another length.
        """
        await self.breaks(join_frame(b"short"), joined=False)

    async def test_data_before_join(self) -> None:
        """
        Data that belong to no session.
        """
        await self.breaks(data_frames(b"hello"), joined=False)

    async def test_join_in_a_session(self) -> None:
        """
        A second ticket while the session of the first is on.
        """
        await self.breaks(join_frame(bytes(32)), joined=True)

    async def test_data_after_the_end(self) -> None:
        """
        Data behind the end of their direction; that end stays a clean one.
        """
        await self.breaks(b"\x03\x00\x00" + data_frames(b"more"), joined=True, ended=True)


class PortTests(RunningCase):
    """
    Who is turned away before anything is known of it.
    """

    async def turned_away(self, relay: RelayService, reason: str, peer: Any) -> None:
        await eventually(lambda: peer.lost or getattr(peer, "ended", False), "it is closed")
        await eventually(lambda: not relay.agents_port.unauthenticated, "it is not counted")
        self.assertEqual(dict(relay.agents_port.turned_away), {reason: 1})

    async def test_neither(self) -> None:
        """
        What is neither TLS nor a plain data channel is cut off by its first
        bytes.
        """
        relay = self.start_relay()
        peer = await self.dial(relay.facts.agents)
        peer.say(b"GET / HTTP/1.1\r\n")
        await self.turned_away(relay, "neither TLS nor plain", peer)

    async def test_silent(self) -> None:
        """
        Who says nothing is cut off when the time for a handshake is up.
        """
        relay = self.start_relay({"handshake": 0.1})
        peer = await self.dial(relay.facts.agents)
        await self.turned_away(relay, "silent", peer)

    async def test_half_a_handshake(self) -> None:
        """
        So is who begins a handshake and does not go on.
        """
        relay = self.start_relay({"handshake": 0.2})
        peer = await self.dial(relay.facts.agents)
        peer.say(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
        await self.turned_away(relay, "silent", peer)

    async def test_slow_handshake(self) -> None:
        """
        Who goes on a byte at a time has no longer.
        """
        relay = self.start_relay({"handshake": 0.2})
        peer = await self.dial(relay.facts.agents)
        peer.say(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
        began = reactor.seconds()

        def drip() -> bool:
            peer.say(b"x")
            return peer.ended or peer.lost is not None

        await until(drip, 2, "it is not listened to any more", 0.02)
        self.assertLess(reactor.seconds() - began, 1)
        await self.turned_away(relay, "silent", peer)

    async def test_half_a_ticket(self) -> None:
        """
        So is who begins a plain data channel and does not go on.
        """
        relay = self.start_relay({"handshake": 0.1})
        peer = await self.dial(relay.facts.agents)
        peer.say(plain_preamble(bytes(32))[:-1])
        await self.turned_away(relay, "silent", peer)

    async def test_no_ticket(self) -> None:
        """
        A data channel on which no ticket comes is cut off when the time to
        authenticate is up.
        """
        relay = self.start_relay({"authentication": 0.2})
        data = await self.raw_data(relay)
        await self.turned_away(relay, "silent", data)

    async def test_no_handshake(self) -> None:
        """
        A handshake that fails is counted as that.
        """
        relay = self.start_relay()
        peer = await self.dial(relay.facts.agents)
        peer.say(b"\x16\x03\x01\x00\x05hello")
        await self.turned_away(relay, "handshake failed", peer)

    async def test_other_application(self) -> None:
        """
        Whoever wants to speak something else over TLS is turned away.
        """
        relay = self.start_relay()
        control = await self.raw_control(relay, b"h2")
        await self.turned_away(relay, "no ALPN of ours", control)

    async def test_old_tls(self) -> None:
        """
        TLS 1.2 is not spoken.
        """
        relay = self.start_relay()
        tls = AgentTLS(HOST, b"relaytunnel-control/1", relay.facts.pin)
        tls._context.set_min_proto_version(SSL.TLS1_2_VERSION)
        tls._context.set_max_proto_version(SSL.TLS1_2_VERSION)
        control = RawControl()
        await self._dial(control, relay.facts.agents, tls)
        await self.turned_away(relay, "handshake failed", control)
        self.assertFalse(control.ready)

    async def test_leaves(self) -> None:
        """
        Who goes without a word is not counted any more, but it is noted.
        """
        relay = self.start_relay()
        peer = await self.dial(relay.facts.agents)
        await eventually(lambda: relay.agents_port.unauthenticated, "it is counted")
        peer.close()
        await eventually(lambda: not relay.agents_port.unauthenticated, "it is not any more")
        self.assertEqual(dict(relay.agents_port.turned_away), {"nothing shown": 1})

    async def test_leaves_behind_a_handshake(self) -> None:
        """
        So is who goes as a data channel that shows no ticket.
        """
        relay = self.start_relay()
        data = await self.raw_data(relay)
        data.transport.loseConnection()
        await eventually(lambda: not relay.agents_port.unauthenticated, "it is not any more")
        self.assertEqual(dict(relay.agents_port.turned_away), {"nothing shown": 1})

    async def test_too_many_of_one_source(self) -> None:
        """
        One source has a bounded number of connections that have not
        authenticated; when they go, it may come again.
        """
        relay = self.start_relay({"unauthenticated_per_source": 3})
        silent = [await self.dial(relay.facts.agents) for _ in range(3)]
        await eventually(lambda: relay.agents_port.unauthenticated == len(silent), "they count")
        fourth = await self.dial(relay.facts.agents)
        await eventually(lambda: fourth.ended or fourth.lost, "the fourth is closed")
        for peer in silent:
            peer.close()
        await eventually(lambda: not relay.agents_port.unauthenticated, "they are gone")
        await self.raw_agent(relay)

    async def test_source_of_an_agent(self) -> None:
        """
        The address of an agent that is present may open more: many clients
        at once make many data channels.
        """
        relay = self.start_relay({"unauthenticated_per_source": 1})
        await self.raw_agent(relay)
        for _ in range(3):
            await self.raw_data(relay)
        self.assertEqual(relay.agents_port.unauthenticated, 3)

    async def test_too_many(self) -> None:
        """
        All together they are bounded, too.
        """
        relay = self.start_relay({"unauthenticated": 2, "unauthenticated_per_source": 9})
        for _ in range(2):
            await self.dial(relay.facts.agents)
        await eventually(lambda: relay.agents_port.unauthenticated > 1, "both are counted")
        third = await self.dial(relay.facts.agents)
        await eventually(lambda: third.ended or third.lost, "the third is closed")

    async def test_control_counts(self) -> None:
        """
        A control channel counts until an agent has come in on it, or it is
        gone.
        """
        relay = self.start_relay()
        control = await self.raw_control(relay)
        self.assertEqual(relay.agents_port.unauthenticated, 1)
        control.say(self.hello(self.first_invitation(relay)))
        await control.hears(Welcome)
        self.assertEqual(relay.agents_port.unauthenticated, 0)
        other = await self.raw_control(relay)
        self.assertEqual(relay.agents_port.unauthenticated, 1)
        other.say(Ping(number=1))
        await other.hears(Pong)  # so the handshake is done at both ends
        other.abort()
        await self.turned_away(relay, "never authenticated", other)

    async def test_silent_control(self) -> None:
        """
        One on which nobody says who it is is counted as silent.
        """
        relay = self.start_relay({"authentication": 0.2})
        await self.turned_away(relay, "silent", await self.raw_control(relay))

    async def test_wrong_secret(self) -> None:
        """
        A wrong secret is counted as that.
        """
        relay = self.start_relay()
        control = await self.raw_control(relay)
        control.say(self.hello(self.first_invitation(relay), secret="guessed"))
        await self.turned_away(relay, "authentication failed", control)

    async def test_penalty(self) -> None:
        """
        A source that offers nothing is not let in for a while.
        """
        relay = self.start_relay({"penalty_none": 100})
        peer = await self.dial(relay.facts.agents)
        peer.say(b"GET / HTTP/1.1\r\n")
        await peer.end_of_all()
        again = await self.dial(relay.facts.agents)
        await again.end_of_all()
        self.assertEqual(
            dict(relay.agents_port.turned_away), {"neither TLS nor plain": 1, "in penalty": 1}
        )

    async def test_penalty_of_tickets(self) -> None:
        """
        So it is with tickets that join nothing, with TLS and without.
        """
        for plain in (False, True):
            relay = self.start_relay({"penalty_none": 100})
            if plain:
                peer = await self.dial(relay.facts.agents)
                peer.say(plain_preamble(bytes(32)))
                await peer.is_reset()
            else:
                data = await self.raw_data(relay, bytes(32))
                await data.hears_kind(Kind.RESET)
            again = await self.dial(relay.facts.agents)
            await again.end_of_all()
            self.assertEqual(
                dict(relay.agents_port.turned_away), {"no such ticket": 1, "in penalty": 1}
            )

    async def test_known_by_a_ticket(self) -> None:
        """
        Where a data channel has joined from more may be opened, also when the
        agent is elsewhere and gone.
        """
        relay = self.start_relay({"unauthenticated_per_source": 1})
        control = await self.raw_agent(relay, "web")
        client, notify = await self.session(relay, control)
        data = await self.raw_data(relay, notify.ticket)
        await data.hears(b"GET")
        control.abort()
        client.reset()
        await eventually(lambda: not relay.clients.splices, "the session is over")
        for _ in range(3):
            await self.raw_data(relay)
        self.assertEqual(relay.agents_port.unauthenticated, 3)

    async def test_authenticated_do_not_count(self) -> None:
        """
        Agents that are present, and data channels in use, are not counted.
        """
        relay = self.start_relay()
        control = await self.raw_agent(relay, "web")
        _, notify = await self.session(relay, control)
        data = await self.raw_data(relay, notify.ticket)
        await data.hears(b"GET")
        self.assertEqual(relay.agents_port.unauthenticated, 0)


class ParkedTests(RunningCase):
    """
    Data channels between two sessions.
    """

    async def parked(self, relay: RelayService, control: RawControl) -> RawData:
        """
        Have one session from its beginning to a clean end.
        """
        client, notify = await self.session(relay, control)
        data = await self.raw_data(relay, notify.ticket)
        await data.hears(b"GET")
        data.end()
        await client.end_of_all()
        client.close()
        await data.hears_kind(Kind.EOF)
        await eventually(lambda: relay.agents_port.parked, "it is parked")
        return data

    async def test_second_session(self) -> None:
        """
        A parked channel carries the session of another ticket, and nothing of
        the one before.
        """
        relay = self.start_relay()
        control = await self.raw_agent(relay, "web", "shop")
        data = await self.parked(relay, control)
        data.frames.clear()
        client, notify = await self.session(relay, control, "shop")
        data.join(notify.ticket)
        await data.hears(request("shop"))
        self.assertEqual(data.received, request("shop"))
        data.say(b"welcome")
        await client.hears(b"welcome")
        self.assertEqual(relay.agents_port.parked, 0)

    async def test_used_ticket(self) -> None:
        """
        A ticket that joins nothing ends a parked channel.
        """
        relay = self.start_relay()
        control = await self.raw_agent(relay, "web")
        data = await self.parked(relay, control)
        data.join(bytes(32))
        await data.hears_kind(Kind.RESET)
        self.assertEqual(relay.agents_port.parked, 0)

    async def test_expires(self) -> None:
        """
        The relay closes a parked channel that its agent has forgotten.
        """
        relay = self.start_relay({"parked": 0.1})
        control = await self.raw_agent(relay, "web")
        data = await self.parked(relay, control)
        await data.is_closed(2)
        self.assertEqual(relay.agents_port.parked, 0)

    async def test_lost(self) -> None:
        """
        One that is lost is not parked any more.
        """
        relay = self.start_relay()
        control = await self.raw_agent(relay, "web")
        data = await self.parked(relay, control)
        data.abort()
        await eventually(lambda: not relay.agents_port.parked, "it is forgotten")
