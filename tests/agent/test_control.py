"""
The agent's end of the control channel, at a relay that is driven by hand.
"""

from __future__ import annotations

from typing import Any

from relaytunnel.agent.service import AgentService
from relaytunnel.errors import Code
from relaytunnel.pools import Pool
from relaytunnel.wire.control import IGNORABLE, MAX_BODY
from relaytunnel.wire.messages import (
    Cancel,
    Denied,
    Goodbye,
    Hello,
    Notify,
    Ping,
    Pong,
    Refuse,
    Register,
    Registered,
    Rejected,
    Restarting,
    StandingRequest,
    Welcome,
    Withdrawn,
)
from tests.running import HOST, RawControl, RawRelay, RunningCase, eventually, reactor

UNKNOWN = b"\x00\x00\x0a\x81\xa1t\xa6future"


class AdmissionTests(RunningCase):
    """
    S1 and S2.
    """

    async def test_hello(self) -> None:
        """
        The agent says who it is, with the secret of its invitation.
        """
        raw = self.raw_relay()
        agent = self.new_agent(raw.invitation)
        await eventually(lambda: raw.controls, "it has come")
        hello = await raw.controls[0].hears(Hello)
        self.assertEqual((hello.agent, hello.secret), ("office", "a-secret"))
        self.assertEqual((hello.version, hello.epoch), (1, agent.state.epoch))

    async def test_not_welcomed(self) -> None:
        """
        A relay that does not answer in time is left, and dialled again.
        """
        raw = self.raw_relay()
        agent = self.new_agent(raw.invitation, limits={"authentication": 0.2})
        control = await raw.control()
        await control.is_closed(2)
        self.assertIs(agent.control, None)
        await raw.control(1)

    async def test_no_handshake(self) -> None:
        """
        Neither is something that takes connections and says nothing.
        """
        target = self.target()
        raw = self.raw_relay()
        raw.port = target.port
        self.new_agent(raw.invitation, limits={"authentication": 0.2})
        await target.visit(1)

    async def test_no_control_channels(self) -> None:
        """
        What proves to be the relay but takes no control channels is left
        without a word.
        """
        raw = self.raw_relay()
        raw.take_no_channels()
        logged = self.logged()
        self.new_agent(raw.invitation)
        await eventually(
            lambda: [text for text in logged if "no control channel" in text], "it says so"
        )
        self.assertEqual(raw.controls[0].messages, [])

    async def test_registers_when_welcome(self) -> None:
        """
        Servers are registered when the relay has let the agent in, not before.
        """
        raw = self.raw_relay()
        self.new_agent(raw.invitation, self.server("web", "127.0.0.1:1"))
        control = await raw.control()
        self.assertEqual(control.messages, [])
        control.say(Welcome(relay="raw", node="raw", sessions=1, ping=60.0))
        self.assertEqual((await control.hears(Register)).connection_id, "web")


class LogTests(RunningCase):
    """
    What a relay says stands in the log, and cannot do anything there.
    """

    async def test_escaped(self) -> None:
        """
        Whatever it says, an entry is one line in which everything can be
        printed, and not long.
        """
        logged = self.logged()
        evil = "\r\n\x1b[2J\u202e\x9b"
        raw = self.raw_relay()
        self.new_agent(raw.invitation, self.server("web", f"{HOST}:1"))
        control = await raw.control()
        control.say(
            Welcome(relay=evil, node=evil, sessions=1, ping=60.0),
            Registered(connection_id="web", reach=(evil,)),
            StandingRequest(connection_id="web"),
            Notify(session=1, connection_id=evil, ticket=bytes(32), client="", arrived=evil),
            Rejected(connection_id="web", code=evil, reason=evil * 30),
            Goodbye(code=evil, reason=evil),
        )
        await control.is_closed()
        denying = await raw.control(1)
        denying.say(Denied(code=evil, reason=evil, retry_after=60.0))
        await denying.is_closed()
        for mark in ("has let", "is reached", "not published", "is refused", "does not let"):
            await eventually(lambda m=mark: [t for t in logged if m in t], mark)  # type: ignore[misc]
        for text in logged:
            for line in text.split("\n"):
                self.assertTrue(line.isprintable(), line)
                self.assertLess(len(line), 600)


