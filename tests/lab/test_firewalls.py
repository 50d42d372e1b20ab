"""
Real clients reach real servers behind real firewalls.

Each topology first shows that the client cannot reach the server by itself,
and that this is the firewall's doing and not a dead server's; then the same
client reaches it through the relay.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from twisted.trial.unittest import TestCase

from tests.lab.topology import Host, Lab, unavailable
from tests.processes import (
    Agent,
    Program,
    Relay,
    empty_directory,
    random_file,
    run,
    sha256_of,
    start_agent,
    start_relay,
    until,
)

SIZE = 5_000_000
"""How much the client fetches, in bytes."""

PORT = 8080
"""Where the server listens."""

RELAY = "198.51.100.20"
"""The relay's address; it stands on the open internet in every topology."""

CONNECT = """
import socket, sys
socket.create_connection((sys.argv[1], int(sys.argv[2])), 2)
"""


class FirewallTestCase(TestCase):
    """
    A server with something to fetch, and the means to try to fetch it.
    """

    skip = unavailable()

    client: Host
    relay_host: Host
    agent_host: Host
    server_host: Host
    agent_target: str
    """Where the agent finds the server."""

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        self.lab = Lab(self)
        self.build()
        served = empty_directory(self)
        self.digest = random_file(served / "body", SIZE)
        server = Program.start(
            self,
            *(sys.executable, "-m", "http.server", str(PORT)),
            *("--bind", "0.0.0.0", "--directory", served),
            namespace=self.server_host.namespace,
        )
        await server.wait_for("Serving HTTP")

    def build(self) -> None:
        """
        Make the hosts of this topology.
        """
        raise NotImplementedError

    async def publish(
        self, clients_port: int = 8000, extra: Sequence[str] = ()
    ) -> tuple[Relay, Agent]:
        """
        Start the relay, and an agent that publishes the server as C{web}.
        """
        relay = await start_relay(
            self,
            empty_directory(self),
            namespace=self.relay_host.namespace,
            host=RELAY,
            clients_port=clients_port,
        )
        agent = await start_agent(
            self,
            relay.invitation,
            [f"web={self.agent_target}:{PORT}"],
            *extra,
            namespace=self.agent_host.namespace,
        )
        return relay, agent

    async def connects(self, host: Host, address: str, port: int = PORT) -> bool:
        """
        Try to open a TCP connection from a host.
        """
        tried = await run(
            self,
            *(sys.executable, "-c", CONNECT, address, str(port)),
            namespace=host.namespace,
            seconds=20,
        )
        if tried.code != 0:
            self.assertRegex(tried.err, r"(?m)^(TimeoutError|ConnectionRefusedError|OSError):")
        return tried.code == 0

    async def fetches(self, host: Host, *url: str) -> None:
        """
        Let curl fetch the body from a host; it must be exactly what is served.
        """
        body = empty_directory(self) / "fetched"
        fetched = await run(
            self,
            *("curl", "--silent", "--show-error", "--fail", "--connect-timeout", "5"),
            *("--max-time", "30", "--output", str(body), *url),
            namespace=host.namespace,
        )
        self.assertEqual((fetched.code, fetched.err), (0, ""))
        self.assertEqual(body.stat().st_size, SIZE)
        self.assertEqual(sha256_of(body), self.digest)

    async def fetches_directly(self, host: Host, address: str) -> None:
        await self.fetches(host, f"http://{address}:{PORT}/body")

    async def fetches_through(self, relay: Relay) -> None:
        await self.fetches(
            self.client, "--header", "Host: web.localhost", f"http://{relay.clients}/body"
        )


def rules(*accepted: str) -> str:
    """
    A firewall that drops everything but answers, and what matches one of these.
    """
    return f"""
        table inet firewall {{
            chain forward {{
                type filter hook forward priority 0; policy drop;
                ct state established,related accept
                {"".join(f"{match} accept; " for match in accepted)}
            }}
            chain input {{ type filter hook input priority 0; policy drop; }}
        }}
    """


