"""
Noticing that a peer is gone while nobody reads from it.
"""

from __future__ import annotations

import socket
import struct

from zope.interface.verify import verifyObject

from twisted.internet.interfaces import IReadDescriptor

from relaytunnel.channel.edges import HANGUP, EdgeWatch, clean_end_before_reset
from tests.channel import Sockets, pause_for, reactor, until


class HangupTests(Sockets):
    """
    Sockets that nobody reads, and their peers.
    """

    async def setUp(self) -> None:  # type: ignore[override]
        await super().setUp()
        self.watch = EdgeWatch(reactor)
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
