"""
An agent that nobody visits costs one connection, however much it publishes.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.processes import Relay, empty_directory, start_agent, start_relay, until

SERVERS = 1000

_LISTENING = "0A"
_ESTABLISHED = "01"


def sockets(pid: int) -> dict[str, tuple[str, int, int]]:
    """
    Find the TCP sockets of a process.

    @return: state, local and remote port of each, by its inode.
    """
    own = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            link = os.readlink(f"/proc/{pid}/fd/{name}")
            if link.startswith("socket:["):
                own.add(link[len("socket:[") : -1])
    found = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[9] in own:
                ports = [int(fields[i].rpartition(":")[2], 16) for i in (1, 2)]
                found[fields[9]] = (fields[3], ports[0], ports[1])
    return found


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


class IdleTests(TestCase):
    """
    A thousand servers of one agent, between real processes.
    """

    timeout = 120

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        self.directory = empty_directory(self)
        self.relay: Relay = await start_relay(self, self.directory / "relay")

    def config(self, servers: int) -> Path:
        path = self.directory / f"agent-{servers}.toml"
        path.write_text(
            "".join(
                f'[[server]]\nid = "s{number:04d}"\ntarget = "127.0.0.1:1"\n'
                for number in range(servers)
            )
        )
        return path

    async def one_connection(self, pid: int) -> None:
        await until(lambda: len(sockets(pid)) == 1, 10, "one connection")

    async def test_one_connection(self) -> None:
        """
        There is exactly one connection between agent and relay, and the relay
        listens on no port more than without an agent.
        """
        relay = self.relay.program.pid
        listening = {port for state, port, _ in sockets(relay).values() if state == _LISTENING}
        before = descriptors(relay)
        agent = await start_agent(
            self, self.relay.invitation, [], "--config", str(self.config(SERVERS))
        )
        await agent.program.wait_for(f"s{SERVERS - 1:04d} is reached at", 60)
        said = agent.program.output
        self.assertEqual(said.count(" is reached at "), SERVERS)
        inside = list(sockets(agent.program.pid).values())
        self.assertEqual(len(inside), 1, inside)
        state, own, remote = inside[0]
        self.assertEqual((state, remote), (_ESTABLISHED, self.relay.agents_port))
        outside = list(sockets(relay).values())
        self.assertEqual(
            [each for each in outside if each[0] != _LISTENING],
            [(_ESTABLISHED, self.relay.agents_port, own)],
        )
        self.assertEqual({port for state, port, _ in outside if state == _LISTENING}, listening)
        # Beside the connection at most what its database opens by itself.
        self.assertLessEqual(descriptors(relay) - before, 6)

    async def test_the_same_as_with_one(self) -> None:
        """
        An agent has as many descriptors with a thousand servers as with one.
        """
        counts = []
        for servers in (1, SERVERS):
            agent = await start_agent(
                self, self.relay.invitation, [], "--config", str(self.config(servers))
            )
            await agent.program.wait_for(f"s{servers - 1:04d} is reached at", 60)
            await self.one_connection(agent.program.pid)
            counts.append(descriptors(agent.program.pid))
            await agent.program.stop()
        self.assertEqual(counts[0], counts[1])
