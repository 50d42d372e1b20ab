"""
Client channels at a real relay: what clients are told, and what they may do
while they wait.
"""

from __future__ import annotations

from ipaddress import ip_network

from relaytunnel.errors import Code
from relaytunnel.wire.data import Kind
from relaytunnel.wire.messages import Accept, Cancel, Notify, Refuse, Register
from tests.running import HOST, RunningCase, eventually, reactor, request


class ArrivalTests(RunningCase):
    """
    S5: how a client names its server, or does not.
    """

    async def test_unknown_host(self) -> None:
        """
        A host that no server has is not found.
        """
        answer = await self.get(self.start_relay(), "nowhere.example")
        self.assertTrue(answer.startswith("HTTP/1.1 404 "), answer)
        self.assertIn(Code.NO_SUCH_SERVER.value, answer)
        self.assertIn("nowhere.example", answer)

    async def test_no_host(self) -> None:
        """
        A request without a Host names nobody: its client is asked, with the
        list of those that want to be listed.
        """
        relay = self.start_relay()
        await self.raw_agent(relay, Register(connection_id="web", listed=True), "hidden")
        client = await self.client(relay, b"GET / HTTP/1.0\r\n\r\n")
        answer = await client.end_of_all()
        self.assertTrue(answer.startswith(b"HTTP/1.1 300 Multiple Choices\r\n"), answer)
        self.assertIn(b"\n web ", answer)
        self.assertNotIn(b"hidden", answer)

    async def test_bad_request(self) -> None:
        """
        A request that could be read in two ways is turned down.
        """
        client = await self.client(
            self.start_relay(), b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"
        )
        self.assertTrue((await client.end_of_all()).startswith(b"HTTP/1.1 400 "))

    async def test_too_long(self) -> None:
        """
        A head without end is turned down, and not held.
        """
        client = await self.client(self.start_relay(), b"GET / HTTP/1.1\r\nX: " + b"x" * 20000)
        self.assertTrue((await client.end_of_all()).startswith(b"HTTP/1.1 431 "))

    async def test_silent(self) -> None:
        """
        Who says nothing is told so when the time is up.
        """
        relay = self.start_relay({"arrival": 0.1})
        client = await self.client(relay)
        self.assertTrue((await client.end_of_all()).startswith(b"relaytunnel: timeout: "))

    async def test_slow(self) -> None:
        """
        Who begins and does not go on has no longer, and hears HTTP.
        """
        relay = self.start_relay({"arrival": 0.3})
        client = await self.client(relay, b"GET / HTTP/1.1\r\nX: ")

        def drip() -> bool:
            client.say(b"x")
            return client.ended

        await eventually(drip, "it is not listened to any more", 2)
        self.assertTrue(client.received.startswith(b"HTTP/1.1 408 "), client.received)

    async def test_other_protocol(self) -> None:
        """
        Who speaks what is not spoken here is told so in a line of text.
        """
        client = await self.client(self.start_relay(), b"\x00\x01\x02\x03 who knows\r\n")
        self.assertTrue((await client.end_of_all()).startswith(b"relaytunnel: unsupported: "))

    async def test_ends_at_once(self) -> None:
        """
        Who ends without a word is let go.
        """
        relay = self.start_relay()
        client = await self.client(relay)
        client.end()
        self.assertEqual(await client.end_of_all(), b"")
        await eventually(lambda: not relay.clients.present, "nobody is present")

    async def test_resets_at_once(self) -> None:
        """
        Who resets before a word is forgotten.
        """
        relay = self.start_relay()
        client = await self.client(relay, b"GET /")
        await eventually(lambda: relay.clients.present, "it has come")
        client.reset()
        await eventually(lambda: not relay.clients.present, "nobody is present")

    async def test_head_in_pieces(self) -> None:
        """
        A head may come byte by byte, and goes on as it came.
        """
        relay = self.start_relay()
        control = await self.raw_agent(relay, "web")
        client = await self.client(relay)
        for byte in request("web"):
            client.say(bytes((byte,)))
        notify = await control.hears(Notify)
        data = await self.raw_data(relay, notify.ticket)
        await data.hears(request("web"))

    async def test_subdomain(self) -> None:
        """
        A name below which everything belongs to a server leads to it.
        """
        relay = self.start_relay()
        control = await self.raw_agent(relay, "web")
        await self.client(relay, request("web.relay.example:8000"))
        self.assertEqual((await control.hears(Notify)).arrived, "host:web.relay.example")

    async def test_own_port(self) -> None:
        """
        A client of a server's own port need not say a word.
        """
        relay = self.start_relay()
        port = relay.config.ports.first
        control = await self.raw_agent(
            relay, Register(connection_id="web", reach=(f"port:{port}",))
        )
        client = await self.dial(port)
        notify = await control.hears(Notify)
        self.assertEqual(notify.arrived, f"port:{port}")
        data = await self.raw_data(relay, notify.ticket)
        data.say(b"the server speaks first")
        await client.hears(b"the server speaks first")

    async def test_own_port_only(self) -> None:
        """
        A server that has nothing but a port is not to be had by its name.
        """
        relay = self.start_relay()
        port = relay.config.ports.first
        await self.raw_agent(relay, Register(connection_id="web", reach=(f"port:{port}",)))
        self.assertIn("404", await self.get(relay, "web"))


