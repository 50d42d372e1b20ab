"""
Control channels at a real relay: who is let in, and what may be said.
"""

from __future__ import annotations

from typing import Any, get_args

import msgspec

from relaytunnel.agent.service import AgentService
from relaytunnel.config.names import PortRange
from relaytunnel.errors import Code
from relaytunnel.relay.service import RelayService
from relaytunnel.wire.control import IGNORABLE, MAX_BODY, frame
from relaytunnel.wire.invitation import Invitation
from relaytunnel.wire.messages import (
    Accept,
    Denied,
    Goodbye,
    Message,
    Notify,
    Ping,
    Pong,
    Register,
    Registered,
    Rejected,
    StandingRequest,
    Welcome,
    Withdraw,
    Withdrawn,
)
from tests.processes import until
from tests.running import HOST, Peer, RawControl, RunningCase, echo, eventually, reactor, request


def framed(body: bytes, flags: int = 0, length: int | None = None) -> bytes:
    """
    Frame any bytes, with any length.
    """
    return bytes((flags,)) + (len(body) if length is None else length).to_bytes(2, "big") + body


UNKNOWN = b"\x81\xa1t\xa6future"  # {"t": "future"} in msgpack


class AdmissionTests(RunningCase):
    """
    S1 and S2: who is let in.
    """

    def setUp(self) -> None:
        super().setUp()
        self.relay = self.start_relay({"authentication": 0.5})
        self.invitation = self.first_invitation(self.relay)

    async def denial(self, **given: Any) -> Denied:
        control = await self.raw_control(self.relay)
        control.say(self.hello(self.invitation, **given))
        denied = await control.hears(Denied)
        await control.is_closed()
        self.assertEqual(self.relay.registry.agents, {})
        return denied

    async def test_wrong_secret(self) -> None:
        """
        A wrong secret is denied, for long enough that guessing is no use.
        """
        denied = await self.denial(secret="guessed")
        self.assertEqual(denied.code, Code.AUTH.value)
        self.assertGreaterEqual(denied.retry_after, 60)

    async def test_unknown_agent(self) -> None:
        """
        An agent that nobody invited is told the same as one with a wrong
        secret.
        """
        unknown = await self.denial(agent="nobody")
        self.assertEqual(unknown, await self.denial(secret="guessed"))

    async def test_other_version(self) -> None:
        """
        A version of the protocol that the relay does not speak is denied.
        """
        denied = await self.denial(version=2)
        self.assertEqual(denied.code, Code.VERSION.value)
        self.assertIn("version 1", denied.reason)

    async def test_says_nothing(self) -> None:
        """
        Who has not said who it is when the time is up is cut off.
        """
        control = await self.raw_control(self.relay)
        await control.is_closed(2)

    async def test_says_it_slowly(self) -> None:
        """
        Who says it a byte at a time has no longer.
        """
        control = await self.raw_control(self.relay)
        began, rest = reactor.seconds(), iter(frame(self.hello(self.invitation)))

        def drip() -> object:
            control.say_raw(bytes((next(rest),)))
            return control.lost

        await until(drip, 2, "it is not listened to any more", 0.02)
        self.assertLess(reactor.seconds() - began, 1)
        self.assertEqual(self.relay.registry.agents, {})

    async def test_not_two_hellos(self) -> None:
        """
        An agent says once who it is.
        """
        control = await self.raw_agent(self.relay)
        control.say(self.hello(self.invitation))
        self.assertEqual((await control.hears(Goodbye)).code, Code.PROTOCOL_ERROR.value)
        await control.is_closed()
        await eventually(lambda: not self.relay.registry.agents, "it is forgotten")

    async def test_nothing_before_hello(self) -> None:
        """
        Nobody registers a server before it has said who it is.
        """
        control = await self.raw_control(self.relay)
        control.say(Register(connection_id="web"))
        await control.is_closed()
        self.assertEqual(self.relay.registry.servers, {})

    async def test_register_with_hello(self) -> None:
        """
        What comes while the secret is checked is not taken from somebody who
        is not known.
        """
        control = await self.raw_control(self.relay)
        control.say(self.hello(self.invitation, secret="guessed"), Register(connection_id="web"))
        await control.is_closed()
        self.assertEqual(self.relay.registry.servers, {})

    async def test_gone_while_checked(self) -> None:
        """
        An agent that leaves while its secret is checked is never present.
        """
        control = await self.raw_control(self.relay)
        control.say(self.hello(self.invitation))
        control.transport.loseConnection()
        await control.is_closed()
        await self.raw_agent(self.relay, epoch=2)
        self.assertEqual(set(self.relay.registry.agents), {"first"})

    async def test_last_seen(self) -> None:
        """
        When an agent was last here is kept.
        """
        await self.raw_agent(self.relay)
        store = self.accounts(self.relay)
        await eventually(lambda: store.agents()[0].last_seen, "it is noted")