class OneFirewallTests(FirewallTestCase):
    """
    Figure 1 of the patent: agent and server inside, relay and client outside,
    and a firewall that lets nothing in and only the agent's connections to
    the relay out. All addresses are public: only the firewall is in the way.
    """

    agent_target = "203.0.113.3"

    def build(self) -> None:
        outside, inside = self.lab.segment("outside"), self.lab.segment("inside")
        self.firewall = self.lab.host(
            "firewall", {outside: "198.51.100.30/24", inside: "203.0.113.1/24"}
        )
        self.firewall.filter(
            rules(f'iifname "inside" ip saddr 203.0.113.2 ip daddr {RELAY} tcp dport 7000')
        )
        self.firewall.forward()
        self.client = self.lab.host("client", {outside: "198.51.100.10/24"}, "198.51.100.30")
        self.relay_host = self.lab.host("relay", {outside: f"{RELAY}/24"}, "198.51.100.30")
        self.agent_host = self.lab.host("agent", {inside: "203.0.113.2/24"}, "203.0.113.1")
        self.server_host = self.lab.host("server", {inside: "203.0.113.3/24"}, "203.0.113.1")

    async def test_firewall_keeps_client_out(self) -> None:
        """
        The firewall, and nothing else, is what keeps the client from the server.
        """
        self.assertFalse(await self.connects(self.client, "203.0.113.3"))
        self.firewall.filter("")
        await self.fetches_directly(self.client, "203.0.113.3")

    async def test_visit(self) -> None:
        """
        The client that cannot connect to the server gets its answer through the relay.
        """
        relay, _ = await self.publish()
        self.assertFalse(await self.connects(self.client, "203.0.113.3"))
        self.assertFalse(await self.connects(self.relay_host, "203.0.113.3"))
        await self.fetches_directly(self.agent_host, "203.0.113.3")
        await self.fetches_through(relay)

    async def test_idle_agent(self) -> None:
        """
        While nobody visits, the agent holds one connection and listens to nothing.
        """
        await self.publish()
        [connection] = self.agent_host.connections()
        self.assertTrue(connection.endswith(f" {RELAY}:7000"), connection)
        self.assertEqual(self.agent_host.connections("listening"), [])
        self.assertEqual(self.server_host.connections(), [])


class TranslatedTestCase(FirewallTestCase):
    """
    A router with NAT/PAT in place of the firewall: agent and server have
    private addresses, and everything that leaves carries the router's.
    """

    agent_target = "192.168.7.3"

    translation = """
        table ip translation {
            chain leaving {
                type nat hook postrouting priority 100;
                oifname "outside" masquerade
            }
        }
    """

    def build(self) -> None:
        outside, inside = self.lab.segment("outside"), self.lab.segment("inside")
        self.router = self.lab.host(
            "router", {outside: "198.51.100.30/24", inside: "192.168.7.1/24"}
        )
        self.router.filter(rules('iifname "inside"') + self.translation)
        self.router.forward()
        self.client = self.lab.host("client", {outside: "198.51.100.10/24"})
        self.relay_host = self.lab.host("relay", {outside: f"{RELAY}/24"})
        self.agent_host = self.lab.host("agent", {inside: "192.168.7.2/24"}, "192.168.7.1")
        self.server_host = self.lab.host("server", {inside: "192.168.7.3/24"}, "192.168.7.1")


class AddressTranslationTests(TranslatedTestCase):
    """
    Whatever router that is.
    """

    port_forwarding = """
        table ip forwarding {
            chain arriving {
                type nat hook prerouting priority -100;
                iifname "outside" tcp dport 8080 dnat to 192.168.7.3
            }
        }
    """

    async def test_router_keeps_client_out(self) -> None:
        """
        The client reaches the server neither at its private address nor at the
        router's, although it would if the router forwarded a port.
        """
        self.assertFalse(await self.connects(self.client, "192.168.7.3"))
        self.assertFalse(await self.connects(self.client, "198.51.100.30"))
        self.router.filter(
            rules('iifname "inside"', "ct status dnat") + self.translation + self.port_forwarding
        )
        await self.fetches_directly(self.client, "198.51.100.30")

    async def test_visit(self) -> None:
        """
        The client that cannot connect to the server gets its answer through the relay.
        """
        relay, _ = await self.publish()
        self.assertFalse(await self.connects(self.client, "192.168.7.3"))
        self.assertFalse(await self.connects(self.client, "198.51.100.30"))
        await self.fetches_directly(self.agent_host, "192.168.7.3")
        await self.fetches_through(relay)

    async def test_relay_sees_router(self) -> None:
        """
        The agent's connection comes to the relay from the router's address.
        """
        await self.publish()
        [connection] = self.relay_host.connections()
        self.assertRegex(connection, r"\b198\.51\.100\.30(\]?):\d+$")


