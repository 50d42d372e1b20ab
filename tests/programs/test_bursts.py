"""
Many clients of one address at once, as they come from behind a proxy, an
office's NAT or a load generator: relay and agent as they are started, with the
limits that they have by default.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from twisted.internet.defer import ensureDeferred, gatherResults
from twisted.trial.unittest import TestCase

from relaytunnel.channel.descriptors import descriptor_limit
from tests.processes import (
    Program,
    empty_directory,
    free_port,
    missing_programs,
    own_port,
    start_agent,
    start_relay,
)
from tests.programs.inside import publish, start_nginx

HERE = Path(__file__).parent

MANY = 1000
WITHIN = 10.0
"""Seconds in which they all have to be served."""
ANSWER = 0.15
"""Seconds that the server takes for each."""
SOCKETS = 300
HOSTILE = "127.0.0.2"
OK, SWITCHING = "HTTP/1.1 200 OK", "HTTP/1.1 101 Switching Protocols"

AGENT = """
[[server]]
id = "{data}"
target = "127.0.0.1:{target}"
data = "{data}"
reach = ["name", "port:{port}"]
"""

NGINX = """
server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
        proxy_pass http://127.0.0.1:{relay};
        proxy_http_version 1.1;
        proxy_set_header Host talk.localhost;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection upgrade;
    }}
}}
"""


def too_few(needed: int = 4096) -> str | None:
    """
    @return: why there are not enough descriptors; for a thousand clients, if it
        is not said for how many.
    """
    limit = descriptor_limit()
    return f"{limit} descriptors are too few" if limit is not None and limit < needed else None


class BurstCase(TestCase):
    """
    A relay and an agent with default limits, and a server that takes its time.
    """

    skip = missing_programs() or too_few()
    timeout = 110

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        target = free_port()
        server = Program.start(
            self, sys.executable, HERE / "slow_server.py", str(target), str(ANSWER)
        )
        await server.wait_for("serving")
        self.relay = await start_relay(self, empty_directory(self) / "relay", host="localhost")
        self.ports = {data: own_port() for data in ("tls", "plain")}
        tables = [
            AGENT.format(data=data, target=target, port=port) for data, port in self.ports.items()
        ]
        self.agent = await publish(self, self.relay, "".join(tables))

    async def burst(
        self,
        host: str,
        port: int = 0,
        count: int = MANY,
        source: str = "127.0.0.1",
        path: str = "/",
    ) -> Any:
        """
        Have so many clients come at once.

        @param port: where; the port that servers share, unless it is given.
        @return: what came of them.
        """
        where = str(port or self.relay.clients_port)
        program = Program.start(
            self,
            *(sys.executable, HERE / "burst.py", where, host, path, str(count), "30", source),
        )
        return json.loads((await program.finished(60)).out)


class BurstTests(BurstCase):
    """
    A thousand at once.
    """

    async def served(self, host: str, port: int = 0, source: str = "127.0.0.1") -> None:
        """
        Assert that all are, in time.
        """
        found = await self.burst(host, port, source=source)
        self.assertEqual(found["answers"], {OK: MANY})
        self.assertLess(found["last"], WITHIN)

    async def test_by_host(self) -> None:
        """
        A thousand clients of one address that name their server are all served
        within ten seconds, over TLS data channels and over plain ones.
        """
        for data in self.ports:
            await self.served(f"{data}.localhost")

    async def test_own_port(self) -> None:
        """
        So are those of a port of a server's own.
        """
        for port in self.ports.values():
            await self.served("any.example", port)

    async def test_two_sources(self) -> None:
        """
        So are a thousand of each of two addresses, for two servers of an agent.
        """
        await gatherResults(
            [
                ensureDeferred(self.served(f"{data}.localhost", source=f"127.0.0.{number}"))
                for number, data in enumerate(self.ports, 1)
            ]
        )

    test_two_sources.skip = too_few(8192)  # type: ignore[attr-defined]


class WebSocketTests(TestCase):
    """
    Many WebSockets behind one proxy.
    """

    skip = missing_programs("nginx") or too_few()
    timeout = 110

    async def test_all_stay(self) -> None:
        """
        Three hundred WebSockets of one nginx are all granted, and stay, though
        the server takes only a few connections at a time.
        """
        target, front = free_port(), free_port()
        server = Program.start(self, sys.executable, HERE / "websocket_server.py", str(target))
        await server.wait_for("serving")
        relay = await start_relay(self, empty_directory(self) / "relay", host="localhost")
        await start_agent(self, relay.invitation, [f"talk=127.0.0.1:{target}"])
        await start_nginx(self, [front], NGINX.format(port=front, relay=relay.clients_port))
        program = Program.start(
            self,
            *(sys.executable, HERE / "burst.py", str(front), "any.example", "/chat"),
            *(str(SOCKETS), "30", "127.0.0.1"),
        )
        found = json.loads((await program.finished(60)).out)
        self.assertEqual((found["answers"], found["open"]), ({SWITCHING: SOCKETS}, SOCKETS))


class HostileTests(BurstCase):
    """
    One source that means no good, and another.
    """

    async def hostile(self, what: str) -> Program:
        """
        @param what: C{stay} or C{reset}.
        @return: somebody who does that all the time, once it has begun.
        """
        port = str(self.relay.clients_port)
        program = Program.start(
            self, *(sys.executable, HERE / "hostile.py", port, "tls.localhost", what, HOSTILE)
        )
        await program.wait_for("begun", 40)
        return program

    async def still_served(self) -> None:
        """
        Assert that every client of the other source is, again and again.
        """
        for _ in range(5):
            found = await self.burst("tls.localhost", count=20)
            self.assertEqual(found["answers"], {OK: 20})
            self.assertLess(found["last"], WITHIN)

    async def test_stays(self) -> None:
        """
        One that connects as often as it can, and stays, does not keep others out.
        """
        hostile = await self.hostile("stay")
        await self.still_served()
        self.assertTrue(hostile.running)

    async def test_resets(self) -> None:
        """
        Nor does one that connects, asks and resets in a loop.
        """
        hostile = await self.hostile("reset")
        await self.still_served()
        self.assertTrue(hostile.running)