class FaultTests(RunningCase):
    """
    What cannot be understood ends that control channel, and nothing else.
    """

    async def talking(self) -> tuple[RelayService, AgentService, Peer]:
        relay = self.start_relay()
        invitation = self.invite(relay, "office")
        target = self.target(echo)
        agent = await self.start_agent(
            relay, self.server("echo", target.address), invitation=invitation
        )
        client = await self.client(relay, request("echo"))
        await client.hears(b"GET")
        return relay, agent, client

    async def breaks(self, data: bytes, known: bool) -> RawControl:
        """
        Say this to a relay, before or after coming in; it must close that
        channel and go on with another agent's session.
        """
        relay, agent, client = await self.talking()
        if known:
            control = await self.raw_agent(relay, "web")
        else:
            control = await self.raw_control(relay)
        control.say_raw(data)
        await control.is_closed()
        # The relay may hear of its own end of the connection a little later.
        await eventually(lambda: set(relay.registry.agents) == {"office"}, "it is forgotten")
        self.assertEqual(set(relay.registry.servers), {"echo"})
        client.say(b"undisturbed")
        await client.hears(b"undisturbed")
        self.assertIsNot(agent.control, None)
        return control

    async def test_garbage_before(self) -> None:
        """
        Bytes that are no frame, before it is known who says them.
        """
        await self.breaks(b"GET / HTTP/1.1\r\n\r\n", known=False)

    async def test_garbage_after(self) -> None:
        """
        Bytes that are no frame, from an agent that is present.
        """
        control = await self.breaks(b"\xff" * 100, known=True)
        self.assertEqual((await control.hears(Goodbye)).code, Code.PROTOCOL_ERROR.value)

    async def test_oversized_before(self) -> None:
        """
        A frame that is too large for a stranger, from its header alone.
        """
        await self.breaks(framed(b"", length=1025), known=False)

    async def test_oversized_after(self) -> None:
        """
        A frame that is too large for anybody, from its header alone.
        """
        await self.breaks(framed(b"", length=MAX_BODY + 1), known=True)

    async def test_no_message_before(self) -> None:
        """
        A frame that holds no message, from a stranger.
        """
        await self.breaks(framed(b"\xc1" * 10), known=False)

    async def test_no_message_after(self) -> None:
        """
        A frame that holds no message, from an agent that is present.
        """
        await self.breaks(framed(b"\x93\x01\x02\x03"), known=True)

    async def test_unknown_before(self) -> None:
        """
        A message that the relay does not know and may not ignore.
        """
        await self.breaks(framed(UNKNOWN), known=False)

    async def test_unknown_after(self) -> None:
        """
        The same, from an agent that is present.
        """
        await self.breaks(framed(UNKNOWN), known=True)

    async def test_malformed_after(self) -> None:
        """
        A message that lacks what it has to have.
        """
        await self.breaks(framed(b"\x81\xa1t\xa8register"), known=True)

    async def test_wrong_direction(self) -> None:
        """
        A message that only relays send.
        """
        denied = Denied(code="auth", reason="turned round")
        await self.breaks(frame(denied), known=True)

    async def test_foreign_session(self) -> None:
        """
        An agent that speaks of a session that is another's.
        """
        relay, _, client = await self.talking()
        (number,) = relay.clients.splices
        control = await self.raw_agent(relay)
        control.say(Accept(session=number))
        await control.is_closed()
        client.say(b"undisturbed")
        await client.hears(b"undisturbed")

    async def test_every_message(self) -> None:
        """
        Whatever message an agent says of another's session and server, before
        or after coming in, both are as before.
        """
        relay, agent, client = await self.talking()
        first = self.first_invitation(relay)
        (number,) = relay.clients.splices
        fields: dict[str, Any] = {
            "session": number,
            "connection_id": "echo",
            "agent": "office",
            "secret": "guess",
            "version": 1,
            "epoch": 1,
            "number": 1,
            "code": "revoked",
            "reason": "because",
            "relay": "a",
            "node": "b",
            "sessions": 1,
            "ping": 1.0,
            "ticket": bytes(32),
            "client": "c",
            "arrived": "d",
            "reconnect_in": 0.0,
            "try_for": 1.0,
        }
        for kind in get_args(Message):
            required = [field.name for field in msgspec.structs.fields(kind) if field.required]
            message = kind(**{name: fields[name] for name in required})
            for known in (False, True):
                if known:
                    control = await self.raw_agent(relay, invitation=first)
                else:
                    control = await self.raw_control(relay)
                control.say(message)
                await eventually(
                    lambda c=control: c.messages or c.lost,  # type: ignore[misc]
                    f"an answer to {kind.__name__}",
                )
                control.abort()
                client.received = b""
                client.say(b"undisturbed")
                await client.hears(b"undisturbed")
        self.assertEqual(list(relay.clients.splices), [number])
        self.assertEqual(relay.registry.servers["echo"].agent.agent_id, "office")
        self.assertIsNot(agent.control, None)

    async def test_unasked_pong(self) -> None:
        """
        A pong that answers no ping.
        """
        await self.breaks(frame(Pong(number=77)), known=True)

    async def test_truncated(self) -> None:
        """
        A frame that never ends: the agent is gone with its connection.
        """
        relay, _, client = await self.talking()
        control = await self.raw_agent(relay, "web")
        control.say_raw(framed(b"\x82\xa1t", length=200))
        await eventually(lambda: "first" in relay.registry.agents, "it is still here")
        control.abort()
        await eventually(lambda: set(relay.registry.agents) == {"office"}, "it is gone")
        client.say(b"undisturbed")
        await client.hears(b"undisturbed")

    async def test_ignorable(self) -> None:
        """
        A message that the relay does not know but may ignore is skipped.
        """
        relay = self.start_relay()
        control = await self.raw_control(relay)
        control.say_raw(framed(UNKNOWN, IGNORABLE))
        control.say(self.hello(self.first_invitation(relay)))
        await control.hears(Welcome)
        control.say_raw(framed(UNKNOWN, IGNORABLE))
        control.say(Ping(number=7))
        self.assertEqual((await control.hears(Pong)).number, 7)

    async def test_cut_anyhow(self) -> None:
        """
        Messages may come byte by byte.
        """
        relay = self.start_relay()
        control = await self.raw_control(relay)
        for byte in frame(self.hello(self.first_invitation(relay))):
            control.say_raw(bytes((byte,)))
        await control.hears(Welcome)

    async def test_unknown_refusal_code(self) -> None:
        """
        A reason that the relay has no word for is still a reason.
        """
        relay = self.start_relay()
        control = await self.raw_agent(relay, "web")
        client, notify = await self.session(relay, control)
        control.say_raw(
            framed(
                b"\x84\xa1t\xa6refuse\xa7session\xcf"
                + notify.session.to_bytes(8, "big")
                + b"\xa4code\xa5moody\xa6reason\xa8not now!"
            )
        )
        self.assertIn(b"not now!", await client.end_of_all())


