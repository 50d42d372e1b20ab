"""
A whole agent: how it finds its relay, what it publishes, how it stops.
"""

from __future__ import annotations

import gc
import os
from dataclasses import replace
from datetime import UTC, datetime

from relaytunnel.agent import service as service_module
from relaytunnel.channel.identity import own_identity
from relaytunnel.errors import Code, Rejection
from relaytunnel.wire.messages import Denied, Goodbye, Register, Registered, StandingRequest
from tests.running import (
    HOST,
    RunningCase,
    echo,
    eventually,
    hello_page,
    reactor,
    request,
    sockets,
)


class RelayTests(RunningCase):
    """
    Which relay an agent believes, and what it says about the others.
    """

    async def test_wrong_pin(self) -> None:
        """
        A relay whose key does not match the pin is told no secret, and why it
        is not believed stands in the log.
        """
        raw = self.raw_relay()
        other = self.raw_relay()
        invitation = replace(raw.invitation, pin=other.invitation.pin)
        logged = self.logged()
        agent = self.new_agent(invitation)
        await eventually(
            lambda: [text for text in logged if "does not match the pin" in text], "it says so"
        )
        self.assertIs(agent.control, None)
        self.assertTrue(all(control.messages == [] for control in raw.controls))

    async def test_expired_certificate(self) -> None:
        """
        Nor is one whose certificate has expired, although the pin is right.
        """
        directory = self.mktemp()
        os.mkdir(directory)
        identity = own_identity(directory, HOST, datetime(2001, 3, 4, tzinfo=UTC))
        raw = self.raw_relay(identity)
        logged = self.logged()
        agent = self.new_agent(raw.invitation)
        await eventually(
            lambda: [text for text in logged if "expired on 2011-03-02" in text], "it says so"
        )
        self.assertIs(agent.control, None)
        self.assertTrue(all(control.messages == [] for control in raw.controls))

    async def test_other_name(self) -> None:
        """
        With an authority instead of a pin the name has to be the relay's.
        """
        directory = self.mktemp()
        os.mkdir(directory)
        raw = self.raw_relay(own_identity(directory, "relay.example"))
        invitation = replace(raw.invitation, pin=None)
        logged = self.logged()
        self.new_agent(invitation, ca=os.path.join(directory, "certificate.pem"))
        await eventually(
            lambda: [text for text in logged if f"is not for {HOST}" in text], "it says so"
        )
        self.assertTrue(all(control.messages == [] for control in raw.controls))

    async def test_no_tls(self) -> None:
        """
        What answers without TLS is no relay.
        """
        target = self.target(lambda peer: peer.say(b"HTTP/1.1 400 Bad Request\r\n\r\n"))
        raw = self.raw_relay()
        logged = self.logged()
        self.new_agent(replace(raw.invitation, port=target.port))
        await eventually(
            lambda: [text for text in logged if "no control channel" in text], "it says so"
        )
        self.assertNotIn(raw.invitation.secret.encode(), target.visits[0].received)

    async def test_not_there_yet(self) -> None:
        """
        A relay that is not there yet is dialled until it is.
        """
        relay = self.start_relay()
        invitation = self.first_invitation(relay)
        await relay.stopService()
        logged = self.logged()
        agent = self.new_agent(invitation, self.server("web", "127.0.0.1:1"))
        await eventually(
            lambda: [text for text in logged if "cannot be reached" in text], "it says so"
        )
        self.start_relay(state=relay.state.path, agents=f"tcp:{invitation.port}:interface={HOST}")
        await self.published(agent)

    async def test_denied(self) -> None:
        """
        An agent that is denied says why, and comes back no sooner than it was
        told.
        """
        raw = self.raw_relay()
        logged = self.logged()
        agent = self.new_agent(raw.invitation)
        control = await raw.control()
        began = reactor.seconds()
        control.say(Denied(code="auth", reason="who are you?", retry_after=0.3))
        await control.is_closed()
        await raw.control(1)
        self.assertGreater(reactor.seconds() - began, 0.3)
        self.assertTrue([text for text in logged if "who are you?" in text])
        self.assertIs(agent.control, None)

    async def test_epoch_grows(self) -> None:
        """
        An agent that was started later has a higher epoch.
        """
        raw = self.raw_relay()
        first = self.new_agent(raw.invitation)
        await raw.control()
        second = self.new_agent(raw.invitation)
        self.assertGreater(second.state.epoch, first.state.epoch)


