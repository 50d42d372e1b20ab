"""
What signals do to the two programs.
"""

from __future__ import annotations

import signal
import socket
import time
from dataclasses import replace
from pathlib import Path

from twisted.internet.defer import Deferred, fail
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from relaytunnel.accounts import AccountStore
from relaytunnel.errors import ConfigError, StateError
from relaytunnel.tap.signals import Signals
from relaytunnel.wire.invitation import Invitation
from tests.processes import (
    Agent,
    Program,
    Relay,
    empty_directory,
    free_port,
    start_agent,
    start_relay,
    until,
)

_WEB = "web"


class _Service:
    """
    @ivar refuses: what it says to another configuration.
    @ivar changed: what is said to have changed.
    @ivar given: the configurations that it took.
    @ivar draining: fires when its sessions are over.
    """

    def __init__(self) -> None:
        self.refuses: Exception | None = None
        self.changed = ["one thing"]
        self.given: list[object] = []
        self.draining: Deferred[None] = Deferred()

    def reload(self, config: object) -> list[str]:
        if self.refuses is not None:
            raise self.refuses
        self.given.append(config)
        return self.changed

    def drain(self) -> Deferred[None]:
        return self.draining


class _Reactor:
    running = True
    stopped = 0

    def stop(self) -> None:
        self.stopped += 1
        self.running = False


