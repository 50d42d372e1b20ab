"""
Proxies that send the requests of many clients on one connection to the relay:
nginx with upstream keepalive, HAProxy with C{http-reuse always}, Go's reverse
proxy, and a client that takes the relay for its proxy.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import sys
import threading
from pathlib import Path

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from relaytunnel.accounts.secrets import hash_chosen
from tests.processes import (
    Program,
    Relay,
    empty_directory,
    free_port,
    missing_programs,
    run,
    start_relay,
)
from tests.programs.inside import listening, publish, start_nginx

HERE = Path(__file__).parent

REQUESTS = 1000
"""Of each kind, through each proxy."""
CLIENTS = 8
NAMES = ("one", "two")

AGENT = """
[[server]]
id = "one"
target = "127.0.0.1:{one}"

[[server]]
id = "two"
target = "127.0.0.1:{two}"

[[server]]
id = "locked"
target = "127.0.0.1:{one}"
users = {{ alice = "{hash}" }}

[[server]]
id = "elsewhere"
target = "127.0.0.1:{one}"
allow = ["192.0.2.0/24"]
"""

NGINX = """
upstream relay {{
    server 127.0.0.1:{relay};
    keepalive 4;
}}
server {{
    listen 127.0.0.1:{port};
    location / {{
        proxy_pass http://relay;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_set_header Host $host;
    }}
}}
"""

HAPROXY = """
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
frontend all
    bind 127.0.0.1:{port}
    default_backend relay
backend relay
    http-reuse always
    server relay 127.0.0.1:{relay} maxconn 4
"""


class PooledCase(TestCase):
    """
    Two servers that say their names, and two more behind the first that not
    everybody may have.
    """

    timeout = 180
    relay: Relay

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        self.directory = empty_directory(self)
        ports = {}
        for name in NAMES:
            port = ports[name] = free_port()
            server = Program.start(self, sys.executable, HERE / "named_server.py", str(port), name)
            await listening(server, [port])
        self.relay = await start_relay(self, self.directory / "relay")
        await publish(self, self.relay, AGENT.format(**ports, hash=hash_chosen("open sesame")))

    def ask(
        self, connection: http.client.HTTPConnection, host: str, path: str, body: bytes | None
    ) -> tuple[int, str]:
        """
        Send one request, on a connection that is kept.
        """
        connection.request(
            "GET" if body is None else "POST", path, body, {"Host": f"{host}.localhost"}
        )
        answer = connection.getresponse()
        return answer.status, answer.read().decode()

    async def is_served(self, port: int) -> None:
        """
        Let clients ask for both servers in turn, and see that each is answered
        by the one that it has named.
        """
        wrong: list[object] = []
        asked = [0]

        def client(number: int) -> None:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            for each in range(2 * REQUESTS // CLIENTS):
                host = NAMES[(each + number) % 2]
                body = None if each % 4 < 2 else os.urandom(1 + 997 * each % 20_000)
                path, method = f"/{number}/{each}", "GET" if body is None else "POST"
                digest = hashlib.sha256(body or b"").hexdigest()
                try:
                    got = self.ask(connection, host, path, body)
                except (OSError, http.client.HTTPException) as fault:
                    wrong.append(fault)
                    connection.close()
                    continue
                if got != (200, f"{host} {method} {path} {digest}"):
                    wrong.append(got)
                asked[0] += 1
            connection.close()

        def all_clients() -> None:
            threads = [threading.Thread(target=client, args=(n,)) for n in range(CLIENTS)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        await deferToThread(all_clients)
        self.assertEqual((wrong[:5], asked[0]), ([], 2 * REQUESTS))
        await deferToThread(self.none_gets_past, port)

    def none_gets_past(self, port: int) -> None:
        """
        Who may have one server may not have the next on the same connection.
        """
        for _ in range(8):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            for host, status in (
                *(("one", 200), ("locked", 401), ("two", 200), ("elsewhere", 403)),
                *(("nobody", 404), ("one", 200)),
            ):
                got = self.ask(connection, host, "/", None)
                self.assertEqual(got[0], status, (host, got))
            connection.close()


class NginxTests(PooledCase):
    """
    nginx with upstream keepalive.
    """

    skip = missing_programs("nginx")

    async def test_served(self) -> None:
        """
        Every request is answered by the server that it names, or refused.
        """
        port = free_port()
        await start_nginx(self, [port], NGINX.format(port=port, relay=self.relay.clients_port))
        await self.is_served(port)


class HAProxyTests(PooledCase):
    """
    HAProxy, which sends a request on any connection that is idle.
    """

    skip = missing_programs("haproxy")

    async def test_served(self) -> None:
        """
        Every request is answered by the server that it names, or refused.
        """
        port = free_port()
        configuration = self.directory / "haproxy.cfg"
        configuration.write_text(HAPROXY.format(port=port, relay=self.relay.clients_port))
        await listening(Program.start(self, "haproxy", "-db", "-f", configuration), [port])
        await self.is_served(port)


class GoTests(PooledCase):
    """
    The reverse proxy of Go's standard library.
    """

    skip = missing_programs("go")

    async def test_served(self) -> None:
        """
        Every request is answered by the server that it names, or refused.
        """
        source = self.directory / "main.go"
        shutil.copy(HERE / "reverse_proxy.go", source)
        program = self.directory / "proxy"
        built = await run(
            self,
            *("go", "build", "-o", program, source),
            environment={
                **os.environ,
                "GOCACHE": str(self.directory / "cache"),
                "GO111MODULE": "off",
            },
            seconds=120,
        )
        self.assertEqual(built.code, 0, built.err)
        port = free_port()
        proxy = Program.start(self, program, str(port), str(self.relay.clients_port))
        await listening(proxy, [port])
        await self.is_served(port)


class DirectTests(PooledCase):
    """
    Clients that keep their connection to the relay.
    """

    async def test_served(self) -> None:
        """
        Every request is answered by the server that it names, or refused.
        """
        await self.is_served(self.relay.clients_port)

    async def test_proxy(self) -> None:
        """
        curl with the relay as its proxy keeps one connection for several
        servers, though each was asked to close it.
        """
        done = await run(
            self,
            *("curl", "--silent", "--verbose", "--fail", "--max-time", "20"),
            *("--proxy", f"http://127.0.0.1:{self.relay.clients_port}"),
            *(f"http://{name}/{n}" for n in range(5) for name in NAMES),
        )
        self.assertEqual(done.code, 0, done.err)
        empty = hashlib.sha256(b"").hexdigest()
        self.assertEqual(
            done.out, "".join(f"{name} GET /{n} {empty}" for n in range(5) for name in NAMES)
        )
        self.assertIn("Re-using existing connection", done.err)

    test_proxy.skip = missing_programs("curl")  # type: ignore[attr-defined]