class AdmissionTests(RunningCase):
    """
    S6: whether this client may reach this server now.
    """

    async def test_not_allowed(self) -> None:
        """
        A server that is not open to this client's address is not shown to it.
        """
        relay = self.start_relay()
        control = await self.raw_agent(relay, Register(connection_id="web", allow=("10.0.0.0/8",)))
        self.assertIn("403", await self.get(relay, "web"))
        self.assertEqual(control.messages[1:], [])

    async def test_allowed(self) -> None:
        """
        One that is open to it is.
        """
        relay = self.start_relay()
        control = await self.raw_agent(
            relay, Register(connection_id="web", allow=("10.0.0.0/8", "127.0.0.0/8"))
        )
        await self.client(relay, request("web"))
        await control.hears(Notify)

    async def test_agent_checks_again(self) -> None:
        """
        The agent does not rely on the relay for that.
        """
        relay = self.start_relay()
        target = self.target()
        networks = (ip_network("10.0.0.0/8"),)
        await self.start_agent(relay, self.server("web", target.address, allow=networks))
        relay.registry.servers["web"].allow = ()
        answer = await self.get(relay, "web")
        self.assertIn(Code.NOT_ALLOWED.value, answer)
        self.assertEqual(target.visits, [])

    async def test_agent_away(self) -> None:
        """
        A server whose agent is not here is told apart from one that is not.
        """
        relay = self.start_relay()
        control = await self.raw_agent(relay, "web")
        control.abort()
        await eventually(lambda: not relay.registry.agents, "it is gone")
        answer = await self.get(relay, "web")
        self.assertTrue(answer.startswith("HTTP/1.1 503 "), answer)
        self.assertIn(Code.AGENT_AWAY.value, answer)
        self.assertIn("Retry-After", answer)

    async def test_too_many_wait(self) -> None:
        """
        When too many wait for a server, the next is told that it is busy.
        """
        relay = self.start_relay({"waiting_per_server": 2})
        control = await self.raw_agent(relay, "web", "shop")
        for _ in range(2):
            await self.session(relay, control)
        answer = await self.get(relay, "web")
        self.assertTrue(answer.startswith("HTTP/1.1 503 "), answer)
        self.assertIn(Code.BUSY.value, answer)
        await self.session(relay, control, "shop")

    async def test_too_many_sessions(self) -> None:
        """
        When too many sessions are running, the next client is told so, and
        one more may come when one has ended.
        """
        relay = self.start_relay({"sessions_per_server": 1})
        control = await self.raw_agent(relay, "web")
        client, notify = await self.session(relay, control)
        data = await self.raw_data(relay, notify.ticket)
        await data.hears(b"GET")
        self.assertIn("503", await self.get(relay, "web"))
        client.reset()
        await data.hears_kind(Kind.RESET)
        await self.session(relay, control)

    async def test_too_fast(self) -> None:
        """
        Clients that come faster than the agent may be told are turned away.
        """
        relay = self.start_relay({"notify_burst": 2, "notify_rate": 0.1})
        control = await self.raw_agent(relay, "web")
        for _ in range(2):
            await self.session(relay, control)
        self.assertIn("503", await self.get(relay, "web"))

    async def test_refused_on_an_own_port(self) -> None:
        """
        On a port of its own there is nothing to say: it is reset at once.
        """
        relay = self.start_relay()
        port = relay.config.ports.first
        await self.raw_agent(
            relay,
            Register(connection_id="web", reach=(f"port:{port}",), allow=("10.0.0.0/8",)),
        )
        client = await self.dial(port)
        await client.is_reset(1)