class SignalsTests(SynchronousTestCase):
    """
    What is done, without a process.
    """

    def setUp(self) -> None:
        self.service, self.reactor = _Service(), _Reactor()
        self.read: object = "a configuration"
        self.signals = Signals(self.reactor, self.service, self.reread)

    def reread(self) -> object:
        if isinstance(self.read, Exception):
            raise self.read
        return self.read

    def test_reload(self) -> None:
        """
        The file is read again, and given to the service.
        """
        self.signals.reload()
        self.assertEqual(self.service.given, ["a configuration"])

    def test_faulty_file(self) -> None:
        """
        A faulty one is not.
        """
        self.read = ConfigError(["one", "two"])
        self.signals.reload()
        self.assertEqual(self.service.given, [])

    def test_refused(self) -> None:
        """
        What the service refuses is told, and nothing else happens.
        """
        for refuses in (ConfigError(["no"]), StateError("no")):
            self.service.refuses = refuses
            self.signals.reload()
        self.assertEqual(self.service.given, [])
        self.assertEqual(self.reactor.stopped, 0)

    def test_no_file(self) -> None:
        """
        Without a file there is nothing to read again.
        """
        Signals(self.reactor, self.service, None).reload()
        self.assertEqual(self.service.given, [])

    def test_stop(self) -> None:
        """
        The process stops when the sessions are over, and once.
        """
        self.signals.stop()
        self.assertEqual(self.reactor.stopped, 0)
        self.service.draining.callback(None)
        self.assertEqual(self.reactor.stopped, 1)

    def test_stop_twice(self) -> None:
        """
        Whoever says it again does not want to wait.
        """
        self.signals.stop()
        self.signals.stop()
        self.assertEqual(self.reactor.stopped, 1)
        self.service.draining.callback(None)
        self.assertEqual(self.reactor.stopped, 1)

    def test_hand_over(self) -> None:
        """
        When another process has taken over and all is over here, this one ends.
        """
        over: Deferred[None] = Deferred()
        signals = Signals(self.reactor, self.service, None, lambda: over)
        signals.hand_over()
        self.assertEqual(self.reactor.stopped, 0)
        over.callback(None)
        self.assertEqual(self.reactor.stopped, 1)

    def test_not_handed_over(self) -> None:
        """
        Whatever keeps another process from taking over, and whenever, it may be
        tried once more.
        """
        tried: list[int] = []

        def hand_over() -> Deferred[None]:
            tried.append(len(tried))
            if len(tried) == 1:
                raise StateError("no new process can be started")
            return fail(ZeroDivisionError() if len(tried) == 2 else StateError("not ready"))

        signals = Signals(self.reactor, self.service, None, hand_over)
        for _ in range(3):
            signals.hand_over()
        self.assertEqual(tried, [0, 1, 2])
        self.assertEqual(self.reactor.stopped, 0)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_stop_fails(self) -> None:
        """
        It stops as well when waiting fails.
        """
        self.signals.stop()
        self.service.draining.errback(ZeroDivisionError())
        self.assertEqual(self.reactor.stopped, 1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class ProcessTests(TestCase):
    """
    A relay and an agent as processes, each with a file, and an echo server.
    """

    timeout = 120
    relay: Relay
    agent: Agent

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        self.directory = empty_directory(self)
        self.echo = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(self.echo.close)
        self.target = f"127.0.0.1:{self.echo.getsockname()[1]}"
        self.relay_toml = self.directory / "relay.toml"
        self.relay_toml.write_text("[limits]\nidle = 100\n")
        self.relay = await start_relay(
            self, self.directory / "state", "--config", str(self.relay_toml)
        )
        self.agent_toml = self.directory / "agent.toml"
        self.publish()
        self.agent = await start_agent(
            self, self.relay.invitation, [], "--config", str(self.agent_toml)
        )
        await self.agent.program.wait_for("web is reached")

    def publish(self, *more: str) -> None:
        """
        Write an agent's file with these servers besides C{web}.
        """
        self.agent_toml.write_text(
            "".join(
                f'[[server]]\nid = "{name}"\ntarget = "{self.target}"\nhttp = "raw"\n'
                for name in (_WEB, *more)
            )
        )

    async def session(self, name: str = _WEB) -> tuple[socket.socket, socket.socket]:
        """
        @return: both ends of a session, the client's first.
        """
        return await deferToThread(self._session, name)

    def _session(self, name: str) -> tuple[socket.socket, socket.socket]:
        client = socket.create_connection(("127.0.0.1", self.relay.clients_port), 10)
        self.addCleanup(client.close)
        client.sendall(b"GET / HTTP/1.1\r\nHost: %s\r\n\r\n" % name.encode())
        self.echo.settimeout(10)
        server, _ = self.echo.accept()
        self.addCleanup(server.close)
        server.settimeout(10)
        self.assertIn(b"GET /", server.recv(1000))
        return client, server

    def says(self, one: socket.socket, other: socket.socket) -> None:
        one.sendall(b"still here")
        self.assertEqual(other.recv(100), b"still here")

    def send(self, program: Program, number: signal.Signals) -> None:
        program.transport.signalProcess(number.name.removeprefix("SIG"))

    async def test_reload_relay(self) -> None:
        """
        A relay reads its file again; its sessions go on, and faults are told.
        """
        ends = await self.session()
        port = free_port()
        self.relay_toml.write_text(f'[limits]\nidle = 200\n[listen]\nclients = ["tcp:{port}"]\n')
        self.send(self.relay.program, signal.SIGHUP)
        # The ports were given as options, which win.
        await self.relay.program.wait_for(r"reloaded: \[limits\]")
        self.says(*ends)
        self.relay_toml.write_text("[limits]\nidle = 300\nidel = 1\n[relay]\nports = 1\n")
        self.send(self.relay.program, signal.SIGHUP)
        await self.relay.program.wait_for("not reloaded: .*idel.*did you mean 'idle'")
        await self.relay.program.wait_for("not reloaded: .*ports")
        self.says(*ends)

    async def test_reload_agent(self) -> None:
        """
        An agent publishes one more server, and withdraws it; the session with
        the other one goes on.
        """
        ends = await self.session()
        self.publish("wiki")
        self.send(self.agent.program, signal.SIGHUP)
        await self.agent.program.wait_for("wiki is reached")
        await self.session("wiki")
        self.agent_toml.write_text('[[server]]\nid = "web"\ntarget = "nowhere"\n')
        self.send(self.agent.program, signal.SIGHUP)
        await self.agent.program.wait_for("not reloaded: .*target")
        self.publish()
        self.send(self.agent.program, signal.SIGHUP)
        await self.agent.program.wait_for("'wiki' is withdrawn")
        self.says(*ends)

    async def test_another_invitation(self) -> None:
        """
        An agent without a file of its own, whose join-file has changed, comes
        back with the new secret; its session goes on.
        """
        agent = await start_agent(self, self.relay.invitation, [f"mail={self.target},http=raw"])
        await self.agent.program.wait_for("superseded")
        ends = await self.session("mail")
        store = AccountStore(str(self.directory / "state" / "accounts.sqlite3"))
        self.addCleanup(store.close)
        invitation = replace(Invitation.parse(self.relay.invitation), secret=store.rotate("first"))
        words = Path(f"/proc/{agent.program.pid}/cmdline").read_text().split("\0")
        Path(words[words.index("--join-file") + 1]).write_text(f"{invitation}\n")
        self.send(agent.program, signal.SIGHUP)
        await agent.program.wait_for("reloaded: the invitation")
        await agent.program.wait_for("let first in(?s:.*)let first in")
        self.says(*ends)
        await self.session("mail")

    async def stops(self, program: Program, ends: tuple[socket.socket, socket.socket]) -> None:
        """
        Assert that a program waits for its session when it is told to stop.
        """
        self.send(program, signal.SIGTERM)
        await program.wait_for("stopping, when")
        self.says(*ends)
        self.says(*reversed(ends))
        self.assertTrue(program.running)
        for end in ends:
            end.close()
        self.assertEqual((await program.finished()).code, 0)

    async def test_stop_relay(self) -> None:
        """
        A relay that is told to stop turns clients away, and ends with its last
        session.
        """
        await self.stops(self.relay.program, await self.session())
        with self.assertRaises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", self.relay.clients_port))

    async def test_stop_agent(self) -> None:
        """
        An agent that is told to stop withdraws its servers, and ends with its
        last session.
        """
        await self.stops(self.agent.program, await self.session())

    async def test_again_and_again(self) -> None:
        """
        Whatever is said again while the programs stop, they stop once, and
        have nothing more to say of it.
        """
        await self.session()
        for program in (self.relay.program, self.agent.program):
            self.send(program, signal.SIGTERM)
            await program.wait_for("stopping, when")
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM, signal.SIGINT) * 5:
                if program.running:
                    self.send(program, number)
                    await deferToThread(time.sleep, 0.01)
            done = await program.finished()
            for words in ("CRITICAL", "critical", "Traceback", "ReactorNotRunning"):
                self.assertNotIn(words, done.out + done.err)

    async def test_at_once(self) -> None:
        """
        Told twice, or with Ctrl-C, either ends at once.
        """
        await self.session()
        began = time.monotonic()
        self.send(self.relay.program, signal.SIGTERM)
        await self.relay.program.wait_for("stopping, when")
        self.send(self.relay.program, signal.SIGTERM)
        await self.relay.program.finished()
        self.send(self.agent.program, signal.SIGINT)
        await self.agent.program.finished()
        self.assertLess(time.monotonic() - began, 10)
        await until(lambda: not Path(f"/proc/{self.agent.program.pid}").exists(), 5, "it is gone")
