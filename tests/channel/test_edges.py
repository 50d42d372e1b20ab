"""
Noticing that a peer is gone while nobody reads from it.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import time
from functools import partial
from typing import Any

from zope.interface.verify import verifyObject

from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure

import tests.kqueue
from relaytunnel.channel import edges
from relaytunnel.channel.edges import HANGUP, IN, EdgeWatch, clean_end_before_reset
from tests.channel import Sockets, pause_for, reactor, until


class HangupTests(Sockets):
    """
    Sockets that nobody reads, and their peers.

    @cvar machine: where the kernel's queue of events is found.
    """

    machine: Any = select

    async def setUp(self) -> None:  # type: ignore[override]
        await super().setUp()
        self.watch = EdgeWatch(reactor, self.machine)
        self.hung_up: list[int] = []
        """The events, as they were told."""
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen()
            self.far = socket.create_connection(listening.getsockname())
            self.near, _ = listening.accept()
        self.near.setblocking(False)
        self.number = self.near.fileno()

    async def tearDown(self) -> None:  # type: ignore[override]
        self.watch.close()
        self.near.close()
        self.far.close()
        await super().tearDown()

    def start(self) -> None:
        self.watch.watch(self.number, self.hung_up.append, HANGUP)

    def reset(self) -> None:
        self.far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.far.close()

    async def test_interface(self) -> None:
        """
        It is a reader of the reactor.
        """
        self.assertTrue(verifyObject(IReadDescriptor, self.watch))
        self.assertTrue(self.watch.logPrefix())

    async def test_data_is_no_hangup(self) -> None:
        """
        Bytes that come in call nobody.
        """
        self.start()
        self.far.sendall(b"here I am")
        await pause_for(0.1)
        self.assertEqual(self.hung_up, [])

    async def test_reset(self) -> None:
        """
        A reset is noticed within a second, though nobody reads.
        """
        self.start()
        self.far.sendall(b"unread")
        self.reset()
        await until(lambda: self.hung_up, within=1)
        self.assertIs(clean_end_before_reset(self.near), False)

    async def test_end(self) -> None:
        """
        So is an end, which is no reset.
        """
        self.start()
        self.far.shutdown(socket.SHUT_WR)
        await until(lambda: self.hung_up, within=1)
        self.assertIsNone(clean_end_before_reset(self.near))

    async def test_end_then_reset(self) -> None:
        """
        A reset behind an end calls once more, and can be told from any other.
        """
        self.start()
        self.far.shutdown(socket.SHUT_WR)
        await until(lambda: self.hung_up, within=1)
        self.hung_up.clear()
        self.near.send(b"unread over there")
        await pause_for(0.02)
        self.far.close()
        await until(lambda: self.hung_up, within=1)
        self.assertIs(clean_end_before_reset(self.near), True)
        self.assertIsNone(clean_end_before_reset(self.near), "asking clears it")

    async def test_already_hung_up(self) -> None:
        """
        Who is gone before the watch begins is noticed at once.
        """
        self.reset()
        self.start()
        await until(lambda: self.hung_up, within=1)

    async def test_armed_anew(self) -> None:
        """
        An end calls once; watching again calls again.
        """
        self.start()
        self.far.shutdown(socket.SHUT_WR)
        await until(lambda: self.hung_up, within=1)
        await pause_for(0.1)
        self.assertEqual(len(self.hung_up), 1)
        self.start()
        await until(lambda: len(self.hung_up) == 2, within=1)

    async def test_forgotten(self) -> None:
        """
        Nobody is called for a descriptor that was forgotten, before or after
        it was closed, or twice.
        """
        self.start()
        self.watch.forget(self.number)
        self.watch.forget(self.number)
        self.reset()
        await pause_for(0.1)
        self.start()
        self.near.close()
        self.watch.forget(self.number)
        await pause_for(0.1)
        self.assertEqual(self.hung_up, [])

    async def test_closed_meanwhile(self) -> None:
        """
        One that is called may close the watch.
        """

        def hung_up(events: int) -> None:
            self.hung_up.append(self.number)
            self.watch.close()

        self.watch.watch(self.number, hung_up, HANGUP)
        self.reset()
        await until(lambda: self.hung_up, within=1)
        self.watch.close()
        self.start()
        self.assertEqual(self.watch.fileno(), -1)

    async def test_no_such_reactor(self) -> None:
        """
        With a reactor that has no descriptors it watches nothing, quietly.
        """
        watch = EdgeWatch(object())
        watch.watch(self.number, self.fail)
        watch.forget(self.number)
        watch.close()


class KqueueHangupTests(HangupTests):
    """
    The same on BSD and macOS.
    """

    machine = tests.kqueue


class _Ball:
    """
    A byte that goes back and forth between two sockets of the watch for ever.

    @ivar passes: how often it was passed on.
    """

    def __init__(self, watch: EdgeWatch) -> None:
        self._watch = watch
        self.passes = 0
        self.socks = socket.socketpair()
        for sock in self.socks:
            sock.setblocking(False)
            watch.watch(sock.fileno(), partial(self._pass, sock), IN)
        self.socks[0].send(b".")

    def _pass(self, sock: socket.socket, events: int) -> None:
        with contextlib.suppress(BlockingIOError):
            sock.send(sock.recv(1))
            self.passes += 1

    def close(self) -> None:
        for sock in self.socks:
            self._watch.closed(sock.fileno())
            sock.close()


class BusyTests(Sockets):
    """
    A watch with more to do than it can.
    """

    async def setUp(self) -> None:  # type: ignore[override]
        await super().setUp()
        self.watch = EdgeWatch(reactor)
        self.ball = _Ball(self.watch)

    async def tearDown(self) -> None:  # type: ignore[override]
        self.ball.close()
        self.watch.close()
        await super().tearDown()

    async def test_delayed_calls(self) -> None:
        """
        Delayed calls are in time all the same, within what a watch stays
        before the reactor has a turn and what a busy machine adds.
        """
        late = []
        for _ in range(20):
            due = reactor.seconds() + 0.01
            await deferLater(reactor, 0.01)
            late.append(reactor.seconds() - due)
        self.assertGreater(self.ball.passes, 20)
        self.assertLess(sorted(late)[len(late) // 2], 0.1)

    async def test_readers(self) -> None:
        """
        What the reactor reads itself is read, too.
        """
        made: list[_Hears] = []

        def make() -> _Hears:
            made.append(_Hears())
            return made[-1]

        def heard(size: int) -> bool:
            return bool(made) and len(made[0].heard) == size

        with socket.create_connection(("127.0.0.1", self.listen(make))) as client:
            for number in range(1, 6):
                client.sendall(b"hello")
                await until(partial(heard, 5 * number), what="what the client says")
        await until(lambda: made[0].lost, what="its end")
        self.assertGreater(self.ball.passes, 5)

    async def test_threads(self) -> None:
        """
        Another thread can call the reactor.
        """
        self.assertEqual(await deferToThread(lambda: "from elsewhere"), "from elsewhere")


class AwakeTests(Sockets):
    """
    A watch whose events come soon after each other.
    """

    async def setUp(self) -> None:  # type: ignore[override]
        await super().setUp()
        self.yields = 0
        self.patch(edges, "_others_first", self._yield)
        self.patch(edges, "_SOON", 0.02)
        self.watch = EdgeWatch(reactor)
        self.near, self.far = socket.socketpair()
        self.heard = b""
        self.near.setblocking(False)
        self.watch.watch(self.near.fileno(), self._hear, IN)

    async def tearDown(self) -> None:  # type: ignore[override]
        self.watch.closed(self.near.fileno())
        self.watch.close()
        self.near.close()
        self.far.close()
        await super().tearDown()

    def _yield(self) -> None:
        self.yields += 1
        time.sleep(0.0002)

    def _hear(self, events: int) -> None:
        self.heard += self.near.recv(100)

    async def _speak(self, times: int, pause: float) -> None:
        def speak() -> None:
            for _ in range(times):
                self.far.sendall(b".")
                time.sleep(pause)

        await deferToThread(speak)
        await until(lambda: len(self.heard) == times, what="all of it")

    async def test_soon(self) -> None:
        """
        Between them it does not sleep, and lets others have the processor.
        """
        await self._speak(200, 0.001)
        self.assertGreater(self.yields, 0)

    async def test_not_soon(self) -> None:
        """
        It sleeps when they are further apart.
        """
        self.patch(edges, "_SOON", 0.0)
        await self._speak(20, 0.005)
        self.assertEqual(self.yields, 0)

    async def test_cannot_yield(self) -> None:
        """
        Where nobody else could have the processor it always sleeps.
        """
        self.patch(edges, "_others_first", None)
        await self._speak(50, 0.001)
        self.assertEqual(self.yields, 0)


class _Hears(Protocol):
    """
    Remembers what it hears.
    """

    def __init__(self) -> None:
        self.heard = b""
        self.lost = False

    def dataReceived(self, data: bytes) -> None:
        self.heard += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = True
