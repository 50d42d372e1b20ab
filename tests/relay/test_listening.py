"""
The ports that a relay listens on.
"""

from __future__ import annotations

import os
import shutil
import socket
from tempfile import mkdtemp
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.channel.edges import EdgeWatch
from relaytunnel.config.names import Reach
from relaytunnel.errors import Code, Rejection, StateError
from relaytunnel.relay.inheriting import Inheritance
from relaytunnel.relay.listening import Listeners, addresses, tcp_port
from tests.running import ANY_PORT, HOST, RunningCase, free_ports, hello_page, reactor


class ListenersTests(RunningCase):
    """
    Opening and closing.
    """

    def setUp(self) -> None:
        super().setUp()
        edges = EdgeWatch(reactor)
        self.addCleanup(edges.close)
        self.listeners = Listeners(reactor, edges)
        self.listeners.interface = HOST
        self.addCleanup(self.listeners.stop)
        self.factory = self.target(hello_page)
        self.listeners.own_factory = lambda port: self.factory
        self.port = free_ports().first

    async def refused(self, port: int) -> None:
        with self.assertRaises(Exception):  # noqa: B017  # whatever the system calls it
            await self.dial(port)

    async def test_endpoint(self) -> None:
        """
        An endpoint's port takes connections until all is stopped.
        """
        port = tcp_port(self.listeners.listen(ANY_PORT, self.factory))
        await self.dial(port)
        await self.listeners.stop()
        await self.refused(port)

    def test_backlog(self) -> None:
        """
        The kernel keeps 1,024 who have not been accepted yet, on every port;
        an endpoint may say otherwise.
        """
        ports: list[Any] = [
            self.listeners.listen(ANY_PORT, self.factory),
            self.listeners.listen(f"{ANY_PORT}:backlog=7", self.factory),
        ]
        self.listeners.open(self.port)
        ports.append(self.listeners._own[self.port])
        self.assertEqual([port.backlog for port in ports], [1024, 7, 1024])

    def test_no_endpoint(self) -> None:
        """
        What is no endpoint, or one of a kind that is not there, is named.
        """
        for text in ("tcp:http", "tcp:1:interface", "carrier:pigeon"):
            with self.assertRaises(StateError) as caught:
                self.listeners.listen(text, self.factory)
            self.assertIn(text, str(caught.exception))

    def test_taken(self) -> None:
        """
        An endpoint that is taken is named, with the system's reason.
        """
        text = f"tcp:{self.factory.port}:interface={HOST}"
        with self.assertRaises(StateError) as caught:
            self.listeners.listen(text, self.factory)
        self.assertIn(text, str(caught.exception))
        self.assertIn(os.strerror(98), str(caught.exception))

    def test_unix(self) -> None:
        """
        A UNIX socket has no port.
        """
        path = os.path.join(os.path.relpath(self.mktemp()))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        self.assertEqual(tcp_port(self.listeners.listen(f"unix:{path}", self.factory)), 0)

    async def test_own_port(self) -> None:
        """
        A port of a server's own opens, again without effect, and closes.
        """
        self.listeners.open(self.port)
        self.listeners.open(self.port)
        await self.dial(self.port)
        self.listeners.close(self.port)
        self.listeners.close(self.port)
        await self.refused(self.port)

    async def test_own_port_again(self) -> None:
        """
        A port that was closed may be opened at once, also while connections
        that came to it are open.
        """
        self.listeners.open(self.port)
        await self.dial(self.port)
        self.listeners.close(self.port)
        self.listeners.open(self.port)
        await self.dial(self.port)

    def test_own_port_is_taken(self) -> None:
        """
        A port that somebody else has is rejected, and may be asked for again.
        """
        for _ in range(2):
            with self.assertRaises(Rejection) as caught:
                self.listeners.open(self.factory.port)
            self.assertIs(caught.exception.code, Code.PORT_TAKEN)
            self.assertIn(str(self.factory.port), caught.exception.reason)

    async def test_stop(self) -> None:
        """
        Ports of servers' own close with the others.
        """
        self.listeners.open(self.port)
        await self.listeners.stop()
        await self.refused(self.port)


