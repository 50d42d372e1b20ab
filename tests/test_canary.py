"""
Secrets, each of which stands nowhere that others can look.
"""

from __future__ import annotations

import base64
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from twisted.internet.threads import deferToThread

from relaytunnel.accounts.secrets import hash_generated
from relaytunnel.wire.data import Kind
from relaytunnel.wire.invitation import Invitation
from relaytunnel.wire.messages import Denied
from tests.processes import Agent, Program, Relay, empty_directory, run, start_relay
from tests.programs.inside import publish
from tests.running import HOST, Peer, RunningCase, hello_page, request
from tests.test_operating import COMMAND

PASSWORD = "canary that a client sings"
GUESS = "canary that nobody knows"
SERVERS = """
[[server]]
id = "closed"
target = "tcp:{target}"
users = {{ alice = "{hash}" }}
"""


def forms(secret: str | bytes) -> set[str]:
    """
    @return: what a secret may look like to somebody who searches.
    """
    raw = secret.encode() if isinstance(secret, str) else secret
    coded = base64.b64encode(raw).decode()
    return {raw.hex(), repr(raw)[2:-1], coded, base64.urlsafe_b64encode(raw).decode()}


def command_lines() -> str:
    """
    @return: what the list of processes shows to everybody.
    """
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            found.append((directory / "cmdline").read_bytes().decode("utf-8", "replace"))
        except OSError:
            continue  # it has ended meanwhile
    return "\n".join(found)


class CanaryTests(RunningCase):
    """
    A relay and an agent, as processes, to which all kinds of secrets are told.
    """

    timeout = 60

    relay: Relay
    agent: Agent

    async def visit(self, login: str) -> Peer:
        """
        Ask for the page of the server that has users.
        """
        client = await self.dial(self.relay.clients_port)
        told = base64.b64encode(login.encode())
        lines = request("closed")[:-2] + b"Authorization: Basic " + told + b"\r\n\r\n"
        client.say(lines)
        await client.end_of_all()
        client.close()
        return client

    async def test_nowhere(self) -> None:
        """
        Neither the secrets of agents, right or wrong, nor the passwords of
        clients, nor tickets, nor the administrator's token stand in a log, in
        the list of processes or in what the administrator is told.
        """
        state = empty_directory(self) / "state"
        self.relay = await start_relay(self, state, host=HOST)
        office = await run(
            self, *COMMAND, "invite", "--state", str(state), "office", "--publish", "*"
        )
        invitation = Invitation.parse(office.out)
        self.agent = await publish(
            self,
            replace(self.relay, invitation=office.out.strip()),
            SERVERS.format(target=self.target(hello_page).address, hash=hash_generated(PASSWORD)),
        )
        first = Invitation.parse(self.relay.invitation)
        raw: Any = SimpleNamespace(
            facts=SimpleNamespace(
                agents=self.relay.agents_port,
                clients=(self.relay.clients_port,),
                pin=first.pin,
            )
        )

        # Clients with passwords, one of them by the command.
        self.assertIn(b"hello", (await self.visit(f"alice:{PASSWORD}")).received)
        self.assertIn(b"401", (await self.visit(f"alice:{GUESS}")).received)
        (file := empty_directory(self) / "password").write_text(PASSWORD + "\n")
        visiting = Program.start(
            self,
            *(*COMMAND, "connect", "--via", self.relay.clients, "--user", "alice"),
            *("--password-file", str(file), "closed"),
            stdin=Path("/dev/zero"),
        )
        # Agents with secrets, and data channels with tickets.
        control = await self.raw_agent(raw, "web", invitation=first)
        _, notify = await self.session(raw, control)
        await (await self.raw_data(raw, notify.ticket)).hears(b"GET")
        await (await self.raw_data(raw, notify.ticket)).hears_kind(Kind.RESET)
        stranger = await self.raw_control(raw)
        stranger.say(self.hello(invitation, secret=GUESS))
        await stranger.hears(Denied)

        token = (state / "admin-token").read_text().strip()
        status = await run(
            self,
            *("curl", "-sS", "--header", f"@{self.header(token)}"),
            f"http://{HOST}:{self.relay.admin_port}/api/status",
        )
        self.assertIn('"office"', status.out)
        shown = await deferToThread(command_lines)
        self.assertIn(str(visiting.command[-1]), shown)
        self.assertIn("twistd", shown)
        agents = await run(self, *COMMAND, "agents", "--state", str(state), "--json")
        # The first invitation is shown once, at the terminal, to be copied.
        log = self.relay.program.output.replace(self.relay.invitation, "")
        self.assertIn("is denied", log)
        places = {
            "the relay's log": log,
            "the agent's log": self.agent.program.output,
            "the list of processes": shown,
            "the status": status.out,
            "the list of agents": agents.out,
        }
        secrets = (first.secret, invitation.secret, PASSWORD, GUESS, notify.ticket, token)
        for place, text in places.items():
            for secret in secrets:
                for form in forms(secret):
                    self.assertNotIn(form, text, place)

    def header(self, token: str) -> Path:
        """
        @return: a file with what curl is to send along.
        """
        file = empty_directory(self) / "header"
        file.touch(mode=0o600)
        file.write_text(f"Authorization: Bearer {token}{os.linesep}")
        return file
