"""
How both programs tell that they cannot start.
"""

from __future__ import annotations

import contextlib
import gc
import io
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import cast

from twisted.application.service import MultiService, Service
from twisted.logger import ILogObserver, LogEvent, Logger
from twisted.python.usage import Options
from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestCase

from relaytunnel.errors import AccountError, StateError
from relaytunnel.tap.relay import Options as RelayOptions
from relaytunnel.tap.starting import StartupError, Told, keep_time, to_terminal
from tests.processes import (
    Finished,
    Program,
    empty_directory,
    free_port,
    run,
    start_relay,
    until,
)

TWISTD = str(Path(sys.executable).parent / "twistd")


class _Fails(Service):
    def __init__(self, fault: Exception) -> None:
        self.fault = fault

    def startService(self) -> None:
        raise self.fault


class _Reactor:
    """
    As much of a reactor as tells the time.
    """

    running = False

    def __init__(self, *calls: object) -> None:
        self.seconds = time.time
        self._calls = list(calls)

    def getDelayedCalls(self) -> list[object]:
        return self._calls


class TimeTests(SynchronousTestCase):
    """
    Whoever sets the clock moves no deadline.
    """

    def test_idle(self) -> None:
        """
        A reactor that has nothing to do yet counts by a clock that goes on.
        """
        reactor = _Reactor()
        keep_time(reactor)
        self.assertIs(reactor.seconds, time.monotonic)

    def test_busy(self) -> None:
        """
        One that has is left alone: what it has to do has a time already.
        """
        busy, running = _Reactor("something"), _Reactor()
        running.running = True
        for each in (busy, running):
            keep_time(each)
            self.assertIs(each.seconds, time.time)


class ToldTests(SynchronousTestCase):
    """
    Errors become one line.
    """

    def setUp(self) -> None:
        self.addCleanup(gc.set_threshold, *gc.get_threshold())
        self.addCleanup(gc.unfreeze)

    def test_ours(self) -> None:
        """
        An error that is raised on purpose is the text of the exit, and says
        who it was.
        """
        for fault in (StateError("no place"), AccountError("no book")):
            with self.assertRaises(SystemExit) as caught:
                Told("twistd relay", _Fails(fault)).startService()
            self.assertEqual(caught.exception.code, f"twistd relay: {fault}")
            # For twistd, which cleans up behind exceptions alone.
            self.assertIsInstance(caught.exception, Exception)

    def test_daemon(self) -> None:
        """
        A daemon says it at the terminal that it was started from, and in its
        log, once.
        """
        events: list[LogEvent] = []
        self.patch(Told, "_log", Logger(observer=cast(ILogObserver, events.append)))
        read, write = os.pipe()
        stderr = os.dup(2)
        try:
            os.dup2(write, 2)
            told = Told("twistd relay", _Fails(StateError("no place")), daemon=True)
        finally:
            os.dup2(stderr, 2)
            for each in (stderr, write):
                os.close(each)
        self.assertRaises(StartupError, told.startService)
        with os.fdopen(read, "rb") as terminal:
            self.assertEqual(terminal.read(), b"twistd relay: no place\n")
        self.assertEqual([event["reason"] for event in events], ["twistd relay: no place"])

    def test_others(self) -> None:
        """
        Any other error is a fault in the program, and stays as it is.
        """
        with self.assertRaises(ZeroDivisionError):
            Told("twistd relay", _Fails(ZeroDivisionError())).startService()

    def test_starts(self) -> None:
        """
        A service that starts is started, and stopped.
        """
        service = Service()
        told = Told("twistd relay", service)
        told.startService()
        self.assertTrue(service.running)
        told.stopService()
        self.assertFalse(service.running)

    def test_collector(self) -> None:
        """
        Once all is there, the collector comes seldom and leaves it alone.
        """
        Told("twistd relay", Service()).startService()
        self.assertGreater(gc.get_threshold()[0], 10_000)
        self.assertGreater(gc.get_freeze_count(), 0)

    def test_below_another(self) -> None:
        """
        It works as part of something larger.
        """
        parent = MultiService()
        Told("twistd agent", _Fails(StateError("no place"))).setServiceParent(parent)
        with self.assertRaises(SystemExit):
            parent.startService()


