"""
A relay that hands over to a new process, as real processes.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import socket
import stat
import sys
import threading
import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile, mkdtemp

import msgspec

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from relaytunnel.errors import StateError
from relaytunnel.relay.inheriting import Inheritance
from relaytunnel.tap.systemd import notify
from relaytunnel.tap.upgrading import VARIABLE, Successor, Will
from tests.processes import (
    Agent,
    Relay,
    empty_directory,
    free_port,
    own_port,
    run,
    start_agent,
    start_relay,
    until,
)

COMMAND = (sys.executable, "-m", "relaytunnel.cli")


class NotifyTests(SynchronousTestCase):
    """
    What the service manager is told.
    """

    def test_told(self) -> None:
        """
        It gets one datagram, at a path or at an abstract address.
        """
        # Not below the test's own directory: the name of a socket has at most 107 bytes.
        directory = mkdtemp()
        self.addCleanup(shutil.rmtree, directory)
        for address in (f"{directory}/notify", f"@relaytunnel-{os.getpid()}"):
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
                manager.bind(address.replace("@", "\0"))
                self.patch(os, "environ", {**os.environ, "NOTIFY_SOCKET": address})
                notify("READY=1", "MAINPID=7")
                self.assertEqual(manager.recv(100), b"READY=1\nMAINPID=7")

    def test_nobody(self) -> None:
        """
        Nothing happens where there is no manager, or none that listens.
        """
        for address in ("", "nonsense", "/nowhere/notify"):
            self.patch(os, "environ", {**os.environ, "NOTIFY_SOCKET": address})
            notify("READY=1")


class WillTests(SynchronousTestCase):
    """
    What a new process finds in its environment.
    """

    def test_none(self) -> None:
        """
        Ordinarily there is nothing.
        """
        self.patch(os, "environ", {})
        self.assertIsNone(Will.read())

    def left(self, content: bytes) -> int:
        """
        @return: a descriptor of what another process has written.
        """
        with TemporaryFile() as file:
            file.write(content)
            file.flush()
            descriptor = os.dup(file.fileno())
        self.patch(os, "environ", {VARIABLE: str(descriptor)})
        return descriptor

    def test_large(self) -> None:
        """
        It is read as it was left, however much it is, and its descriptor is
        closed.
        """
        agents = tuple(f"agent{number}" for number in range(100_000))
        known = {"192.0.2.1": 3600.0, "2001:db8::/64": 1.5}
        inheritance = Inheritance(own={20_000: 9}, agents=agents, known=known)
        will = Will(channel=7, inheritance=inheritance, pid_file="/run/relay.pid")
        descriptor = self.left(msgspec.json.encode(will))
        self.assertEqual(Will.read(), will)
        self.assertRaises(OSError, os.fstat, descriptor)
        self.assertEqual(os.environ, {})

    def test_unreadable(self) -> None:
        """
        What cannot be read is an error.
        """
        for content in (b"{", b"", b"[]"):
            self.left(content)
            self.assertRaises(StateError, Will.read)
            self.assertEqual(os.environ, {})
        for number in ("x", "-1", "1000000"):
            self.patch(os, "environ", {VARIABLE: number})
            self.assertRaises(StateError, Will.read)


def _gone(process: Path) -> bool:
    """
    @return: whether it has ended, its parent knowing or not.
    """
    try:
        return "State:\tZ" in (process / "status").read_text()
    except FileNotFoundError:
        return True


class SuccessorTests(SynchronousTestCase):
    """
    Starting a new process, without one.
    """

    def start(self, reactor: object) -> str:
        """
        @return: why none was started.
        """
        with self.assertRaises(StateError) as caught:
            Successor(reactor, ["relay"], Inheritance(), "")
        return str(caught.exception)

    def test_no_file(self) -> None:
        """
        Where there is no room to leave anything, that is said, and no
        descriptor is left open.
        """

        def full(name: str) -> int:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

        self.patch(os, "memfd_create", full)
        before = os.listdir("/proc/self/fd")
        self.assertIn("no new process can be started: Too many open files", self.start(None))
        self.assertEqual(len(os.listdir("/proc/self/fd")), len(before))

    def test_no_process(self) -> None:
        """
        Where there is no room for a process, too.
        """

        class Full:
            def spawnProcess(self, *given: object, **more: object) -> None:
                raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

        before = os.listdir("/proc/self/fd")
        self.assertIn("Resource temporarily unavailable", self.start(Full()))
        self.assertEqual(len(os.listdir("/proc/self/fd")), len(before))


class UpgradeTests(TestCase):
    """
    A relay and an agent with an echo server, which a shared port and one of its
    own lead to.
    """

    timeout = 180
    relay: Relay
    agent: Agent

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        self.state = empty_directory(self) / "state"
        self.echo = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.addCleanup(self.echo.close)
        threading.Thread(target=self._serve, daemon=True).start()
        self.own = own_port()
        # All clients here have one address.
        config = empty_directory(self) / "relay.toml"
        config.write_text(
            "[limits]\nwaiting-per-client = 1000\nwaiting-per-server = 1000\n"
            "waiting-per-agent = 1000\nnotify-burst = 10000\nsessions-per-client = 10000\n"
        )
        # Not below the test's own directory: the name of a socket has at most 107 bytes.
        directory = mkdtemp()
        self.addCleanup(shutil.rmtree, directory)
        self.local = f"{directory}/clients"
        self.relay = await start_relay(
            self,
            self.state,
            *("--config", str(config), "--clients", f"unix:{self.local}:mode=600"),
        )
        self.addCleanup(self._end_successor)
        target = f"127.0.0.1:{self.echo.getsockname()[1]}"
        self.agent = await start_agent(
            self,
            self.relay.invitation,
            [f"web={target},http=raw", f"own={target},port={self.own}"],
        )

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self.echo.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(sock,), daemon=True).start()

    @staticmethod
    def _answer(sock: socket.socket) -> None:
        with sock:
            sock.settimeout(60)
            try:
                while data := sock.recv(65536):
                    sock.sendall(data)
            except OSError:
                pass

    def facts(self) -> dict[str, object]:
        found: dict[str, object] = json.loads((self.state / "relay.json").read_text())
        return found

    async def _end_successor(self) -> None:
        """
        The last process is not a child of ours.
        """
        pid = int(str(self.facts()["pid"]))
        if pid and pid != self.relay.program.pid:
            os.kill(pid, signal.SIGINT)
            await until(lambda: not Path(f"/proc/{pid}").exists(), 20, "the successor ends")

    async def upgrade(self) -> int:
        """
        @return: the new process.
        """
        done = await run(self, *COMMAND, "upgrade", "--state", str(self.state))
        self.assertEqual(done.code, 0, done.err + self.relay.program.output)
        self.assertIn("has taken over", done.out)
        return int(str(self.facts()["pid"]))

    def visit(self, where: int | str, keep: bool = False) -> socket.socket | None:
        """
        Visit the echo server once.

        @param where: a port, or the path of a UNIX socket.
        @param keep: whether to keep the session.
        """
        if isinstance(where, str):
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(where)
        else:
            sock = socket.create_connection(("127.0.0.1", where), 20)
        sock.settimeout(20)
        said = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n" + os.urandom(8).hex().encode()
        sock.sendall(said)
        heard = b""
        while len(heard) < len(said):
            data = sock.recv(65536)
            if not data:
                break
            heard += data
        if heard != said:
            sock.close()
            raise AssertionError(heard)
        if keep:
            return sock
        sock.close()
        return None

    async def test_sessions_go_on(self) -> None:
        """
        A session that runs goes on in the old process, which ends with it; new
        ones are the new process's, also on a port of a server's own.
        """
        ports = (self.relay.clients_port, self.own)
        kept = [await deferToThread(self.visit, port, True) for port in ports]
        new = await self.upgrade()
        self.assertNotEqual(new, self.relay.program.pid)
        for sock in kept:
            assert sock is not None
            sock.sendall(b"still here")
            self.assertEqual(await deferToThread(sock.recv, 100), b"still here")
        for port in ports:
            await deferToThread(self.visit, port)
        self.assertTrue(self.relay.program.running)
        for sock in kept:
            assert sock is not None
            sock.close()
        # Its standard output is the new one's, too, and so does not end.
        await until(lambda: not self.relay.program.running, 20, "the old one ends")
        self.assertEqual(self.relay.program.code, 0)
        for port in ports:
            await deferToThread(self.visit, port)
        self.assertEqual(self.facts()["pid"], new)

    async def test_under_load(self) -> None:
        """
        Nobody is refused, and no session is lost, while the relay is replaced
        again and again under load.
        """
        times = int(os.environ.get("RELAYTUNNEL_UPGRADE_TIMES", "3"))
        rate = int(os.environ.get("RELAYTUNNEL_UPGRADE_RATE", "40"))
        failed: list[str] = []
        done = [0]
        over = threading.Event()
        slowest = [0.0]

        def visit() -> None:
            began = time.monotonic()
            try:
                self.visit(self.relay.clients_port)
            except (OSError, AssertionError) as fault:
                failed.append(repr(fault))
            done[0] += 1
            slowest[0] = max(slowest[0], time.monotonic() - began)

        def load() -> None:
            threads = []
            due = time.monotonic()
            while not over.is_set():
                due += 1 / rate
                time.sleep(max(0.0, due - time.monotonic()))
                thread = threading.Thread(target=visit, daemon=True)
                thread.start()
                threads.append(thread)
            for thread in threads:
                thread.join(30)

        loading = deferToThread(load)
        pids = set()
        for _ in range(times):
            pids.add(await self.upgrade())
            await deferToThread(time.sleep, 1)
        over.set()
        await loading
        print(f"{done[0]} sessions, {len(failed)} failed, the slowest took {slowest[0]:.2f} s")
        self.assertEqual(failed, [])
        self.assertEqual(len(pids), times)
        self.assertGreater(done[0], times * rate / 2)

    async def test_local(self) -> None:
        """
        A socket of the UNIX domain is handed over with its name, its rights
        and its lock; only the last process removes it.
        """
        path, lock = self.local, f"{self.local}.lock"
        await deferToThread(self.visit, path)
        new = self.relay.program.pid
        for _ in range(2):
            old, new = Path(f"/proc/{new}"), await self.upgrade()
            await until(partial(_gone, old), 20, "the old one ends")
            self.assertEqual(os.readlink(lock), str(new))
            self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)
            await deferToThread(self.visit, path)
        # One that does not come to take over leaves all as it is.
        (self.state / "key.pem").write_text("no key")
        os.kill(new, signal.SIGUSR2)
        await self.relay.program.wait_for("the new process does not take over.*goes on")
        self.assertEqual(os.readlink(lock), str(new))
        await deferToThread(self.visit, path)
        os.kill(new, signal.SIGINT)
        await until(lambda: not os.path.lexists(path), 20, "it is removed")
        await until(lambda: not os.path.lexists(lock), 20, "so is its lock")

    async def test_pid_file(self) -> None:
        """
        The PID file names the process that accepts, from the moment it does
        so, and goes with the last one.
        """
        directory = empty_directory(self)
        pid_file, state = directory / "it.pid", directory / "state"
        done = await run(
            self,
            *(Path(sys.executable).parent / "twistd", f"--rundir={directory}"),
            *(f"--pidfile={pid_file}", "relay", "--state", str(state), "--admin", "off"),
            *("--clients", f"tcp:{free_port()}:interface=127.0.0.1"),
            *("--agents", f"tcp:{free_port()}:interface=127.0.0.1"),
        )
        self.assertEqual(done.code, 0, done.err)
        pids = [int(pid_file.read_text())]

        def kill() -> None:
            if pid_file.exists():
                os.kill(int(pid_file.read_text()), signal.SIGKILL)

        self.addCleanup(kill)
        for _ in range(2):
            done = await run(self, *COMMAND, "upgrade", "--state", str(state))
            self.assertEqual(done.code, 0, done.err)
            pids.append(int(pid_file.read_text()))
            self.assertIn(f"the process {pids[-1]} has taken over", done.out)
            await until(partial(_gone, Path(f"/proc/{pids[-2]}")), 20, "the old one ends")
            self.assertEqual(pid_file.read_text(), str(pids[-1]))
            self.assertEqual((state / "lock").read_text(), f"{pids[-1]}\n")
        self.assertEqual(len(set(pids)), 3)
        os.kill(pids[-1], signal.SIGTERM)
        await until(lambda: not pid_file.exists(), 20, "it is removed")

    async def test_not_ready(self) -> None:
        """
        If the new process does not start, the old one says so and goes on; so
        does the command, and does not wait for one that will not come.
        """
        (self.state / "key.pem").write_text("no key")
        pid = self.relay.program.pid
        for _ in range(2):
            done = await run(self, *COMMAND, "upgrade", "--state", str(self.state))
            self.assertEqual((done.code, done.out), (1, ""))
            self.assertIn(f"the process {pid} goes on: the new process does not", done.err)
        await self.relay.program.wait_for("the new process does not take over.*goes on")
        await deferToThread(self.visit, self.relay.clients_port)
        self.assertEqual(self.facts()["pid"], self.relay.program.pid)