class RegistrationTests(RunningCase):
    """
    S3 and S4: what may be published.
    """

    async def rejected(
        self, message: Register, invitation: Invitation | None = None, relay: Any = None
    ) -> Rejected:
        """
        Ask for something that is turned down; what was published before stays.
        """
        relay = relay or self.start_relay()
        control = await self.raw_agent(relay, "other", invitation=invitation)
        control.messages.clear()
        control.say(message)
        rejected = await control.hears(Rejected)
        self.assertEqual(rejected.connection_id, message.connection_id)
        self.assertIn("other", relay.registry.servers)
        agent = "first" if invitation is None else invitation.agent
        self.assertNotIn("web", relay.registry.agents[agent].servers)
        self.assertEqual(control.messages, [])
        return rejected

    async def test_name_of_another_agent(self) -> None:
        """
        A connection ID belongs to the agent that had it first.
        """
        relay = self.start_relay()
        await self.raw_agent(relay, "web", invitation=self.invite(relay, "office"))
        rejected = await self.rejected(Register(connection_id="web"), relay=relay)
        self.assertEqual(rejected.code, Code.CONFLICT.value)
        self.assertEqual(relay.registry.servers["web"].agent.agent_id, "office")

    async def test_host_of_another_agent(self) -> None:
        """
        So does a host name.
        """
        relay = self.start_relay()
        office = self.invite(relay, "office")
        way = ("host:www.example.net",)
        await self.raw_agent(relay, Register(connection_id="site", reach=way), invitation=office)
        rejected = await self.rejected(Register(connection_id="web", reach=way), relay=relay)
        self.assertEqual(rejected.code, Code.CONFLICT.value)

    async def test_not_in_its_rights(self) -> None:
        """
        An account says which names an agent may publish.
        """
        relay = self.start_relay()
        invitation = self.invite(relay, "office", ["other", "*.office"])
        rejected = await self.rejected(Register(connection_id="web"), invitation, relay)
        self.assertEqual(rejected.code, Code.NOT_ALLOWED.value)
        self.assertIn("office", rejected.reason)

    async def test_taken_port(self) -> None:
        """
        A port that another program has is rejected as taken.
        """
        ports = self.start_relay().config.ports
        taken = reactor.listenTCP(ports.first, self.target(), interface=HOST)
        self.addCleanup(taken.stopListening)
        relay = self.start_relay(ports=ports)
        rejected = await self.rejected(
            Register(connection_id="web", reach=(f"port:{ports.first}",)), relay=relay
        )
        self.assertEqual(rejected.code, Code.PORT_TAKEN.value)
        self.assertIn(str(ports.first), rejected.reason)

    async def test_port_of_another_server(self) -> None:
        """
        A port that another server has is rejected as taken.
        """
        relay = self.start_relay()
        way = (f"port:{relay.config.ports.first}",)
        office = self.invite(relay, "office")
        await self.raw_agent(relay, Register(connection_id="site", reach=way), invitation=office)
        rejected = await self.rejected(Register(connection_id="web", reach=way), relay=relay)
        self.assertEqual(rejected.code, Code.PORT_TAKEN.value)

    async def test_port_outside_the_range(self) -> None:
        """
        A port that the relay does not give away is not allowed.
        """
        rejected = await self.rejected(Register(connection_id="web", reach=("port:22",)))
        self.assertEqual(rejected.code, Code.NOT_ALLOWED.value)
        self.assertIn("22", rejected.reason)

    async def test_port_outside_its_rights(self) -> None:
        """
        A port that is not the account's is not allowed.
        """
        relay = self.start_relay()
        ports = relay.config.ports
        invitation = self.invite(relay, "office", ["*"], [(ports.first, ports.first)])
        rejected = await self.rejected(
            Register(connection_id="web", reach=(f"port:{ports.last}",)), invitation, relay
        )
        self.assertEqual(rejected.code, Code.NOT_ALLOWED.value)

    async def test_any_port(self) -> None:
        """
        Who asks for any port gets one that is free, also where another
        program has the first.
        """
        ports = self.start_relay().config.ports
        taken = reactor.listenTCP(ports.first, self.target(), interface=HOST)
        self.addCleanup(taken.stopListening)
        relay = self.start_relay(ports=ports)
        control = await self.raw_agent(relay)
        control.say(Register(connection_id="web", reach=("port:0",)))
        registered = await control.hears(Registered)
        (port,) = relay.registry.servers["web"].ports
        self.assertIn(port, PortRange(ports.first + 1, ports.last))
        self.assertEqual(registered.reach, (f"tcp://{HOST}:{port}",))

    async def test_no_port_left(self) -> None:
        """
        Who asks for any port when none is left is told so.
        """
        relay = self.start_relay()
        first = relay.config.ports.first
        invitation = self.invite(relay, "office", ["*"], [(first, first)])
        control = await self.raw_agent(relay)
        control.say(Register(connection_id="site", reach=(f"port:{first}",)))
        await control.hears(Registered)
        rejected = await self.rejected(
            Register(connection_id="web", reach=("port:0",)), invitation, relay
        )
        self.assertEqual(rejected.code, Code.PORT_TAKEN.value)

    async def test_no_name(self) -> None:
        """
        What cannot be a name is rejected as invalid.
        """
        rejected = await self.rejected(Register(connection_id="web!"))
        self.assertEqual(rejected.code, Code.INVALID.value)

    async def test_other_protocol(self) -> None:
        """
        What the relay does not serve yet is rejected as unsupported.
        """
        rejected = await self.rejected(Register(connection_id="web", protocol="udp"))
        self.assertEqual(rejected.code, Code.UNSUPPORTED.value)

    async def test_too_many(self) -> None:
        """
        An agent publishes no more servers than are allowed.
        """
        relay = self.start_relay({"servers_per_agent": 1})
        rejected = await self.rejected(Register(connection_id="web"), relay=relay)
        self.assertEqual(rejected.code, Code.LIMIT.value)

    async def test_same_again(self) -> None:
        """
        A server that is registered again is replaced, with its port.
        """
        relay = self.start_relay()
        ports = relay.config.ports
        control = await self.raw_agent(relay)
        for way in (f"port:{ports.first}", f"port:{ports.last}", f"port:{ports.last}"):
            control.say(Register(connection_id="web", reach=(way,)))
            await control.hears(StandingRequest)
        self.assertEqual(relay.registry.servers["web"].ports, [ports.last])
        client = await self.dial(ports.last)
        client.say(b"hello")
        self.assertEqual((await control.hears(Notify)).arrived, f"port:{ports.last}")

    async def test_withdraw_and_register(self) -> None:
        """
        A server may be withdrawn and registered with the same port in one
        breath.
        """
        relay = self.start_relay()
        message = Register(connection_id="web", reach=(f"port:{relay.config.ports.first}",))
        control = await self.raw_agent(relay, message)
        control.say(Withdraw(connection_id="web"), message)
        await control.hears(StandingRequest)
        await self.dial(relay.config.ports.first)
        await control.hears(Notify)

    async def test_withdraw(self) -> None:
        """
        A server that is withdrawn is confirmed to be gone, and its port closed.
        """
        relay = self.start_relay()
        first = relay.config.ports.first
        control = await self.raw_agent(
            relay, Register(connection_id="web", reach=(f"port:{first}",)), "shop"
        )
        control.say(Withdraw(connection_id="web"))
        self.assertEqual((await control.hears(Withdrawn)).connection_id, "web")
        self.assertEqual(set(relay.registry.servers), {"shop"})
        with self.assertRaises(Exception):  # noqa: B017  # whatever the system calls it
            await self.dial(first)