class TerminalTests(SynchronousTestCase):
    """
    What is shown past the log.
    """

    def test_shown(self) -> None:
        """
        A text is written as it is, at once.
        """
        out = io.StringIO()
        self.patch(sys, "__stdout__", out)
        to_terminal("an invitation\n")
        self.assertEqual(out.getvalue(), "an invitation\n")

    def test_no_terminal(self) -> None:
        """
        Where there is no standard output nothing is written.
        """
        self.patch(sys, "__stdout__", None)
        to_terminal("an invitation\n")


class ProgramTests(TestCase):
    """
    The same, as people see it.
    """

    timeout = 60

    async def twistd(self, *arguments: str, seconds: float = 30) -> Finished:
        return await run(self, TWISTD, "-n", "--pidfile=", *arguments, seconds=seconds)

    def last_line(self, done: Finished) -> str:
        """
        The last line that was said: what a person sees first.  Without a log
        file it stands among what is logged.
        """
        said = done.out + done.err
        self.assertEqual(done.code, 1, said)
        self.assertNotIn("Traceback", said)
        self.assertEqual(said.count("twistd relay: "), 1, said)
        return said.strip().rpartition("\n")[2].partition("[stderr#error] ")[2]

    async def test_state(self) -> None:
        """
        A relay whose state cannot be made says so in one line.
        """
        done = await self.twistd("relay", "--state", "/proc/nope")
        line = self.last_line(done)
        self.assertTrue(line.startswith("twistd relay: the state directory /proc/nope"), line)
        self.assertIn("--state", line)

    async def test_port(self) -> None:
        """
        A relay whose port is taken says so, and ends.
        """
        directory = empty_directory(self)
        first = await start_relay(self, directory / "first")
        done = await self.twistd(
            *("relay", "--state", str(directory / "second"), "--admin", "off"),
            *("--clients", f"tcp:{free_port()}:interface=127.0.0.1"),
            *("--agents", f"tcp:{first.agents_port}:interface=127.0.0.1"),
        )
        line = self.last_line(done)
        self.assertIn(f"tcp:{first.agents_port}", line)
        self.assertIn("Address already in use", line)

    async def test_database(self) -> None:
        """
        A relay whose database is damaged says so, and ends.
        """
        directory = empty_directory(self)
        (directory / "accounts.sqlite3").write_bytes(b"no database" * 100)
        done = await self.twistd(
            *("relay", "--state", str(directory), "--admin", "off"),
            *("--clients", f"tcp:{free_port()}:interface=127.0.0.1"),
            *("--agents", f"tcp:{free_port()}:interface=127.0.0.1"),
        )
        self.assertIn("accounts.sqlite3", self.last_line(done))

    async def test_invitation_file(self) -> None:
        """
        A relay whose invitation cannot be read says so when its ports and
        accounts are open already, and ends.
        """
        directory = empty_directory(self)
        (directory / "invitation").mkdir()
        done = await self.twistd(
            *("relay", "--state", str(directory), "--admin", "off"),
            *("--clients", f"tcp:{free_port()}:interface=127.0.0.1"),
            *("--agents", f"tcp:{free_port()}:interface=127.0.0.1"),
        )
        self.assertIn("invitation", self.last_line(done))

    async def test_first_invitation(self) -> None:
        """
        The first invitation is shown at a terminal; where there is none, it is
        in its file alone.
        """
        directory = empty_directory(self)
        relay = await start_relay(self, directory / "piped")
        await relay.program.wait_for("the first agent's invitation is in")
        self.assertTrue(relay.invitation.startswith("relaytunnel://first:"))
        self.assertNotIn("relaytunnel://", relay.program.output)
        ours, its = os.openpty()
        self.addCleanup(os.close, ours)
        command = (
            *(TWISTD, "-n", "--pidfile=", "relay", "--state", str(directory / "seen")),
            *("--admin", "off", "--clients", f"tcp:{free_port()}:interface=127.0.0.1"),
            *("--agents", f"tcp:{free_port()}:interface=127.0.0.1"),
        )
        with subprocess.Popen(command, stdout=its, stderr=its, stdin=its) as program:
            os.close(its)
            self.addCleanup(program.kill)
            said = b""
            until = time.monotonic() + 30
            while b"--publish web=" not in said and time.monotonic() < until:
                if select.select([ours], [], [], 1)[0]:
                    said += os.read(ours, 4096)
            program.kill()
        kept = (directory / "seen" / "invitation").read_text().strip()
        self.assertIn(f"--join '{kept}'", said.decode())

    async def test_options(self) -> None:
        """
        A faulty option ends either program with a line that names it.
        """
        for arguments, named in (
            (("relay", "--agents", "7000"), "tcp:7000"),
            (("relay", "--clinets", "tcp:1"), "--clinets"),
            (("agent", "--join", "relaytunnel://x"), "AGENT:SECRET"),
            (("agent",), "join"),
        ):
            done = await self.twistd(*arguments)
            self.assertEqual(done.code, 1)
            self.assertNotIn("Traceback", done.err + done.out)
            self.assertIn(named, (done.err + done.out).strip().rpartition("\n")[2])

    async def daemon(self, *arguments: str, directory: Path) -> Finished:
        """
        Run C{twistd} as it runs without C{-n}: it returns when the daemon has
        started, or cannot.
        """
        return await run(self, TWISTD, f"--rundir={directory}", *arguments)

    def options(self, state: Path) -> tuple[str, ...]:
        return (
            *("relay", "--state", str(state), "--admin", "off"),
            *("--clients", f"tcp:{free_port()}:interface=127.0.0.1"),
            *("--agents", f"tcp:{free_port()}:interface=127.0.0.1"),
        )

    async def test_daemon_cannot(self) -> None:
        """
        A daemon that cannot start says why where it was started, ends with 1
        and leaves no PID file: a relay without a state, or with a port that is
        taken, and an agent whose socket cannot be made.
        """
        directory = empty_directory(self)
        pid_file, log = directory / "it.pid", directory / "it.log"
        first = await start_relay(self, directory / "first")
        relay = self.options(directory / "second")
        taken = f"tcp:{first.agents_port}:interface=127.0.0.1"
        join = ("--join", first.invitation, "--publish", "web=127.0.0.1:1")
        for arguments, reason in (
            (self.options(Path("/proc/nope")), "the state directory /proc/nope"),
            ((*relay[:-1], taken), "Address already in use"),
            (self.options(directory / "first"), f"another relay, process {first.program.pid}"),
            (("agent", *join, "--local", "/proc/nope/socket"), "/proc/nope/socket"),
        ):
            done = await self.daemon(
                f"--pidfile={pid_file}", f"--logfile={log}", *arguments, directory=directory
            )
            self.assertEqual(done.code, 1, done.err)
            self.assertIn(reason, done.err.splitlines()[0])
            self.assertIn(reason, log.read_text())
            self.assertNotIn("Traceback", done.err + log.read_text())
            self.assertFalse(pid_file.exists())
            log.unlink()

    async def test_daemon(self) -> None:
        """
        A daemon that has started is there when the command returns, and takes
        its PID file with it.  Meanwhile a second one does not start, and a PID
        file that another program's number stands in is no hindrance.
        """
        directory = empty_directory(self)
        pid_file = directory / "it.pid"
        pid_file.write_text(str(os.getpid()))  # trial is no relay
        options = (f"--pidfile={pid_file}", *self.options(directory / "state"))
        done = await self.daemon(*options, directory=directory)
        self.assertEqual(done.code, 0, done.err)
        pid = int(pid_file.read_text())
        self.addCleanup(self.kill, pid)
        self.assertNotEqual(pid, os.getpid())
        done = await self.daemon(*options, directory=directory)
        self.assertEqual(done.code, 1)
        self.assertIn(f"PID {pid}", done.err)
        self.assertEqual(pid_file.read_text(), str(pid))
        os.kill(pid, signal.SIGTERM)
        await until(lambda: not pid_file.exists(), 20, "it has ended")

    def kill(self, pid: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    async def test_first_process(self) -> None:
        """
        The first process of a container starts although the one before it,
        which had the same number, was killed.
        """
        if os.getuid() != 0:
            raise SkipTest("only root makes PID namespaces")
        directory = empty_directory(self)
        pid_file = directory / "it.pid"
        command = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", TWISTD, "-n")
        for _ in range(2):
            relay = Program.start(
                self, *command, f"--pidfile={pid_file}", *self.options(directory / "state")
            )
            await relay.wait_for("the relay localhost is here")
            self.assertEqual(pid_file.read_text(), "1")
            relay.transport.signalProcess("KILL")
            await relay.finished()
            self.assertTrue(pid_file.exists())

    async def test_no_directory(self) -> None:
        """
        A working directory that was removed is told, without a traceback.
        """
        directory = empty_directory(self) / "gone"
        script = 'mkdir "$1" && cd "$1" && rmdir "$1" && exec "$2" -n relay'
        done = await run(self, "sh", "-c", script, "sh", str(directory), TWISTD)
        self.assertEqual(done.code, 1, done.err)
        self.assertIn("the working directory cannot be used", done.err)
        self.assertNotIn("Traceback", done.err)

    async def test_stopped(self) -> None:
        """
        A relay that is told to stop ends by itself, with nothing to say.
        """
        relay = await start_relay(self, empty_directory(self) / "relay")
        os.kill(relay.program.pid, signal.SIGTERM)
        done = await relay.program.finished(10)
        # Twisted ends by the signal once everything is stopped.
        self.assertIn(done.code, (0, -signal.SIGTERM))
        self.assertNotIn("Traceback", done.out + done.err)


class PluginOptionsTests(SynchronousTestCase):
    """
    What the options of both plugins have in common.
    """

    def parsed(self, *words: str) -> RelayOptions:
        options = RelayOptions()
        options.parent = Options()
        options.parseOptions(list(words))
        return options

    def test_daemon(self) -> None:
        """
        C{twistd} leaves its terminal, but with C{-n} or in a debugger.
        """
        options = self.parsed()
        assert options.parent is not None
        self.assertTrue(options.daemon)
        for given in ("nodaemon", "debug"):
            options.parent[given] = True
            self.assertFalse(options.daemon)
            options.parent[given] = False
        self.assertFalse(RelayOptions().daemon)

    def test_handed_over(self) -> None:
        """
        A process whose PID file is another's leaves it there.
        """
        options = self.parsed()
        assert options.parent is not None
        options.parent["pidfile"] = "/run/relay.pid"
        options.keep_pid_file()
        self.assertEqual((options.parent["pidfile"], options.pid_file), ("", ""))
        RelayOptions().keep_pid_file()

    def pid_file(self, given: str) -> object:
        """
        @return: the file for the process number, when C{twistd} was given this.
        """
        options = RelayOptions()
        parent = Options()
        parent["pidfile"] = given
        options.parent = parent
        options.parseOptions([])
        return parent["pidfile"]

    def test_own_pid_file(self) -> None:
        """
        A relay's process number is not kept where an agent's would be.
        """
        self.assertEqual(self.pid_file("twistd.pid"), "twistd-relay.pid")

    def test_given_pid_file(self) -> None:
        """
        A file that was asked for is used, and none if none was.
        """
        self.assertEqual(self.pid_file("/run/relay.pid"), "/run/relay.pid")
        self.assertEqual(self.pid_file(""), "")