class FewPortsTests(TranslatedTestCase):
    """
    A router that has two ports for connections to the relay: one is that of
    the control channel, and only one more connection can be.
    """

    translation = """
        table ip translation {
            chain leaving {
                type nat hook postrouting priority 100;
                oifname "outside" ip protocol tcp masquerade to :40000-40001
            }
        }
    """

    async def test_plain_beside_parked(self) -> None:
        """
        A parked channel has the port that another client's channel needs: it
        is given up, and the client is served.
        """
        file = empty_directory(self) / "agent.toml"
        file.write_text(
            f'[[server]]\nid = "raw"\ntarget = "tcp:{self.agent_target}:{PORT}"\n'
            'reach = ["port:20000"]\ndata = "plain"\n'
        )
        relay, agent = await self.publish(extra=("--config", str(file)))
        await agent.program.wait_for("raw is reached at")
        for _ in range(2):
            await self.fetches_through(relay)
        self.assertEqual(len(self.agent_host.connections()), 2)
        began = time.monotonic()
        await self.fetches(self.client, f"http://{RELAY}:20000/body")
        self.assertLess(time.monotonic() - began, 8)

    async def test_client_that_came_alone(self) -> None:
        """
        A client that comes now and then leaves the port to others soon.
        """
        relay, _ = await self.publish()
        await self.fetches_through(relay)
        self.assertFalse(await self.connects(self.server_host, RELAY, relay.agents_port))
        began = time.monotonic()
        await until(lambda: len(self.agent_host.connections()) == 1, 6, "the port is free", 0.2)
        while not await self.connects(self.server_host, RELAY, relay.agents_port):
            self.assertLess(time.monotonic() - began, 16)


class TwoFirewallsTests(FirewallTestCase):
    """
    Two firewalls in a row: agent and server behind the inner one, nothing but
    firewalls in between, and each lets only the agent's connections out.
    """

    agent_target = "192.0.2.3"

    def build(self) -> None:
        outside = self.lab.segment("outside")
        between = self.lab.segment("between")
        inside = self.lab.segment("inside")
        self.outer = self.lab.host(
            "outer", {outside: "198.51.100.30/24", between: "203.0.113.1/24"}
        )
        self.inner = self.lab.host(
            "inner", {between: "203.0.113.2/24", inside: "192.0.2.1/24"}, "203.0.113.1"
        )
        self.outer.route("192.0.2.0/24", "203.0.113.2")
        self.close(self.outer, "between")
        self.close(self.inner, "inside")
        self.outer.forward()
        self.inner.forward()
        self.client = self.lab.host("client", {outside: "198.51.100.10/24"}, "198.51.100.30")
        self.relay_host = self.lab.host("relay", {outside: f"{RELAY}/24"}, "198.51.100.30")
        self.agent_host = self.lab.host("agent", {inside: "192.0.2.2/24"}, "192.0.2.1")
        self.server_host = self.lab.host("server", {inside: "192.0.2.3/24"}, "192.0.2.1")

    def close(self, firewall: Host, side: str) -> None:
        firewall.filter(
            rules(f'iifname "{side}" ip saddr 192.0.2.2 ip daddr {RELAY} tcp dport 7000')
        )

    async def test_each_firewall_keeps_client_out(self) -> None:
        """
        Either firewall alone would keep the client from the server.
        """
        self.assertFalse(await self.connects(self.client, "192.0.2.3"))
        self.outer.filter("")
        self.assertFalse(await self.connects(self.client, "192.0.2.3"))
        self.close(self.outer, "between")
        self.inner.filter("")
        self.assertFalse(await self.connects(self.client, "192.0.2.3"))
        self.outer.filter("")
        await self.fetches_directly(self.client, "192.0.2.3")

    async def test_visit(self) -> None:
        """
        The client that cannot connect to the server gets its answer through the relay.
        """
        relay, _ = await self.publish()
        self.assertFalse(await self.connects(self.client, "192.0.2.3"))
        await self.fetches_directly(self.agent_host, "192.0.2.3")
        await self.fetches_through(relay)