class WaitingTests(RunningCase):
    """
    S7 to S10: what may happen before the data channel comes.
    """

    async def test_reset_is_an_abort(self) -> None:
        """
        A client that resets while it waits is called off at the agent, and
        its place is free.
        """
        relay = self.start_relay()
        control = await self.raw_agent(relay, "web")
        client, notify = await self.session(relay, control)
        client.reset()
        self.assertEqual((await control.hears(Cancel)).session, notify.session)
        self.assertEqual((relay.visits.room.waiting, relay.visits.sessions), (0, {}))
        data = await self.raw_data(relay, notify.ticket)
        await data.hears_kind(Kind.RESET)

    async def test_reset_while_paused(self) -> None:
        """
        That is noticed within a second also when so much is held that nobody
        reads from it.
        """
        relay = self.start_relay({"held": 1000})
        control = await self.raw_agent(relay, "web")
        client = await self.client(relay, request("web") + b"x" * 5000)
        await control.hears(Notify)
        began = reactor.seconds()
        client.reset()
        await control.hears(Cancel)
        self.assertLess(reactor.seconds() - began, 1)
        self.assertEqual(relay.visits.room.waiting, 0)

    async def test_end_is_no_abort(self) -> None:
        """
        A client that has said all and ends still gets its answer.
        """
        relay = self.start_relay()
        control = await self.raw_agent(relay, "web")
        client = await self.client(relay, request("web"))
        client.end()
        notify = await control.hears(Notify)
        data = await self.raw_data(relay, notify.ticket)
        await data.hears_kind(Kind.EOF)
        self.assertEqual(data.received, request("web"))
        data.say(b"the answer")
        data.end()
        self.assertEqual(await client.end_of_all(), b"the answer")
        self.assertFalse(client.was_reset)

    async def test_held_within_a_bound(self) -> None:
        """
        No more than the limit is held of a client that goes on talking; what
        it says is not lost.
        """
        relay = self.start_relay({"held": 1000})
        control = await self.raw_agent(relay, "web")
        client = await self.client(relay, request("web"))
        notify = await control.hears(Notify)
        said = b"x" * 8_000_000
        client.say(said)
        (place,) = relay.visits.sessions.values()
        self.assertTrue(place.waiting)
        data = await self.raw_data(relay, notify.ticket)
        whole = len(said) + len(request("web"))
        await eventually(lambda: sum(len(p) for _, p in data.frames) >= whole, "all of it", 20)

    async def test_agent_does_not_answer(self) -> None:
        """
        When the time is up the client is told that the agent did not answer.
        """
        relay = self.start_relay({"waiting": 0.2})
        control = await self.raw_agent(relay, "web")
        client = await self.client(relay, request("web"))
        notify = await control.hears(Notify)
        answer = await client.end_of_all()
        self.assertTrue(answer.startswith(b"HTTP/1.1 504 "), answer)
        self.assertIn(b"did not answer", answer)
        self.assertEqual((await control.hears(Cancel)).session, notify.session)
        self.assertEqual(relay.visits.room.waiting, 0)

    async def test_no_data_channel(self) -> None:
        """
        An agent that accepted and opened no data channel is told apart.
        """
        relay = self.start_relay({"waiting": 0.2})
        control = await self.raw_agent(relay, "web")
        client, _ = await self.session(relay, control)
        self.assertIn(b"opened no data channel", await client.end_of_all())

    async def test_refused(self) -> None:
        """
        The agent's reason for a refusal is what the client reads.
        """
        relay = self.start_relay()
        control = await self.raw_agent(relay, "web")
        client = await self.client(relay, request("web"))
        notify = await control.hears(Notify)
        control.say(
            Accept(session=notify.session),
            Refuse(session=notify.session, code="refused-by-target", reason="closed today"),
        )
        answer = await client.end_of_all()
        self.assertTrue(answer.startswith(b"HTTP/1.1 502 "), answer)
        self.assertIn(b"closed today", answer)
        self.assertEqual(relay.visits.refusals, {"refused-by-target": 1})

    async def test_refused_with_line_ends(self) -> None:
        """
        A reason cannot add anything to the answer's head.
        """
        relay = self.start_relay()
        control = await self.raw_agent(relay, "web")
        client = await self.client(relay, request("web"))
        notify = await control.hears(Notify)
        control.say(
            Refuse(session=notify.session, code="busy", reason="x\r\nX-Evil: 1\r\n\r\n<script>")
        )
        self.assertNotIn(b"\nX-Evil", await client.end_of_all())

    async def test_agent_goes_away(self) -> None:
        """
        Who waits for an agent that is lost is told.
        """
        relay = self.start_relay()
        control = await self.raw_agent(relay, "web")
        client, _ = await self.session(relay, control)
        control.abort()
        self.assertIn(b"503", await client.end_of_all())

    async def test_told_although_it_talks(self) -> None:
        """
        A client that goes on sending gets its answer whole, and no reset
        that would overtake it.
        """
        relay = self.start_relay()
        client = await self.client(relay, request("nowhere") + b"x" * 3_000_000)
        answer = await client.end_of_all()
        self.assertTrue(answer.endswith(b"nowhere\n"), answer)
        self.assertFalse(client.was_reset)

    async def test_leaves_when_told(self) -> None:
        """
        A client that never closes is left after the linger limits.
        """
        relay = self.start_relay({"linger_idle": 0.1, "linger": 0.3})
        client = await self.client(relay, request("nowhere"))
        await client.hears(b"404")
        await client.is_gone(2)


