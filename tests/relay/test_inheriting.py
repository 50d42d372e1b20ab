"""
What becomes of a socket, and of its name, from one process to the next.

Two processes are one here, with a descriptor each of the same socket.
"""

from __future__ import annotations

import os
import shutil
import socket
import stat
from tempfile import mkdtemp
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import TestCase

from relaytunnel.channel.tcp import socket_of
from relaytunnel.errors import StateError
from relaytunnel.relay.inheriting import Inheritance, adopt, let_go, take_name
from tests.running import eventually

reactor: Any = _reactor


class InheritingTests(TestCase):
    def setUp(self) -> None:
        # Not below the test's own directory: the name of a socket has at most 107 bytes.
        self.directory = mkdtemp()
        self.addCleanup(shutil.rmtree, self.directory)
        self.path = f"{self.directory}/socket"
        self.lock = f"{self.path}.lock"
        self.came: list[str] = []

    def factory(self, name: str) -> Factory:
        """
        @return: a factory that notes who came to it.
        """

        class Coming(Protocol):
            def connectionMade(this) -> None:
                self.came.append(name)
                assert this.transport is not None
                this.transport.loseConnection()

        return Factory.forProtocol(Coming)

    def old_port(self) -> IListeningPort:
        port: IListeningPort = reactor.listenUNIX(
            self.path, self.factory("old"), mode=0o600, wantPID=True
        )
        return port

    def left(self, port: IListeningPort) -> int:
        """
        @return: another descriptor of its socket.
        """
        sock = socket_of(port)
        assert sock is not None
        return os.dup(sock.fileno())

    def stop(self, port: IListeningPort) -> Deferred[Any]:
        """
        @return: fires when it listens no more.
        """
        return maybeDeferred(port.stopListening)

    async def comes(self, name: str) -> None:
        """
        Connect, and assert to whom.
        """
        self.came.clear()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(self.path)
            await eventually(lambda: self.came, "somebody comes")
        self.assertEqual(self.came, [name])

    async def test_handed_over(self) -> None:
        """
        The new one has the name with the rights that it had, and the lock when
        it says so; the old one leaves both alone, and the new one removes both.
        """
        old = self.old_port()
        new = adopt(reactor, self.left(old), self.factory("new"))
        self.assertTrue(let_go(old))
        os.unlink(self.lock)
        os.symlink("1", self.lock)  # as if the old one were another
        take_name(new)
        self.assertEqual(os.readlink(self.lock), str(os.getpid()))
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o600)
        new.startReading()  # type: ignore[attr-defined]
        await self.comes("new")
        await self.stop(new)
        self.assertEqual(os.listdir(self.directory), [])

    async def test_not_handed_over(self) -> None:
        """
        If the new one goes instead, the old one has it all as before.
        """
        old = self.old_port()
        self.assertTrue(let_go(adopt(reactor, self.left(old), self.factory("new"))))
        await self.comes("old")
        self.assertEqual(os.readlink(self.lock), str(os.getpid()))
        await self.stop(old)
        self.assertEqual(os.listdir(self.directory), [])

    async def test_queue(self) -> None:
        """
        Who connects while nobody accepts waits, as many as have room with the
        old one, and more.
        """
        old: Any = reactor.listenUNIX(self.path, self.factory("old"), backlog=200)
        old.stopReading()
        new = adopt(reactor, self.left(old), self.factory("new"))
        for _ in range(200):
            client = socket.socket(socket.AF_UNIX)
            self.addCleanup(client.close)
            client.setblocking(False)
            client.connect(self.path)
        self.assertTrue(let_go(new))
        await self.stop(old)

    async def test_taken_back(self) -> None:
        """
        One that was handed over in vain has its name and its lock again, and
        removes both.
        """
        old = self.old_port()
        os.unlink(self.lock)
        os.symlink("1", self.lock)  # as if the new one had taken it
        for _ in range(2):
            take_name(old)
            self.assertEqual(os.readlink(self.lock), str(os.getpid()))
        await self.stop(old)
        self.assertEqual(os.listdir(self.directory), [])

    async def test_without_lock(self) -> None:
        """
        Where there is no lock none is made.
        """
        port: IListeningPort = reactor.listenUNIX(self.path, self.factory("old"))
        take_name(port)
        self.assertEqual(os.listdir(self.directory), ["socket"])
        await self.stop(port)

    def test_nameless(self) -> None:
        """
        A socket that has no name in the file system has nothing to take.
        """
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(f"\0relaytunnel-{os.getpid()}")
            sock.listen()
            port = adopt(reactor, os.dup(sock.fileno()), self.factory("new"))
        take_name(port)
        self.assertTrue(let_go(port))

    async def test_tcp(self) -> None:
        """
        A port of TCP has no name, and is stopped as ever.
        """
        old = reactor.listenTCP(0, self.factory("old"), interface="127.0.0.1")
        new = adopt(reactor, self.left(old), self.factory("new"))
        take_name(new)
        for port in (old, new):
            self.assertFalse(let_go(port))
            await self.stop(port)

    def test_nobody_wants_it(self) -> None:
        """
        What is left over is closed, and its name goes if this was the last
        process that had it.
        """
        for forever in (False, True):
            with socket.socket(socket.AF_UNIX) as sock:
                sock.bind(self.path)
                os.symlink("1", self.lock)
                inheritance = Inheritance(shared={f"unix:{self.path}": sock.detach()})
            (descriptor,) = inheritance.descriptors()
            inheritance.close(forever)
            self.assertRaises(OSError, os.fstat, descriptor)
            self.assertEqual(inheritance.descriptors(), [])
            left = os.listdir(self.directory)
            self.assertEqual(sorted(left), [] if forever else ["socket", "socket.lock"])
            for name in left:
                os.unlink(f"{self.directory}/{name}")

    def test_name_that_is_used(self) -> None:
        """
        A name that another socket has by now stays.
        """
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(self.path)
            Inheritance(shared={"unix": sock.detach()}).close(forever=True, kept=[self.path])
        self.assertEqual(os.listdir(self.directory), ["socket"])

    def test_tcp_that_nobody_wants(self) -> None:
        """
        So is one of TCP, and a descriptor that is closed already does no harm.
        """
        with socket.create_server(("127.0.0.1", 0)) as sock:
            descriptor = sock.detach()
        for _ in range(2):
            Inheritance(own={7: descriptor}).close(forever=True)
            self.assertRaises(OSError, os.fstat, descriptor)

    def test_no_socket(self) -> None:
        """
        A descriptor that is no socket is refused.
        """
        reader, writer = os.pipe()
        self.addCleanup(os.close, writer)
        with self.assertRaisesRegex(StateError, "is of no use"):
            adopt(reactor, reader, self.factory("new"))
