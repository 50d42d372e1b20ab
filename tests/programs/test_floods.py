"""
An agent that floods its control channel, beside another whose clients are
served: relay and agents as they are started.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from twisted.trial.unittest import TestCase

from bench.flooding import KINDS
from tests.processes import (
    Program,
    empty_directory,
    free_port,
    missing_programs,
    run,
    start_agent,
    start_relay,
)

HERE = Path(__file__).parent
ROOT = {"PYTHONPATH": str(HERE.parent.parent)}
CLIENTS, OK = 20, "HTTP/1.1 200 OK"
WITHIN = 4.0
"""Seconds: very many more than it takes, and fewer than a flood of 30 MB would."""
LINES = 100
"""Lines of one kind that the relay writes about one agent in ten seconds."""


class FloodTests(TestCase):
    """
    A relay, an agent whose clients come and go, and one that floods.
    """

    skip = missing_programs()
    timeout = 110

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        target = free_port()
        server = Program.start(self, sys.executable, HERE / "slow_server.py", str(target), "0")
        await server.wait_for("serving")
        self.relay = await start_relay(self, empty_directory(self) / "relay", host="localhost")
        await start_agent(self, self.relay.invitation, [f"web=127.0.0.1:{target}"])
        invited = await run(
            self,
            *(sys.executable, "-m", "relaytunnel", "invite", "--state", self.relay.state),
            *("--publish", "*", "--ports", "20000-20999", "flood"),
            environment=ROOT,
        )
        found = re.search(r"relaytunnel://\S+", invited.out)
        assert found is not None, invited
        self.invitation = found[0].replace("localhost:7000", f"localhost:{self.relay.agents_port}")

    async def floods(self, kind: str) -> Program:
        """
        @return: the agent that does so, once it has begun.
        """
        program = Program.start(
            self,
            *(sys.executable, "-m", "bench.flooding", self.invitation, kind),
            environment=ROOT,
        )
        await program.wait_for("begun")
        return program

    async def test_others(self) -> None:
        """
        Whatever it is that one agent says without end, another's clients are
        served at once, and the log tells in a few lines that it does.
        """
        for kind in KINDS:
            flood = await self.floods(kind)
            for _ in range(2):
                visits = await run(
                    self,
                    *(sys.executable, HERE / "burst.py", str(self.relay.clients_port)),
                    *("web.localhost", "/", str(CLIENTS), "30", "127.0.0.1"),
                )
                found = json.loads(visits.out)
                self.assertEqual(found["answers"], {OK: CLIENTS}, kind)
                self.assertLess(found["last"], WITHIN, kind)
            self.assertTrue(flood.running)
            await flood.stop()
        await self.relay.program.wait_for("flood .* more like it in the last")
        lines = [line for line in self.relay.program.output.splitlines() if "flood" in line]
        # "publishes" and "cannot publish"; "here" and "gone" are some more.
        self.assertLess(len(lines), 2 * 3 * LINES)

    async def test_all_is_taken(self) -> None:
        """
        An agent that has a thousand servers to register is done in a moment.
        """
        program = await self.floods("once")
        match = await program.wait_for(r"^([\d.]+)$")
        self.assertLess(float(match[1]), 10.0)