class InheritedTests(RunningCase):
    """
    Sockets of the UNIX domain that another process has left.
    """

    def setUp(self) -> None:
        super().setUp()
        # Not below the test's own directory: the name of a socket has at most 107 bytes.
        self.directory = mkdtemp()
        self.addCleanup(shutil.rmtree, self.directory)
        self.edges = EdgeWatch(reactor)
        self.addCleanup(self.edges.close)
        self.factory = self.target(hello_page)
        left = {name: self.left(name) for name in ("one", "two")}
        self.inheritance = Inheritance(shared={self.endpoint(name): left[name] for name in left})
        self.listeners = Listeners(reactor, self.edges, self.inheritance)

    def endpoint(self, name: str) -> str:
        return f"unix:{self.directory}/{name}"

    def left(self, name: str) -> int:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(f"{self.directory}/{name}")
            sock.listen()
            os.symlink("4194305", f"{self.directory}/{name}.lock")  # no process has that
            return sock.detach()

    def there(self) -> set[str]:
        return set(os.listdir(self.directory))

    async def test_not_taken_over(self) -> None:
        """
        A process that never takes over leaves them as they are, and removes
        what it has made itself.
        """
        before = self.there()
        for name in ("one", "new"):
            self.listeners.listen(self.endpoint(name), self.factory, shared=True)
        await self.listeners.stop()
        self.assertEqual(self.there(), before)

    async def test_taken_over(self) -> None:
        """
        One that does removes in the end what it has used, and what it has not.
        """
        self.listeners.listen(self.endpoint("one"), self.factory, shared=True)
        self.listeners.resume()
        self.assertEqual(os.readlink(f"{self.directory}/one.lock"), str(os.getpid()))
        self.listeners.close_inherited()
        self.assertEqual(self.there(), {"one", "one.lock"})
        await self.listeners.stop()
        self.assertEqual(self.there(), set())

    async def test_wanted_later(self) -> None:
        """
        One that is wanted after that is had as well, under its name or another.
        """
        self.listeners.resume()
        self.listeners.listen(self.endpoint("one"), self.factory, shared=True)
        again = self.endpoint("two") + ":mode=600"
        self.listeners.listen(again, self.factory, shared=True)
        self.listeners.close_inherited()
        self.assertEqual(self.there(), {"one", "one.lock", "two", "two.lock"})
        await self.listeners.stop()
        self.assertEqual(self.there(), set())

    async def test_handed_over(self) -> None:
        """
        One that hands over to the next leaves them, too.
        """
        self.listeners.listen(self.endpoint("one"), self.factory, shared=True)
        self.listeners.resume()
        self.listeners.close_inherited()
        self.listeners.pause(agents=True)
        self.listeners.handed_over()
        await self.listeners.stop()
        self.assertEqual(self.there(), {"one", "one.lock"})


class AddressTests(SynchronousTestCase):
    """
    What people type.
    """

    def test_name(self) -> None:
        """
        A server is in front of the relay's name, with the port unless it is
        that of HTTP.
        """
        say = addresses("relay.example", (80, 8000))
        self.assertEqual(
            say("web", Reach("name")),
            ("http://web.relay.example/", "http://web.relay.example:8000/"),
        )

    def test_host(self) -> None:
        """
        A host name stands for itself.
        """
        say = addresses("relay.example", (8000,))
        self.assertEqual(say("web", Reach("host", "www.example")), ("http://www.example:8000/",))

    def test_port(self) -> None:
        """
        A port of its own is at the relay's name.
        """
        say = addresses("relay.example", (8000,))
        self.assertEqual(say("web", Reach("port", "20001")), ("tcp://relay.example:20001",))

    def test_address(self) -> None:
        """
        Nothing can stand in front of an address: the header is told.
        """
        say = addresses("192.0.2.1", (8000,))
        (told,) = say("web", Reach("name"))
        self.assertEqual(told, "http://192.0.2.1:8000/ with the header 'Host: web'")

    def test_address_of_six(self) -> None:
        """
        An IPv6 address stands in brackets.
        """
        say = addresses("2001:db8::1", (8000,))
        self.assertEqual(say("web", Reach("port", "20001")), ("tcp://[2001:db8::1]:20001",))
        self.assertIn("http://[2001:db8::1]:8000/", say("web", Reach("name"))[0])

    def test_no_tcp(self) -> None:
        """
        Where clients come by something else than TCP there is nothing to type.
        """
        self.assertEqual(addresses("relay.example", (0,))("web", Reach("name")), ())