class SessionTests(RunningCase):
    """
    S13 to S20, where they do not go well.
    """

    async def test_client_resets(self) -> None:
        """
        A client's reset is one on the data channel.
        """
        relay = self.start_relay()
        control = await self.raw_agent(relay, "web")
        client, notify = await self.session(relay, control)
        data = await self.raw_data(relay, notify.ticket)
        await data.hears(b"GET")
        client.reset()
        await data.hears_kind(Kind.RESET)
        self.assertNotIn(Kind.EOF, data.kinds)
        await eventually(lambda: not relay.clients.splices, "the session is over")
        self.assertEqual(relay.visits.room.served, 0)

    async def test_server_resets(self) -> None:
        """
        A reset on the data channel is one for the client.
        """
        relay = self.start_relay()
        control = await self.raw_agent(relay, "web")
        client, notify = await self.session(relay, control)
        data = await self.raw_data(relay, notify.ticket)
        await data.hears(b"GET")
        data.say_raw(bytes((Kind.RESET, 0, 0)))
        await client.is_reset()

    async def test_truncated(self) -> None:
        """
        A data channel that breaks off is never a clean end.
        """
        relay = self.start_relay()
        control = await self.raw_agent(relay, "web")
        client, notify = await self.session(relay, control)
        data = await self.raw_data(relay, notify.ticket)
        data.say(b"half of a")
        await client.hears(b"half of a")
        data.transport.loseConnection()
        await client.is_reset()
        self.assertFalse(client.ended)

    async def test_idle(self) -> None:
        """
        A session in which nothing moves is ended after the limit.
        """
        relay = self.start_relay({"idle": 0.2})
        control = await self.raw_agent(relay, "web")
        client, notify = await self.session(relay, control)
        await self.raw_data(relay, notify.ticket)
        await client.is_reset(2)

    async def test_addresses_in_the_log(self) -> None:
        """
        Who came, to which server, and how it ended stands in the log.
        """
        relay = self.start_relay()
        control = await self.raw_agent(relay, "web")
        logged = self.logged()
        client, notify = await self.session(relay, control)
        data = await self.raw_data(relay, notify.ticket)
        data.end()
        await client.end_of_all()
        client.close()
        await eventually(lambda: relay.clients.finished, "it is over")
        line = next(text for text in logged if "is over" in text)
        self.assertIn(f"{HOST}:", line)
        self.assertIn("with web", line)
        self.assertIn("clean", line)