class PresentCase(RunningCase):
    """
    An agent that has been let in, and its server published.
    """

    async def present(
        self, target: str = "127.0.0.1:1", **limits: Any
    ) -> tuple[RawRelay, AgentService, RawControl]:
        raw = self.raw_relay()
        agent = self.new_agent(raw.invitation, self.server("web", target), limits=limits)
        control = await raw.welcomed()
        await control.hears(Register)
        control.say(Registered(connection_id="web"), StandingRequest(connection_id="web"))
        await self.published(agent)
        return raw, agent, control


class FaultTests(PresentCase):
    """
    A relay that does not keep to the protocol is left, and dialled again.
    """

    async def is_left(self, said: bytes) -> None:
        raw, _, control = await self.present()
        control.say_raw(said)
        self.assertEqual((await control.hears(Goodbye)).code, Code.PROTOCOL_ERROR.value)
        await control.is_closed()
        await raw.welcomed(1)

    async def test_garbage(self) -> None:
        """
        Bytes that are no frame.
        """
        await self.is_left(b"\xff" * 50)

    async def test_oversized(self) -> None:
        """
        A frame that is too large, from its header alone.
        """
        await self.is_left(b"\x00" + (MAX_BODY + 1).to_bytes(2, "big"))

    async def test_no_message(self) -> None:
        """
        A frame that holds no message.
        """
        await self.is_left(b"\x00\x00\x03\xc1\xc1\xc1")

    async def test_unknown(self) -> None:
        """
        A message that it does not know and may not ignore.
        """
        await self.is_left(UNKNOWN)

    async def test_before_welcome(self) -> None:
        """
        A relay is not listened to before it has let the agent in.
        """
        raw = self.raw_relay()
        self.new_agent(raw.invitation)
        control = await raw.control()
        control.say(Registered(connection_id="web"))
        await control.is_closed()

    async def test_large_before_welcome(self) -> None:
        """
        Before that it may say nothing large either.
        """
        raw = self.raw_relay()
        self.new_agent(raw.invitation)
        control = await raw.control()
        control.say_raw(b"\x00\x04\x01")
        await control.is_closed()

    async def test_ignorable(self) -> None:
        """
        A message that it does not know but may ignore is skipped.
        """
        _, agent, control = await self.present()
        control.say_raw(bytes((IGNORABLE,)) + UNKNOWN[1:])
        control.say(Ping(number=5))
        self.assertEqual((await control.hears(Pong)).number, 5)
        self.assertIsNot(agent.control, None)

    async def test_session_twice(self) -> None:
        """
        A session that is notified twice.
        """
        _, _, control = await self.present(self.hanging(), dial=5.0)
        notify = Notify(
            session=1,
            connection_id="web",
            ticket=bytes(32),
            client=f"{HOST}:1",
            arrived="name",
        )
        control.say(notify, notify)
        await control.is_closed()

    async def test_client_that_is_no_address(self) -> None:
        """
        A client at a port that is no number, though it is made of digits:
        nothing is dialled for it, and nothing is left of it.
        """
        target = self.target()
        _, agent, control = await self.present(target.address)
        control.say(
            Notify(
                session=1,
                connection_id="web",
                ticket=bytes(32),
                client="1.2.3.4:\u00b2",
                arrived="name",
            )
        )
        await control.is_closed()
        self.assertEqual(target.visits, [])
        self.assertEqual((agent.state.visits, agent.splices), ({}, {}))

    async def test_more_clients_than_descriptors(self) -> None:
        """
        A relay that notifies of clients without end gets as many served as the
        agent has descriptors for; the others are refused, and there is room
        again when those have gone.
        """
        _, agent, control = await self.present(self.hanging(), dial=5.0)
        agent.state.servers.sessions = Pool(4)

        def notify(session: int) -> Notify:
            return Notify(
                session=session,
                connection_id="web",
                ticket=bytes(32),
                client=f"192.0.2.{session}:1",
                arrived="name",
            )

        control.say(*map(notify, range(1, 21)))
        for session in range(5, 21):
            refusal = await control.hears(Refuse)
            self.assertEqual((refusal.session, refusal.code), (session, Code.BUSY.value))
        self.assertEqual(sorted(agent.state.visits), [1, 2, 3, 4])
        control.say(Cancel(session=2), notify(21))
        await eventually(lambda: 21 in agent.state.visits, "there is room again")
        self.assertIsNot(agent.control, None)

    async def test_other_endpoint(self) -> None:
        """
        A relay that wants it to dial somewhere else is refused.
        """
        _, agent, control = await self.present()
        target = self.target()
        control.say(
            Notify(
                session=1,
                connection_id="web",
                ticket=bytes(32),
                client=f"{HOST}:1",
                arrived="name",
                endpoint=f"tcp:{target.address}",
            )
        )
        self.assertEqual((await control.hears(Refuse)).code, Code.NOT_ALLOWED.value)
        self.assertEqual(target.visits, [])
        self.assertIsNot(agent.control, None)

    async def test_cancel_of_nothing(self) -> None:
        """
        A session that is over already may be called off.
        """
        _, agent, control = await self.present()
        control.say(Cancel(session=77), Ping(number=5))
        await control.hears(Pong)
        self.assertIsNot(agent.control, None)

    async def test_foreign_server(self) -> None:
        """
        What the relay says of servers that are none of ours is passed over.
        """
        _, agent, control = await self.present()
        control.say(
            Registered(connection_id="other"),
            StandingRequest(connection_id="other"),
            Withdrawn(connection_id="other"),
            Rejected(connection_id="other", code="conflict", reason="so"),
            Ping(number=5),
        )
        await control.hears(Pong)
        self.assertIs(agent.state.servers.get("other"), None)