class StayTests(RunningCase):
    """
    How long an agent stays, and who takes its place.
    """

    async def test_takeover(self) -> None:
        """
        An agent that is back takes its servers over at once from its own
        ghost, which neither reads nor answers.
        """
        relay = self.start_relay()
        ghost = await self.raw_agent(relay, "web")
        ghost.freeze()
        target = self.target(echo)
        began = reactor.seconds()
        agent = await self.start_agent(relay, self.server("web", target.address))
        self.assertLess(reactor.seconds() - began, 1)
        self.assertEqual(relay.registry.agents["first"].epoch, agent.state.epoch)
        client = await self.client(relay, request("web"))
        await client.hears(b"GET")

    async def test_takeover_leaves_sessions(self) -> None:
        """
        Sessions of the ghost go on.
        """
        relay = self.start_relay()
        ghost = await self.raw_agent(relay, "web")
        client, notify = await self.session(relay, ghost)
        data = await self.raw_data(relay, notify.ticket)
        await data.hears(b"GET")
        await self.raw_agent(relay, "web", epoch=2)
        self.assertEqual((await ghost.hears(Goodbye)).code, Code.SUPERSEDED.value)
        data.say(b"still here")
        await client.hears(b"still here")

    async def test_same_epoch(self) -> None:
        """
        An agent whose channel broke comes back with the same epoch.
        """
        relay = self.start_relay()
        await self.raw_agent(relay, "web")
        again = await self.raw_agent(relay, "web")
        self.assertEqual(relay.registry.agents["first"].peer, f"{HOST}:{again.port}")

    async def test_stale_epoch(self) -> None:
        """
        An agent that was started earlier than the one that is present is
        denied.
        """
        relay = self.start_relay()
        present = await self.raw_agent(relay, "web", epoch=5)
        stale = await self.raw_control(relay)
        stale.say(self.hello(self.first_invitation(relay), epoch=4))
        self.assertEqual((await stale.hears(Denied)).code, Code.STALE_EPOCH.value)
        await stale.is_closed()
        self.assertIs(present.lost, None)
        self.assertEqual(set(relay.registry.servers), {"web"})

    async def test_waiting_clients_of_a_ghost(self) -> None:
        """
        A client that a ghost has not accepted is told, and its ticket joins
        nothing.
        """
        relay = self.start_relay()
        ghost = await self.raw_agent(relay, "web")
        client = await self.client(relay, request("web"))
        notify = await ghost.hears(Notify)
        await self.raw_agent(relay, "web", epoch=2)
        self.assertIn(b"503", await client.end_of_all())
        data = await self.raw_data(relay, notify.ticket)
        await eventually(lambda: data.kinds, "an answer")
        self.assertEqual(relay.visits.room.served, 0)

    async def test_pings(self) -> None:
        """
        An agent that does not answer pings is gone after the limit.
        """
        relay = self.start_relay({"ping": 0.1, "dead": 0.4})
        control = await self.raw_agent(relay, "web")
        control.pongs = False
        await control.hears(Ping)
        await control.is_closed(2)
        self.assertEqual(relay.registry.agents, {})

    async def test_answered_pings(self) -> None:
        """
        An agent that answers stays.
        """
        relay = self.start_relay({"ping": 0.05, "dead": 0.2})
        control = await self.raw_agent(relay, "web")
        began = reactor.seconds()
        await eventually(lambda: reactor.seconds() - began > 0.5, "some time passes")
        self.assertIs(control.lost, None)

    async def test_does_not_read(self) -> None:
        """
        An agent that reads nothing is disconnected before much piles up.
        """
        relay = self.start_relay({"send_queue": 1000, "notify_burst": 100000})
        control = await self.raw_agent(relay, "web")
        control.transport.pauseProducing()
        agent = relay.registry.agents["first"]
        notice = Goodbye(code="shutdown", reason="x" * 256)
        sent = 0

        def flood() -> bool:
            nonlocal sent
            for _ in range(1000):
                agent.send(notice)
            sent += 1
            return not relay.registry.agents

        await eventually(flood, "it is disconnected", 20)

    async def test_goodbye(self) -> None:
        """
        An agent that says goodbye leaves, and its server is away.
        """
        relay = self.start_relay()
        control = await self.raw_agent(relay, "web")
        control.say(Goodbye(code="shutdown"))
        await control.is_closed()
        await eventually(lambda: not relay.registry.agents, "it is forgotten")
        self.assertIn("503", await self.get(relay, "web"))

    async def test_lost(self) -> None:
        """
        Losing the control channel does not end a running session, and the
        agent is back with its server.
        """
        relay = self.start_relay()
        target = self.target(echo)
        agent = await self.start_agent(relay, self.server("web", target.address))
        client = await self.client(relay, request("web"))
        await client.hears(b"GET")
        assert agent.control is not None
        agent.control.abort("the test")
        await eventually(lambda: not relay.registry.agents, "it is gone")
        client.say(b"meanwhile")
        await client.hears(b"meanwhile")
        await self.published(agent)
        client.say(b"afterwards")
        await client.hears(b"afterwards")
        self.assertEqual(len(target.visits), 1)
