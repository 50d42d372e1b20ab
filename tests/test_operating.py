"""
Operating a relay and an agent that run: the commands, as real processes.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from twisted.trial.unittest import TestCase

from relaytunnel.relay.state import StateDirectory
from tests.processes import (
    Finished,
    Program,
    empty_directory,
    free_port,
    own_port,
    run,
    start_agent,
    start_relay,
)
from tests.programs.http_server import __file__ as http_server

COMMAND = (sys.executable, "-m", "relaytunnel.cli")


class OperatingTests(TestCase):
    """
    A relay with one agent that may be asked to publish more.
    """

    timeout = 120

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        # The path of a UNIX socket has 107 bytes at the most.
        sockets = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, sockets)
        self.socket = str(sockets / "agent")
        self.state = empty_directory(self) / "state"
        self.relay = await start_relay(self, self.state, host="localhost")

    async def command(self, *arguments: str) -> Finished:
        return await run(self, *COMMAND, *arguments)

    async def says(self, *arguments: str) -> str:
        """
        @return: what a command that succeeds says.
        """
        done = await self.command(*arguments)
        self.assertEqual(done.code, 0, done.err)
        return done.out

    async def online(self) -> dict[str, bool]:
        rows = json.loads(await self.says("agents", "--state", str(self.state), "--json"))
        return {row["id"]: row["online"] for row in rows}

    async def test_agents(self) -> None:
        """
        Who is online is known while the relay runs, and who was seen after.
        """
        await self.says("invite", "--state", str(self.state), "office")
        await start_agent(self, self.relay.invitation, ["web=127.0.0.1:1"])
        self.assertEqual(await self.online(), {"first": True, "office": False})
        await self.relay.program.stop()
        rows = json.loads(await self.says("agents", "--state", str(self.state), "--json"))
        self.assertEqual([row["online"] for row in rows], [None, None])
        self.assertLess(abs(rows[0]["last_seen"] - time.time()), 60)
        self.assertIsNone(rows[1]["last_seen"])

    async def test_revoke(self) -> None:
        """
        The control channel of a revoked agent closes within a second.
        """
        agent = await start_agent(self, self.relay.invitation, ["web=127.0.0.1:1"])
        await self.says("revoke", "--state", str(self.state), "first")
        await agent.program.wait_for("revoked: the account was revoked", 1)
        self.assertEqual(await self.online(), {})

    async def test_rights(self) -> None:
        """
        A right is given and taken while the agent runs: what it claims in vain
        is listed with the command that allows it, and that counts within a
        second, without another secret.
        """
        await self.says("invite", "--state", str(self.state), "office", "--publish", "web")
        state = StateDirectory(str(self.state))
        facts, text = (
            state.read_facts(),
            await self.says("rotate", "--state", state.path, "office"),
        )
        assert facts is not None
        port = free_port()
        await self.server(port)
        toml = self.state / "agent.toml"
        toml.write_text(
            f'[agent]\n[[server]]\nid = "web"\ntarget = "127.0.0.1:{port}"\n'
            'reach = ["host:www.example.test"]\n'
        )
        agent = await start_agent(self, text.strip(), [], "--config", str(toml))
        await agent.program.wait_for("web is not published: not-allowed", 10)
        listed = await self.says("agents", "--state", state.path)
        command = "relaytunnel grant office --host www.example.test"
        self.assertIn(command, listed)
        for change, done in (
            ("grant", "web is reached at"),
            ("deny", "web is not published: .*\n(.*\n)*.*web is not published"),
        ):
            await self.says(change, "--state", state.path, *command.split()[2:])
            await agent.program.wait_for(done, 1.5)
        self.assertIn(command, await self.says("agents", "--state", state.path))

    async def test_publish(self) -> None:
        """
        A server asks a running agent to publish it, is reached, and withdrawn.
        """
        port = free_port()
        await self.server(port)
        agent = await start_agent(
            self, self.relay.invitation, ["web=127.0.0.1:1"], "--local", self.socket
        )
        public = own_port()
        said = await self.says(
            "publish", "--agent", self.socket, f"more=127.0.0.1:{port},port={public}"
        )
        self.assertEqual(
            said.splitlines(),
            [
                f"http://more.localhost:{self.relay.clients_port}/",
                f"tcp://localhost:{public}",
            ],
        )
        got = await run(self, "curl", "-sS", f"http://127.0.0.1:{public}/visit/hello")
        self.assertIn("hello is request 1", got.out)
        await self.says("withdraw", "--agent", self.socket, "more")
        refused = await run(self, "curl", "-sS", f"http://127.0.0.1:{public}/visit/hello")
        self.assertEqual(refused.code, 7, refused)
        self.assertTrue(agent.program.running)

    async def server(self, port: int) -> None:
        """
        Start a web server, and wait until it listens.
        """
        program = Program.start(self, sys.executable, http_server, str(port), os.devnull)
        await program.wait_for("serving")

    async def test_publish_twice(self) -> None:
        """
        A server that the relay turns down is told so, with exit code 1.
        """
        agent = await start_agent(
            self, self.relay.invitation, ["web=127.0.0.1:1"], "--local", self.socket
        )
        done = await self.command("publish", "--agent", self.socket, "more=127.0.0.1:1,port=1")
        self.assertEqual(done.code, 1)
        self.assertIn("not-allowed: servers at this relay may have the ports", done.err)
        self.assertTrue(agent.program.running)

    async def test_one_directory(self) -> None:
        """
        A relay and an agent run from one directory, as in the first run.
        """
        directory = empty_directory(self)
        twistd = os.path.join(os.path.dirname(sys.executable), "twistd")
        twistd = twistd if os.path.exists(twistd) else str(shutil.which("twistd"))
        script = (
            f"cd {directory} && {{ {twistd} -n relay --state s --agents"
            f" tcp:{free_port()}:interface=127.0.0.1 --clients"
            f" tcp:{free_port()}:interface=127.0.0.1 --admin off > relay.log & }}"
            " && while ! test -s s/invitation; do sleep 0.1; done"
            f" && {{ {twistd} -n agent --join-file s/invitation"
            " --publish web=127.0.0.1:1 > agent.log & }"
            " && while ! grep -q 'web is reached' agent.log; do sleep 0.1; done"
            " && ls *.pid; for pid in *.pid; do kill $(cat $pid); done; wait"
        )
        done = await run(self, "timeout", "60", "sh", "-c", script)
        self.assertEqual(done.out.split(), ["twistd-agent.pid", "twistd-relay.pid"], done.err)