class StayTests(PresentCase):
    """
    How long the channel is kept.
    """

    async def test_dead_relay(self) -> None:
        """
        A relay that answers nothing any more is left after the limit.
        """
        raw = self.raw_relay()
        self.new_agent(raw.invitation, limits={"ping": 0.1, "dead": 0.4})
        control = await raw.control()
        control.say(Welcome(relay="raw", node="raw", sessions=1, ping=0.1))
        control.freeze()
        began = reactor.seconds()
        await raw.control(1)
        self.assertLess(reactor.seconds() - began, 3)

    async def test_withdrawn(self) -> None:
        """
        A server that the relay withdraws is not served any more, and why
        stands in the log.
        """
        _, agent, control = await self.present()
        logged = self.logged()
        control.say(Withdrawn(connection_id="web", code="not-allowed", reason="no more"))
        await eventually(lambda: [t for t in logged if "no more" in t], "it says so")
        server = agent.state.servers.get("web")
        assert server is not None
        self.assertFalse(server.registered)

    async def test_restarting(self) -> None:
        """
        A relay that restarts as planned is dialled within the time that it
        said.
        """
        raw, _, control = await self.present()
        control.say(
            Restarting(reconnect_in=1.0, try_for=60.0), Goodbye(code="shutdown", reason="later")
        )
        began = reactor.seconds()
        await raw.control(1)
        self.assertLess(reactor.seconds() - began, 1)

    async def test_superseded(self) -> None:
        """
        An agent that was superseded does not fight for its place.
        """
        raw, _, control = await self.present()
        control.say(Goodbye(code=Code.SUPERSEDED.value, reason="another one is here"))
        await control.is_closed()
        began = reactor.seconds()
        await eventually(lambda: reactor.seconds() - began > 0.5, "some time passes")
        self.assertEqual(len(raw.controls), 1)
