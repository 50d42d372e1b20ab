"""
The PROXY protocol on both sides: nginx is told whose connection it serves, and
HAProxy in front of the relay says whose connection it passes on.
"""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.processes import (
    Finished,
    Program,
    Relay,
    empty_directory,
    free_port,
    missing_programs,
    own_port,
    run,
    start_relay,
)
from tests.programs.inside import listening, own_certificate, publish, start_nginx

NGINX = """
server {{
    listen 127.0.0.1:{plain} proxy_protocol;
    listen 127.0.0.1:{tls} ssl proxy_protocol;
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    return 200 "$proxy_protocol_addr $proxy_protocol_port to $proxy_protocol_server_port\\n";
}}
"""

AGENT = """
[[server]]
id = "one"
target = "tcp:127.0.0.1:{plain}"
proxy = "v1"

[[server]]
id = "two"
target = "tcp:127.0.0.1:{plain}"
reach = ["name", "port:{own}"]
proxy = "v2"

[[server]]
id = "safe"
target = "tcp:127.0.0.1:{tls}"
proxy = "v2"

[[server]]
id = "nine"
target = "tcp:127.0.0.1:{plain}"
allow = ["127.0.0.9/32"]
proxy = "v2"
"""

RELAY = """
[listen]
proxies = ["127.0.0.0/8"]
"""

HAPROXY = """
defaults
    mode tcp
    timeout connect 5s
    timeout client 30s
    timeout server 30s
listen one
    bind 127.0.0.1:{one}
    server relay {relay} send-proxy
listen two
    bind 127.0.0.1:{two}
    server relay {relay} send-proxy-v2
"""

CLIENT, ELSEWHERE = "127.0.0.1", "127.0.0.9"

CONNECTION_RESET = 56


class ProxiedCase(TestCase):
    """
    nginx inside, which takes connections with a header only, and curl.
    """

    skip = missing_programs("curl", "nginx", "haproxy")
    relay: Relay

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        self.directory = empty_directory(self)
        self.plain, self.tls, self.own = free_port(), free_port(), own_port()
        self.certificate, key = own_certificate(self.directory, "safe.localhost")
        await start_nginx(
            self,
            [self.plain, self.tls],
            NGINX.format(plain=self.plain, tls=self.tls, certificate=self.certificate, key=key),
        )
        self.relay = await self.start_relay(self.directory / "relay")
        await publish(self, self.relay, AGENT.format(plain=self.plain, tls=self.tls, own=self.own))

    async def start_relay(self, state: Path) -> Relay:
        """
        Start the relay.
        """
        return await start_relay(self, state)

    async def curl(self, *options: str) -> Finished:
        """
        Run curl, which says from which port it came.
        """
        return await run(
            self,
            *("curl", "--silent", "--show-error", "--max-time", "20"),
            *("--cacert", str(self.certificate), "--write-out", "%{local_port}", *options),
        )

    async def is_told(self, client: str, port: int, *options: str) -> None:
        """
        Fetch the page, which must say the client's address, and to which port
        it came.
        """
        done = await self.curl("--fail", *options)
        self.assertEqual(done.code, 0, done.err)
        said, came_from = done.out.splitlines()
        self.assertEqual(said, f"{client} {came_from} to {port}")


class ServerTests(ProxiedCase):
    """
    A server that wants to know its clients' addresses.
    """

    async def test_versions(self) -> None:
        """
        In either version of the protocol it is told the address and the port of
        the client, and where the client connected to.
        """
        port = self.relay.clients_port
        for name in ("one", "two"):
            await self.is_told(CLIENT, port, f"http://{name}.localhost:{port}/")
        await self.is_told(
            *(ELSEWHERE, port, "--interface", ELSEWHERE, f"http://two.localhost:{port}/")
        )

    async def test_own_port(self) -> None:
        """
        By a port of its own, too.
        """
        await self.is_told(CLIENT, self.own, f"http://127.0.0.1:{self.own}/")

    async def test_other_ways(self) -> None:
        """
        The header comes before TLS, and through a proxy it is not the proxy's
        but the client's.
        """
        port = self.relay.clients_port
        place = ("--connect-to", f"::{self.relay.clients}")
        await self.is_told(CLIENT, port, *place, "https://safe.localhost/")
        tunnel = ("--proxy", f"http://{self.relay.clients}", "--proxytunnel")
        await self.is_told(CLIENT, port, *tunnel, "http://one/")
        socks = ("--socks5-hostname", self.relay.clients)
        await self.is_told(CLIENT, port, *socks, "http://two/")


class BalancedTests(ProxiedCase):
    """
    HAProxy in front of the relay, in a network that it trusts.
    """

    async def start_relay(self, state: Path) -> Relay:
        configuration = self.directory / "relay.toml"
        configuration.write_text(RELAY)
        relay = await start_relay(self, state, "--config", str(configuration))
        # Each passes connections on with a header of its version.
        self.balancers = [free_port(), free_port()]
        one, two = self.balancers
        haproxy = self.directory / "haproxy.cfg"
        haproxy.write_text(HAPROXY.format(one=one, two=two, relay=relay.clients))
        program = Program.start(self, "haproxy", "-db", "-f", haproxy)
        await listening(program, self.balancers)
        return relay

    async def test_client(self) -> None:
        """
        The server is told the address of HAProxy's client, and that it came to
        HAProxy.
        """
        for port in self.balancers:
            for client in (CLIENT, ELSEWHERE):
                await self.is_told(
                    *(client, port, "--interface", client, f"http://two.localhost:{port}/")
                )

    async def test_names(self) -> None:
        """
        Behind HAProxy, clients name their servers in all ways.
        """
        for port in self.balancers:
            balancer = f"127.0.0.1:{port}"
            place = ("--connect-to", f"::{balancer}")
            await self.is_told(CLIENT, port, *place, "https://safe.localhost/")
            tunnel = ("--proxy", f"http://{balancer}", "--proxytunnel")
            await self.is_told(CLIENT, port, *tunnel, "http://one/")
            await self.is_told(CLIENT, port, "--socks5-hostname", balancer, "http://one/")

    async def test_allowed(self) -> None:
        """
        Who may come in is decided by the address of HAProxy's client.
        """
        for port in self.balancers:
            url = f"http://nine.localhost:{port}/"
            await self.is_told(ELSEWHERE, port, "--interface", ELSEWHERE, url)
            done = await self.curl("--include", "--interface", CLIENT, url)
            self.assertTrue(done.out.startswith("HTTP/1.1 403 "), done.out)
            self.assertIn("nine is not open to clients from 127.0.0.1", done.out)

    async def test_without_header(self) -> None:
        """
        Who comes from a network of balancers and is none is dropped, also at
        a port of a server's own.
        """
        for port in (self.relay.clients_port, self.own):
            done = await self.curl(f"http://two.localhost:{port}/")
            self.assertEqual(done.code, CONNECTION_RESET, done.err)
        await self.relay.program.wait_for("a connection of the balancer 127.0.0.1:.* is dropped")