class ClientBehindFirewallTests(FirewallTestCase):
    """
    The client, too, is behind a firewall: one that lets it out to the ports of
    the web and to nothing else. Agent and server are behind theirs.
    """

    agent_target = "203.0.113.3"

    def build(self) -> None:
        outside, inside = self.lab.segment("outside"), self.lab.segment("inside")
        home = self.lab.segment("home")
        self.firewall = self.lab.host(
            "firewall",
            {outside: "198.51.100.30/24", inside: "203.0.113.1/24"},
        )
        self.firewall.filter(
            rules(f'iifname "inside" ip saddr 203.0.113.2 ip daddr {RELAY} tcp dport 7000')
        )
        self.home_firewall = self.lab.host(
            "gateway", {outside: "198.51.100.40/24", home: "192.0.2.1/24"}, "198.51.100.30"
        )
        self.home_firewall.filter(rules('iifname "home" tcp dport { 80, 443 }'))
        self.firewall.forward()
        self.home_firewall.forward()
        self.firewall.route("192.0.2.0/24", "198.51.100.40")
        self.client = self.lab.host("client", {home: "192.0.2.10/24"}, "192.0.2.1")
        self.passer_by = self.lab.host("passerby", {outside: "198.51.100.50/24"}, "198.51.100.30")
        self.relay_host = self.lab.host("relay", {outside: f"{RELAY}/24"}, "198.51.100.30")
        self.relay_host.route("192.0.2.0/24", "198.51.100.40")
        self.agent_host = self.lab.host("agent", {inside: "203.0.113.2/24"}, "203.0.113.1")
        self.server_host = self.lab.host("server", {inside: "203.0.113.3/24"}, "203.0.113.1")

    async def test_each_firewall_keeps_client_out(self) -> None:
        """
        Either firewall alone would keep the client from the server.
        """
        self.assertFalse(await self.connects(self.client, "203.0.113.3"))
        self.firewall.filter("")
        self.assertFalse(await self.connects(self.client, "203.0.113.3"))
        self.home_firewall.filter("")
        await self.fetches_directly(self.client, "203.0.113.3")

    async def test_visit(self) -> None:
        """
        A client that may only go to the ports of the web gets the server's answer
        through the relay, of which it can reach nothing else.
        """
        relay, _ = await self.publish(clients_port=80)
        self.assertFalse(await self.connects(self.client, "203.0.113.3"))
        self.assertFalse(await self.connects(self.client, RELAY, relay.agents_port))
        self.assertTrue(await self.connects(self.passer_by, RELAY, relay.agents_port))
        await self.fetches_directly(self.agent_host, "203.0.113.3")
        await self.fetches_through(relay)


class SameMachineTests(FirewallTestCase):
    """
    The agent runs on the server's own machine, behind the firewall.
    """

    agent_target = "127.0.0.1"

    def build(self) -> None:
        outside, inside = self.lab.segment("outside"), self.lab.segment("inside")
        self.firewall = self.lab.host(
            "firewall", {outside: "198.51.100.30/24", inside: "203.0.113.1/24"}
        )
        self.firewall.filter(
            rules(f'iifname "inside" ip saddr 203.0.113.3 ip daddr {RELAY} tcp dport 7000')
        )
        self.firewall.forward()
        self.client = self.lab.host("client", {outside: "198.51.100.10/24"}, "198.51.100.30")
        self.relay_host = self.lab.host("relay", {outside: f"{RELAY}/24"}, "198.51.100.30")
        self.server_host = self.lab.host("server", {inside: "203.0.113.3/24"}, "203.0.113.1")
        self.agent_host = self.server_host

    async def test_visit(self) -> None:
        """
        The client that cannot connect to the server gets its answer through the relay.
        """
        relay, _ = await self.publish()
        self.assertFalse(await self.connects(self.client, "203.0.113.3"))
        await self.fetches_directly(self.server_host, "127.0.0.1")
        await self.fetches_through(relay)
        self.firewall.filter("")
        await self.fetches_directly(self.client, "203.0.113.3")
