"""
Client channels that come by way of a balancer, at a real relay.
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from twisted.internet.task import deferLater

from relaytunnel.config import ClientPort
from relaytunnel.config.access import networks
from relaytunnel.relay.service import RelayService
from relaytunnel.wire.messages import Cancel, Notify, Register
from relaytunnel.wire.proxied import proxy_header
from tests.running import ANY_PORT, RawControl, RunningCase, eventually, reactor, request

SOURCE = ("203.0.113.9", 50000)
DESTINATION = ("198.51.100.1", 443)
LINE = proxy_header("v1", SOURCE, DESTINATION)
BLOCK = proxy_header("v2", SOURCE, DESTINATION)
UNKNOWN = proxy_header("v1", None, None)

BALANCERS = networks(["127.0.0.0/8"])
WEB = Register(connection_id="web", wants_address=True, http="raw")


class BalancedCase(RunningCase):
    """
    A relay to which this machine is a balancer.
    """

    def balanced(self, limits: dict[str, Any] | None = None, **given: Any) -> RelayService:
        """
        Start the relay.
        """
        return self.start_relay(limits, proxies=BALANCERS, **given)

    async def notified(
        self, relay: RelayService, control: RawControl, *said: bytes
    ) -> tuple[Notify, bytes]:
        """
        A client says this, piece by piece, and is served.

        @return: what the agent was told, and what the server gets.
        """
        client = await self.client(relay)
        for piece in said:
            client.say(piece)
            await deferLater(reactor, 0.002)
        notify = await control.hears(Notify)
        data = await self.raw_data(relay, notify.ticket)
        await data.hears(b"\r\n\r\n")
        return notify, data.received


class SourceTests(BalancedCase):
    """
    Clients are counted by the source that the header says.
    """

    def header(self, *host: str) -> bytes:
        return b"".join(proxy_header("v2", (each, 50000), DESTINATION) for each in host)

    async def test_sessions_of_a_server(self) -> None:
        """
        The sessions of a server that one client may have are those of its
        IPv6 network, at the relay.
        """
        relay = self.balanced()
        control = await self.raw_agent(relay, Register(connection_id="web", sessions_per_client=1))
        await self.notified(relay, control, self.header("2001:db8::1"), request("web"))
        client = await self.client(relay, self.header("2001:db8::2") + request("web"))
        self.assertIn(b"one client has 1 sessions", await client.end_of_all())
        await self.notified(relay, control, self.header("2001:db8:0:1::1"), request("web"))

    async def test_sessions_at_the_agent(self) -> None:
        """
        And at the agent, which does not rely on the relay for that.
        """
        relay = self.balanced()
        server = self.server("web", self.target().address, sessions_per_client=1)
        await self.start_agent(relay, server)
        relay.registry.servers["web"].sessions_per_client = 0
        first = await self.client(relay, self.header("2001:db8::1") + request("web"))
        await eventually(lambda: relay.clients.splices, "it is served")
        client = await self.client(relay, self.header("2001:db8::2") + request("web"))
        self.assertIn(b"one client has 1 sessions", await client.end_of_all())
        self.assertIsNone(first.lost)

    async def test_sessions_of_a_client(self) -> None:
        """
        So are the sessions that one client may have at the relay, and the
        network may be a larger one.
        """
        relay = self.balanced({"sessions_per_client": 1, "ipv6_prefix": 48})
        control = await self.raw_agent(relay, WEB)
        await self.notified(relay, control, self.header("2001:db8::1"), request("web"))
        client = await self.client(relay, self.header("2001:db8:0:1::1") + request("web"))
        self.assertTrue((await client.end_of_all()).startswith(b"HTTP/1.1 503 "))
        await self.notified(relay, control, self.header("2001:db8:1::1"), request("web"))

    async def test_own_connections(self) -> None:
        """
        Those that a balancer makes on its own behalf, or that it says nothing
        of, do not count: its address is that of many.
        """
        relay = self.balanced({"sessions_per_client": 1})
        control = await self.raw_agent(relay, WEB)
        for _ in range(3):
            await self.notified(relay, control, UNKNOWN, request("web"))

    async def test_arriving(self) -> None:
        """
        So are the clients that have named no server, also when the network
        changes meanwhile.
        """
        relay = self.balanced({"arriving_per_client": 2})
        arriving = [await self.client(relay, self.header(f"2001:db8::{n}")) for n in (1, 2)]
        await eventually(lambda: relay.clients.arriving.of("2001:db8::/64") == 2, "both are there")
        third = await self.client(relay, self.header("2001:db8::3"))
        await third.is_reset()
        limits = replace(relay.config.limits, ipv6_prefix=128)
        relay.reload(replace(relay.config, limits=limits))
        for client in arriving:
            client.reset()
        await eventually(lambda: not relay.clients.arriving.taken, "none is there")


class HeaderTests(BalancedCase):
    """
    The header tells whose channel it is, and is not passed on.
    """

    async def test_each_version(self) -> None:
        """
        The client's address, and where it connected to, are those that the
        header says, in either version.
        """
        relay = self.balanced()
        control = await self.raw_agent(relay, WEB)
        for header in (LINE, BLOCK):
            notify, received = await self.notified(relay, control, header, request("web"))
            self.assertEqual(notify.client, "203.0.113.9:50000")
            self.assertEqual(notify.came_to, "198.51.100.1:443")
            self.assertEqual(received, request("web"))

    async def test_any_split(self) -> None:
        """
        Wherever the bytes are cut, the header ends where it ends.
        """
        relay = self.balanced()
        control = await self.raw_agent(relay, WEB)
        for header in (LINE, BLOCK):
            said = header + request("web")
            for cut in (1, 5, len(header) - 1, len(header) + 1, len(header) + 20):
                notify, received = await self.notified(relay, control, said[:cut], said[cut:])
                self.assertEqual(notify.client, "203.0.113.9:50000")
                self.assertEqual(received, request("web"))

    async def test_all_at_once(self) -> None:
        """
        Header and request may come in one piece: the client is served once,
        and the time that it had to name its server is over.
        """
        relay = self.balanced({"arrival": 0.4, "silence": 0.2})
        control = await self.raw_agent(relay, WEB)
        client = await self.client(relay, LINE + request("web"))
        notify = await control.hears(Notify)
        client.say(b"more")
        data = await self.raw_data(relay, notify.ticket)
        await data.hears(b"more")
        await deferLater(reactor, 0.5)
        self.assertEqual(data.received, request("web") + b"more")
        self.assertEqual((client.received, client.lost), (b"", None))
        self.assertEqual(control.messages[1:], [])

    async def test_all_at_once_while_waiting(self) -> None:
        """
        A client that came in one piece goes on talking while it waits for its
        server, which is sought once.
        """
        relay = self.balanced({"arrival": 0.4})
        control = await self.raw_agent(relay, WEB)
        client = await self.client(relay, BLOCK + request("web"))
        notify = await control.hears(Notify)
        client.say(b"more")
        await deferLater(reactor, 0.5)
        self.assertEqual(len(relay.visits.sessions), 1)
        data = await self.raw_data(relay, notify.ticket)
        await data.hears(request("web") + b"more")

    async def test_refused_at_once(self) -> None:
        """
        A request in the header's own piece that cannot be served is answered.
        """
        relay = self.balanced()
        client = await self.client(relay, LINE + request("nowhere"))
        self.assertTrue((await client.end_of_all()).startswith(b"HTTP/1.1 404 "))

    async def test_address_is_looked_at(self) -> None:
        """
        Whether a client may come in is decided by the address in the header.
        """
        relay = self.balanced()
        control = await self.raw_agent(
            relay,
            Register(connection_id="web", allow=("203.0.113.0/24",)),
            Register(connection_id="shop", allow=("127.0.0.0/8",)),
        )
        client = await self.client(relay, LINE + request("shop"))
        self.assertTrue((await client.end_of_all()).startswith(b"HTTP/1.1 403 "))
        notify, _ = await self.notified(relay, control, LINE, request("web"))
        self.assertEqual(notify.connection_id, "web")

    async def test_own_connection(self) -> None:
        """
        A header without addresses leaves the connection to the balancer itself.
        """
        relay = self.balanced()
        control = await self.raw_agent(relay, WEB)
        client = await self.client(relay, UNKNOWN + request("web"))
        notify = await control.hears(Notify)
        self.assertEqual(notify.client, f"127.0.0.1:{client.port}")
        self.assertEqual(notify.came_to, f"127.0.0.1:{relay.facts.clients[0]}")

    async def test_own_port(self) -> None:
        """
        A server's own port expects a header as well.
        """
        relay = self.balanced()
        port = relay.config.ports.first
        control = await self.raw_agent(
            relay, Register(connection_id="ssh", reach=(f"port:{port}",), wants_address=True)
        )
        client = await self.dial(port)
        client.say(LINE + b"SSH-2.0-client\r\n")
        notify = await control.hears(Notify)
        self.assertEqual(notify.client, "203.0.113.9:50000")
        data = await self.raw_data(relay, notify.ticket)
        await data.hears(b"client\r\n")
        self.assertEqual(data.received, b"SSH-2.0-client\r\n")

    async def test_silent_behind_the_header(self) -> None:
        """
        Who says nothing behind the header is asked, or has the default.
        """
        relay = self.balanced({"silence": 0.05}, clients=(ANY_PORT,))
        client = await self.client(relay, LINE)
        await client.hears(b"which server? ")
        other = self.balanced(
            {"silence": 0.05}, clients=(ClientPort(endpoint=ANY_PORT, default="web"),)
        )
        control = await self.raw_agent(other, WEB)
        await self.client(other, LINE)
        self.assertEqual((await control.hears(Notify)).client, "203.0.113.9:50000")

    async def test_leaves(self) -> None:
        """
        A client that resets behind its header is called off.
        """
        relay = self.balanced()
        control = await self.raw_agent(relay, WEB)
        client = await self.client(relay, LINE + request("web"))
        notify = await control.hears(Notify)
        client.reset()
        self.assertEqual((await control.hears(Cancel)).session, notify.session)
        await eventually(lambda: not relay.clients.present, "nobody is present")


class NoHeaderTests(BalancedCase):
    """
    What a balancer's connection that has no proper header comes to: its end,
    without a word, as nobody knows whose it is.
    """

    async def dropped(self, relay: RelayService, said: bytes, why: str) -> None:
        """
        Assert that a connection is dropped, and what is logged about it.
        """
        logged = self.logged()
        client = await self.client(relay, said)
        port = client.port
        await client.is_reset(2)
        self.assertEqual(client.received, b"")
        (line,) = [text for text in logged if "is dropped" in text]
        self.assertIn(f"127.0.0.1:{port} ", line)
        self.assertIn(why, line)
        self.assertEqual((relay.clients.balanced, relay.clients.present), (set(), set()))

    async def test_none(self) -> None:
        """
        From a balancer a header is a must.
        """
        await self.dropped(self.balanced(), request("web"), "PROXY header")

    async def test_malformed(self) -> None:
        """
        One that cannot be understood is none.
        """
        relay = self.balanced()
        await self.dropped(relay, b"PROXY TCP4 1.2.3.4 nonsense\r\n", "PROXY line")
        await self.dropped(relay, BLOCK[:12] + b"\x31" + BLOCK[13:], "unknown version")

    async def test_too_late(self) -> None:
        """
        One that does not come in time is not waited for.
        """
        relay = self.balanced({"balancer": 0.1})
        await self.dropped(relay, b"", "within 0.1 s")
        await self.dropped(relay, LINE[:20], "within 0.1 s")

    async def test_time_for_it_is_over(self) -> None:
        """
        Once the header is there, its limit is of no meaning any more.
        """
        relay = self.balanced({"balancer": 0.4})
        control = await self.raw_agent(relay, WEB)
        client = await self.client(relay, LINE)
        await eventually(lambda: relay.clients.present, "the header is there")
        await deferLater(reactor, 0.5)
        client.say(request("web"))
        await control.hears(Notify)

    async def test_ends(self) -> None:
        """
        A connection that ends before its header does is dropped.
        """
        relay = self.balanced()
        client = await self.client(relay, LINE[:20])
        client.end()
        await client.is_reset(2)
        self.assertEqual(relay.clients.balanced, set())

    async def test_resets(self) -> None:
        """
        One that resets is forgotten.
        """
        relay = self.balanced()
        client = await self.client(relay, LINE[:20])
        await eventually(lambda: relay.clients.balanced, "it has come")
        client.reset()
        await eventually(lambda: not relay.clients.balanced, "it is forgotten")

    async def test_relay_stops(self) -> None:
        """
        A relay that stops waits for no header.
        """
        relay = self.balanced()
        client = await self.client(relay, LINE[:20])
        await eventually(lambda: relay.clients.balanced, "it has come")
        await relay.stopService()
        await client.is_reset(2)
        self.assertEqual(relay.clients.balanced, set())

    async def test_not_from_others(self) -> None:
        """
        From who is no balancer a header is nothing that is looked for: nobody
        chooses an address that way.
        """
        relay = self.start_relay(proxies=networks(["192.0.2.0/24"]))
        control = await self.raw_agent(relay, WEB)
        for header in (LINE, BLOCK):
            client = await self.client(relay, header + request("web"))
            self.assertRegex(await client.end_of_all(), b"(?m)^HTTP/1.1 400|relaytunnel: ")
        self.assertEqual(control.messages[1:], [])
        client = await self.client(relay, request("web"))
        self.assertEqual((await control.hears(Notify)).client, f"127.0.0.1:{client.port}")
