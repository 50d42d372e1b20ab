"""
A relay, in a process of its own, that runs out of descriptors.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import socket
import urllib.request
from typing import Any

from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from tests.processes import Agent, Relay, empty_directory, start_agent, start_relay
from tests.running import HOST, Peer, RunningCase, echo, reactor, request

STOPS = "no connections are accepted for a while"
GOES_ON = "connections are accepted again"


class ExhaustionTests(RunningCase):
    """
    A relay that serves one client when many others come and stay.
    """

    timeout = 90

    relay: Relay
    agent: Agent

    async def start(self) -> None:
        """
        Start the relay.
        """
        self.idle: list[socket.socket] = []
        self.addCleanup(self.leave)
        state = empty_directory(self) / "state"
        self.relay = await start_relay(self, state, host="localhost")

    async def serve(self) -> Peer:
        """
        @return: a client that is served.
        """
        target = self.target(echo)
        self.agent = await start_agent(
            self, self.relay.invitation, [f"echo={target.address},http=raw"]
        )
        client = await self.visit()
        await self.still_served(client)
        return client

    async def visit(self) -> Peer:
        client = await self.dial(self.relay.clients_port)
        client.say(request("echo"))
        return client

    async def still_served(self, client: Peer) -> None:
        client.received = b""
        client.say(b"Are you there?")
        await client.hears(b"Are you there?")

    def allow(self, descriptors: int) -> None:
        """
        From now on the relay may have so many.
        """
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.prlimit(self.relay.program.pid, resource.RLIMIT_NOFILE, (descriptors, hard))

    def in_use(self) -> int:
        return len(os.listdir(f"/proc/{self.relay.program.pid}/fd"))

    async def come(self, count: int) -> None:
        """
        So many come and say nothing; wait until nobody else is accepted.
        """
        for _ in range(count):
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex((HOST, self.relay.clients_port))
            self.idle.append(sock)
        await self.relay.program.wait_for(STOPS)

    def leave(self) -> None:
        for sock in self.idle:
            sock.close()
        self.idle.clear()

    async def status(self) -> Any:
        """
        Ask the admin interface.
        """
        token = (self.relay.state / "admin-token").read_text().strip()
        asked = urllib.request.Request(
            f"http://{HOST}:{self.relay.admin_port}/api/status",
            headers={"Authorization": f"Bearer {token}"},
        )

        def ask() -> Any:
            with urllib.request.urlopen(asked, timeout=5) as answer:
                return json.load(answer)

        return await deferToThread(ask)

    async def test_mark(self) -> None:
        """
        At nine tenths accepting stops, while sessions go on and the admin
        interface says why; when there is room it goes on by itself.
        """
        await self.start()
        limit = 2 * self.in_use() + 100
        self.allow(limit)
        client = await self.serve()
        await self.come(limit)
        self.assertGreaterEqual(self.in_use(), int(0.9 * limit))
        self.assertLess(self.in_use(), 0.95 * limit)
        await self.still_served(client)
        told = (await self.status())["descriptors"]
        self.assertEqual((told["limit"], told["paused"], told["pauses"]), (limit, True, 1))
        waiting = await self.visit()
        await self.still_served(client)
        self.assertEqual(waiting.received, b"")
        self.leave()
        await waiting.hears(b"GET", 10)
        self.assertFalse((await self.status())["descriptors"]["paused"])
        self.assertEqual(self.relay.program.output.count(STOPS), 1)

    async def test_raised(self) -> None:
        """
        Relay and agent take as many as the hard limit allows.
        """
        before = ("prlimit", "--nofile=300:900")
        state = empty_directory(self) / "state"
        relay = await start_relay(self, state, host="localhost", before=before)
        agent = await start_agent(self, relay.invitation, ["web=127.0.0.1:9"], before=before)
        for program in (relay.program, agent.program):
            limits = resource.prlimit(program.pid, resource.RLIMIT_NOFILE)
            self.assertEqual(limits, (900, 900))

    async def test_none_left(self) -> None:
        """
        So it is where accepting fails, because somebody else has taken the
        descriptors.
        """
        await self.start()
        client = await self.serve()
        # Those that were there at the last count are no secret to the relay;
        # that it may have less now is.
        limit = self.in_use() + 30
        self.allow(limit)
        await self.come(60)
        await self.relay.program.wait_for("Too many open files")
        self.assertGreaterEqual(self.in_use(), limit)
        await self.still_served(client)
        self.allow(4 * limit)
        await self.relay.program.wait_for(GOES_ON)
        await (await self.visit()).hears(b"GET", 10)
        await self.still_served(client)
        self.assertEqual(self.relay.program.output.count("Too many open files"), 1)
        self.assertNotIn("Traceback", self.relay.program.output)


class OneSourceTests(RunningCase):
    """
    A relay with 1,024 descriptors, and one address that opens what it can.
    """

    timeout = 120
    of_agent: tuple[str, ...] = ()

    async def start(self) -> None:
        """
        Start the relay and an agent.
        """
        self.sockets: list[socket.socket] = []
        self.addCleanup(self.leave)
        # A child has the limit that is set here.
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        state = empty_directory(self) / "state"
        prlimit = ("prlimit", "--nofile=1024:1024")
        self.relay = await start_relay(self, state, host="localhost", before=prlimit)
        self.assertEqual(resource.getrlimit(resource.RLIMIT_NOFILE), (soft, hard))
        target = self.target(echo)
        self.agent = await start_agent(
            self, self.relay.invitation, [f"echo={target.address}"], before=self.of_agent
        )

    def leave(self) -> None:
        for sock in self.sockets:
            sock.close()
        self.sockets.clear()

    def open(self, port: int, count: int, said: bytes) -> None:
        for _ in range(count):
            sock = socket.socket()
            sock.bind(("127.0.0.66", 0))
            sock.setblocking(False)
            sock.connect_ex((HOST, port))
            with contextlib.suppress(OSError):
                sock.send(said)
            self.sockets.append(sock)

    async def serves(self, count: int) -> None:
        """
        Others are served, so many at once.
        """
        clients = [await self.dial(self.relay.clients_port, "127.0.0.77") for _ in range(count)]
        for client in clients:
            client.say(request("echo"))
        for client in clients:
            await client.hears(b"GET", 15)
        for client in clients:
            client.reset()

    async def flood(self, port: int, said: bytes = b"") -> None:
        """
        One address has opened, and keeps open, more than there are descriptors.
        """
        for _ in range(8):
            self.open(port, 200, said)
            await deferLater(reactor, 0.2)
        await self.serves(20)
        self.assertNotIn(STOPS, self.relay.program.output)

    async def test_silent(self) -> None:
        """
        Clients that say nothing leave room for the others.
        """
        await self.start()
        await self.flood(self.relay.clients_port)

    async def test_half_written(self) -> None:
        """
        So do those whose request never ends.
        """
        await self.start()
        await self.flood(self.relay.clients_port, b"GET / HTTP/1.1\r\nHost: ec")

    async def test_refused(self) -> None:
        """
        So do those that were refused and do not go.
        """
        await self.start()
        await self.flood(self.relay.clients_port, request("nowhere"))

    async def test_served(self) -> None:
        """
        So do those that are served and stay.
        """
        await self.start()
        await self.flood(self.relay.clients_port, request("echo"))

    async def test_agent(self) -> None:
        """
        An agent with 128 descriptors says that they are few, keeps within them,
        and serves others beside one address that has what it gets.
        """
        self.of_agent = ("prlimit", "--nofile=128:128")
        await self.start()
        self.assertIn("128 descriptors are not enough", self.agent.program.output)
        self.open(self.relay.clients_port, 100, request("echo"))
        await deferLater(reactor, 1)
        await self.serves(5)
        self.assertIn("sessions run at this agent", self.agent.program.output)
        self.assertNotIn("Too many open files", self.agent.program.output)

    async def test_agents_port(self) -> None:
        """
        So does the agents' port: data channels come through.
        """
        await self.start()
        await self.flood(self.relay.agents_port)