class PublishTests(RunningCase):
    """
    S3 and S4 from the agent's side.
    """

    async def test_one_is_rejected(self) -> None:
        """
        A server that is rejected is logged with the reason; the others are
        published.
        """
        relay = self.start_relay()
        target = self.target(hello_page)
        logged = self.logged()
        agent = self.new_agent(
            self.first_invitation(relay),
            self.server("web", target.address),
            self.server("root", target.address, "port:22"),
        )
        await eventually(
            lambda: [text for text in logged if "root is not published: not-allowed" in text],
            "it says so",
        )
        self.assertIn("hello", await self.get(relay, "web"))
        self.assertIsNot(agent.control, None)

    async def test_tries_again(self) -> None:
        """
        A server whose name another agent has is asked for again, and published
        when that one is gone.
        """
        self.patch(service_module, "_REGISTER_AGAIN", 0.05)
        relay = self.start_relay()
        target = self.target(hello_page)
        owner = await self.raw_agent(relay, "web")
        logged = self.logged()
        rival = self.new_agent(self.invite(relay, "rival"), self.server("web", target.address))
        said = f"web is not published: {Code.CONFLICT.value}"
        await eventually(lambda: sum(said in text for text in logged) > 2, "it tries again")
        self.assertEqual(relay.registry.servers["web"].agent.agent_id, "first")
        owner.abort()
        await self.published(rival)
        self.assertIn("hello", await self.get(relay, "web"))

    async def test_told_where(self) -> None:
        """
        Where clients find a server stands in the log.
        """
        relay = self.start_relay()
        port = relay.config.ports.first
        logged = self.logged()
        await self.start_agent(relay, self.server("web", "127.0.0.1:1", f"port:{port}"))
        self.assertIn(f"web is reached at tcp://{HOST}:{port}", logged)

    async def test_publish(self) -> None:
        """
        A server that asks a running agent is published, also after the
        control channel was lost.
        """
        relay = self.start_relay()
        agent = await self.start_agent(relay)
        server = await agent.publish(self.server("web", self.target(hello_page).address))
        self.assertTrue(server.addresses)
        self.assertIn("hello", await self.get(relay, "web"))
        assert agent.control is not None
        agent.control.abort("the test")
        await eventually(lambda: agent.control is None, "it is lost")
        await self.published(agent)
        self.assertIn("hello", await self.get(relay, "web"))

    async def test_publish_what_is_rejected(self) -> None:
        """
        Who asked for what the relay rejects is told why.
        """
        relay = self.start_relay()
        agent = await self.start_agent(relay)
        with self.assertRaises(Rejection) as caught:
            await agent.publish(self.server("web", "127.0.0.1:1", "port:22"))
        self.assertIs(caught.exception.code, Code.NOT_ALLOWED)

    async def test_withdraw(self) -> None:
        """
        A server that was withdrawn is not there any more; its session goes on.
        """
        relay = self.start_relay()
        agent = await self.start_agent(relay, self.server("web", self.target(echo).address))
        client = await self.client(relay, request("web"))
        await client.hears(b"GET")
        agent.withdraw("web")
        await eventually(lambda: not relay.registry.servers, "it is withdrawn")
        self.assertIn("404", await self.get(relay, "web"))
        client.say(b"still here")
        await client.hears(b"still here")

    async def test_several_agents(self) -> None:
        """
        Several agents publish side by side at one relay, and each gets its
        own clients.
        """
        relay = self.start_relay()
        targets = {name: self.target(hello_page) for name in ("a", "b", "c")}
        for name, target in targets.items():
            invitation = self.invite(relay, f"agent-{name}")
            await self.start_agent(relay, self.server(name, target.address), invitation=invitation)
        for name, target in targets.items():
            self.assertIn("hello", await self.get(relay, name))
            self.assertEqual(len(target.visits), 1)

    async def test_many_servers(self) -> None:
        """
        A thousand servers need one connection, and no port at the relay.
        """
        relay = self.start_relay()
        gc.collect()  # other tests' sockets are not ours
        before = sockets()
        names = [f"s{number:03d}" for number in range(1000)]
        agent = await self.start_agent(
            relay, *(self.server(name, "127.0.0.1:1") for name in names)
        )
        self.assertEqual(len(relay.registry.servers), len(names))
        self.assertEqual(sockets() - before, 2)  # both ends of one connection
        self.assertEqual(agent.channels.parked, 0)


class StopTests(RunningCase):
    """
    How an agent stops.
    """

    async def test_goodbye(self) -> None:
        """
        It says goodbye, so that the relay need not find out.
        """
        raw = self.raw_relay()
        agent = self.new_agent(raw.invitation)
        control = await raw.welcomed()
        await eventually(lambda: agent.control, "it is in")
        await agent.stopService()
        self.assertEqual((await control.hears(Goodbye)).code, Code.SHUTDOWN.value)

    async def test_sessions_end(self) -> None:
        """
        Clients and servers of its sessions see a reset, and nothing is left.
        """
        relay = self.start_relay()
        target = self.target(echo)
        agent = await self.start_agent(relay, self.server("web", target.address))
        client = await self.client(relay, request("web"))
        await client.hears(b"GET")
        await agent.stopService()
        await client.is_reset()
        await eventually(lambda: target.visits[0].was_reset, "the server sees it")
        self.assertEqual((agent.splices, agent.state.visits), ({}, {}))

    async def test_while_dialling(self) -> None:
        """
        It may stop while it waits for servers and for its relay.
        """
        relay = self.start_relay()
        agent = await self.start_agent(relay, self.server("web", self.hanging()))
        client = await self.client(relay, request("web"))
        await eventually(lambda: agent.state.visits, "it is on its way")
        await agent.stopService()
        self.assertIn(b"503", await client.end_of_all())
        self.assertEqual(agent.state.visits, {})

    async def test_relay_is_frozen(self) -> None:
        """
        A relay that neither reads nor closes does not keep it for long.
        """
        raw = self.raw_relay()
        agent = self.new_agent(raw.invitation)
        control = await raw.welcomed()
        await eventually(lambda: agent.control, "it is in")
        control.freeze()
        began = reactor.seconds()
        await agent.stopService()
        self.assertLess(reactor.seconds() - began, 3)

    async def test_while_connecting(self) -> None:
        """
        It may stop before it has reached its relay.
        """
        raw = self.raw_relay()
        agent = self.new_agent(raw.invitation)
        await agent.stopService()
        self.assertEqual(raw.controls, [])

    async def test_not_registered_any_more(self) -> None:
        """
        What the relay confirmed is forgotten with the control channel.
        """
        raw = self.raw_relay()
        agent = self.new_agent(raw.invitation, self.server("web", "127.0.0.1:1"))
        control = await raw.welcomed()
        await control.hears(Register)
        control.say(Registered(connection_id="web"), StandingRequest(connection_id="web"))
        await self.published(agent)
        control.abort()
        await eventually(lambda: agent.control is None, "it is lost")
        self.assertFalse(any(server.registered for server in agent.state.servers))
