"""
Who has a name, while everything happens at once: agents that are killed,
frozen, rivals, revoked, given new secrets, as real processes, and clients
that keep coming all the time.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from itertools import count
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred, gatherResults
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from relaytunnel.errors import Code
from tests.processes import Agent, Relay, empty_directory, run, start_agent, start_relay, until
from tests.running import Peer, RunningCase, Target, echo, reactor, request

COMMAND = (sys.executable, "-m", "relaytunnel.cli")
AWAY = f"503 {Code.AGENT_AWAY.value}"
GONE = f"404 {Code.NO_SUCH_SERVER.value}"
CUT = "cut off"


class Clients:
    """
    Some who visit a server again and again, each asking for something of its
    own, which nobody but its server's answer holds.

    @ivar answers: what they were told, and when, newest last: C{served},
        status and code, or L{CUT}.
    """

    def __init__(self, test: TakeoverCase, server: str, owner: str, several: int = 3) -> None:
        self.answers: list[tuple[float, str]] = []
        self.owner = owner
        self._test = test
        self._server = server
        self._going = True
        self._numbers = count()
        self._done = [ensureDeferred(self._visit()) for _ in range(several)]
        test.addCleanup(self.stop)

    async def _visit(self) -> None:
        while self._going:
            began = reactor.seconds()
            path = f"/{self._server}-{next(self._numbers)}"
            client = await self._test.dial(self._test.relay.clients_port)
            client.say(request(self._server, path))
            said = (await client.end_of_all(15)).decode()
            cut = client.was_reset
            client.close()
            self.answers.append((began, self._read(said, path, cut)))
            await deferLater(reactor, 0)

    def _read(self, said: str, path: str, cut: bool) -> str:
        head, _, body = said.partition("\r\n\r\n")
        if head.startswith("HTTP/1.1 200 "):
            # Whoever is answered is answered by its own server, to its own question.
            owner, _, asked = body.partition(" ")
            self._test.assertIn(owner, self.owner.split("|"), said)
            self._test.assertTrue(f"{path}\n".startswith(asked), said)
            return "served" if asked == f"{path}\n" else CUT
        told = re.search(r"^relaytunnel: (\S+): ", body) or re.search(r"^(\S+): ", body)
        if told is None:
            self._test.assertTrue(cut or said == "", said)
            return CUT
        return f"{head.split()[1]} {told[1]}"

    def since(self, when: float) -> Counter[str]:
        """
        @return: how often each answer was given to those who came since then.
        """
        return Counter(answer for began, answer in self.answers if began >= when)

    async def hear(self, answer: str, since: float, seconds: float = 5) -> None:
        """
        Wait until one of them is told this.
        """
        await until(lambda: self.since(since)[answer], seconds, f"a client is told: {answer}")

    def stop(self) -> Deferred[Any]:
        """
        Let the last ones finish.
        """
        self._going = False
        return gatherResults(self._done, consumeErrors=True)


class TakeoverCase(RunningCase):
    """
    A relay to which agents and clients come.
    """

    timeout = 60
    relay: Relay

    async def setUp(self) -> None:  # type: ignore[override]
        super().setUp()
        self.state = empty_directory(self) / "state"
        self.relay = await start_relay(self, self.state, host="localhost")

    def owned(self, owner: str) -> Target:
        """
        @return: a server that says whose it is, and what it was asked for.
        """

        def heard(peer: Peer) -> None:
            if b"\r\n\r\n" in peer.received:
                path = peer.received.split()[1].decode()
                body = f"{owner} {path}\n"
                peer.say(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
                peer.close()

        return self.target(heard)

    async def invite(self, agent: str) -> str:  # type: ignore[override]
        """
        @return: the invitation of one more agent.
        """
        return await self.command("invite", "--state", str(self.state), agent, "--publish", "*")

    async def revoke(self, agent: str) -> None:
        """
        Revoke an agent's account.
        """
        await self.command("revoke", "--state", str(self.state), agent)

    async def command(self, *arguments: str) -> str:
        """
        @return: what a command that succeeds says.
        """
        done = await run(self, *COMMAND, *arguments)
        self.assertEqual(done.code, 0, done.err)
        return done.out.strip()

    async def agent(self, invitation: str, server: str, target: Target) -> Agent:
        """
        Start an agent and wait until its server is published.
        """
        return await start_agent(self, invitation, [f"{server}={target.address}"])

    async def hopeful(self, invitation: str, server: str, target: Target, *options: str) -> Agent:
        """
        Start an agent that may not get what it wants.
        """
        return await start_agent(
            self, invitation, [], "--publish", f"{server}={target.address}", *options
        )


class KilledTests(TakeoverCase):
    """
    An agent that dies, or hangs, and is started again.
    """

    async def test_killed(self) -> None:
        """
        An agent that is killed and started again has its server back at once:
        clients are told that it is away, and served again; those of another
        agent notice nothing.
        """
        web, shop = self.owned("web"), self.owned("shop")
        agent = await self.agent(self.relay.invitation, "web", web)
        await self.agent(await self.invite("second"), "shop", shop)
        clients, others = Clients(self, "web", "web"), Clients(self, "shop", "shop", 1)
        await clients.hear("served", 0)
        for _ in range(2):
            await agent.program.stop(by=signal.SIGKILL)
            killed = reactor.seconds()
            await clients.hear(AWAY, killed)
            agent = await self.agent(self.relay.invitation, "web", web)
            back = reactor.seconds()
            await clients.hear("served", back, 5)
            # Only who was served by it when it died was cut off.
            self.assertEqual(set(clients.since(killed)), {"served", AWAY})
        await clients.stop()
        await others.stop()
        self.assertEqual(set(clients.since(back)), {"served"})
        self.assertEqual(set(others.since(0)), {"served"})

    async def test_frozen(self) -> None:
        """
        One that hangs loses its server to the one that is started in its place,
        at once, and does not fight for it when it goes on; clients that wait
        for it are told.
        """
        web = self.owned("web")
        ghost = await self.agent(self.relay.invitation, "web", web)
        ghost.program.transport.signalProcess(signal.SIGSTOP)
        # Now that it is frozen, so that none of them has a session with it.
        clients = Clients(self, "web", "web")
        agent = await self.agent(self.relay.invitation, "web", web)
        back = reactor.seconds()
        await clients.hear("served", back, 5)
        self.assertEqual([answer for _, answer in clients.answers[:3]], [AWAY] * 3)
        ghost.program.transport.signalProcess(signal.SIGCONT)
        await ghost.program.wait_for(Code.SUPERSEDED.value)
        await until(lambda: clients.since(back)["served"] > 50, 5, "they are served")
        await clients.stop()
        self.assertEqual(set(clients.since(back)), {"served"})
        self.assertTrue(agent.program.running)


class RivalTests(TakeoverCase):
    """
    Two agents that want the same name.
    """

    async def test_conflict(self) -> None:
        """
        The one that came first has it, and the other one when the first is
        gone; no client gets to the other one before.
        """
        first, second = self.owned("first"), self.owned("second")
        sockets = Path(tempfile.mkdtemp())  # a path of 107 bytes at the most
        self.addCleanup(shutil.rmtree, sockets)
        local = str(sockets / "agent")
        owner = await self.agent(self.relay.invitation, "web", first)
        clients = Clients(self, "web", "first")
        rival = await self.hopeful(await self.invite("second"), "web", second, "--local", local)
        await rival.program.wait_for(f"web is not published: {Code.CONFLICT.value}")
        tried = reactor.seconds()
        await until(lambda: clients.since(tried)["served"] > 50, 5, "they are served")
        clients.owner = "first|second"
        await owner.program.stop(by=signal.SIGKILL)
        # It would try again by itself, within 45 s.
        await self.command("publish", "--agent", local, f"web={second.address}")
        taken = reactor.seconds()
        clients.owner = "second"
        await clients.hear("served", taken)
        back = await self.hopeful(self.relay.invitation, "web", first)
        await back.program.wait_for(f"web is not published: {Code.CONFLICT.value}")
        await clients.stop()
        self.assertLessEqual(set(clients.since(0)), {"served", AWAY, CUT})
        self.assertEqual(set(clients.since(taken)), {"served"})


class AccountTests(TakeoverCase):
    """
    Accounts that change under agents that run.
    """

    async def test_revoked(self) -> None:
        """
        Within a second of its revocation no client gets to an agent any more;
        the session that runs goes on.
        """
        running = self.target(echo)
        web = self.owned("web")
        agent = await start_agent(
            self,
            self.relay.invitation,
            [f"web={web.address}", f"echo={running.address},http=raw"],
        )
        session = await self.dial(self.relay.clients_port)
        session.say(request("echo"))
        await session.hears(b"GET")
        clients = Clients(self, "web", "web")
        await clients.hear("served", 0)
        await self.revoke("first")
        revoked = reactor.seconds()
        await until(lambda: clients.since(revoked + 1).total() > 20, 5, "they are told")
        await clients.stop()
        self.assertLessEqual(set(clients.since(revoked + 1)), {AWAY, GONE})
        session.say(b"still here")
        await session.hears(b"still here")
        again = await self.hopeful(self.relay.invitation, "web", web)
        await again.program.wait_for("does not let first in: auth")
        self.assertTrue(agent.program.running)

    async def test_rotated(self) -> None:
        """
        While a secret is rotated the agent comes back with the old one, until
        somebody has come with the new one: then with that alone.
        """
        web = self.owned("web")
        agent = await self.agent(self.relay.invitation, "web", web)
        new = await self.command("rotate", "--state", str(self.state), "first")
        clients = Clients(self, "web", "web")
        await agent.program.stop(by=signal.SIGKILL)
        agent = await self.agent(self.relay.invitation, "web", web)
        await agent.program.stop(by=signal.SIGKILL)
        agent = await self.agent(new, "web", web)
        late = await self.hopeful(self.relay.invitation, "web", web)
        await late.program.wait_for("does not let first in: auth")
        came = reactor.seconds()
        await clients.hear("served", came)
        await clients.stop()
        self.assertEqual(set(clients.since(came)), {"served"})
        self.assertTrue(agent.program.running)

    async def test_all_at_once(self) -> None:
        """
        Invitations, rotations and a revocation from several threads at once
        change what they are meant to, and nothing else.
        """
        web, shop = self.owned("web"), self.owned("shop")
        await self.agent(self.relay.invitation, "web", web)
        await self.agent(await self.invite("second"), "shop", shop)
        clients, others = Clients(self, "web", "web", 2), Clients(self, "shop", "shop", 1)
        await clients.hear("served", 0)

        def command(what: str, agent: str, *more: str) -> str:
            done = subprocess.run(
                [*COMMAND, what, "--state", str(self.state), agent, *more],
                capture_output=True,
                check=True,
                text=True,
            )
            return done.stdout.strip()

        told = await gatherResults(
            [
                *(deferToThread(command, "rotate", "first") for _ in range(3)),
                *(deferToThread(command, "invite", name, "--publish", "*") for name in "xyz"),
                deferToThread(command, "revoke", "second"),
            ]
        )
        done = reactor.seconds()
        await until(lambda: clients.since(done + 1)["served"] > 20, 5, "they are served")
        await others.stop()
        await clients.stop()
        self.assertEqual(set(clients.since(0)), {"served"})
        self.assertLessEqual(set(others.since(done + 1)), {AWAY, GONE})
        # Of three rotations the last one's secret is good, and the agent's own.
        good = 0
        for invitation in told[:3]:
            agent = await self.hopeful(invitation, "web", web)
            found = await agent.program.wait_for("does not let first in|web is reached")
            good += found[0] == "web is reached"
            await agent.program.stop()
        self.assertEqual(good, 1)
        for invitation in told[3:6]:
            await (await self.agent(invitation, "shop", shop)).program.stop()
