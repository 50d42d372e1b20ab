"""
What the queues of different kernels tell of a socket is the same.
"""

from __future__ import annotations

import os
import select
import socket
import struct
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

import tests.kqueue
from relaytunnel.channel.queues import (
    HANGUP,
    IN,
    LOST,
    OUT,
    EventQueue,
    KernelQueue,
    queue_of,
)
from tests.kqueue import KQ_EV_EOF, KQ_FILTER_READ, KQ_FILTER_WRITE, kevent

EVERYTHING = IN | OUT | HANGUP


class _Queue:
    """
    A queue that watches one of two connected sockets.
    """

    def make(self) -> EventQueue:
        raise NotImplementedError

    def setUp(self) -> None:
        self.queue = self.make()
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen()
            self.far = socket.create_connection(listening.getsockname())
            self.near, _ = listening.accept()
        self.near.setblocking(False)
        self.number = self.near.fileno()

    def tearDown(self) -> None:
        self.queue.close()
        self.near.close()
        self.far.close()

    def told(self) -> int:
        """
        @return: the events of our socket; 0 if there are none.
        """
        return dict(self.queue.poll(0.1, 16)).get(self.number, 0)

    def test_once(self: Any) -> None:
        """
        What there is already is told, once, and each change after that.
        """
        self.far.sendall(b"a")
        self.queue.register(self.number, EVERYTHING)
        self.assertEqual(self.told(), IN | OUT)
        self.assertEqual(self.told(), 0)
        self.far.sendall(b"b")
        self.assertTrue(self.told() & IN)
        self.assertEqual(self.told(), 0)

    def test_armed_anew(self: Any) -> None:
        """
        Whoever asks again is told again, of what was asked for only.
        """
        self.far.sendall(b"a")
        self.queue.register(self.number, EVERYTHING)
        self.told()
        self.queue.modify(self.number, IN)
        self.assertEqual(self.told(), IN)
        self.queue.modify(self.number, OUT)
        self.assertEqual(self.told(), OUT)
        self.queue.modify(self.number, HANGUP)
        self.assertEqual(self.told(), 0)

    def test_twice(self: Any) -> None:
        """
        A descriptor is in it once.
        """
        self.queue.register(self.number, IN)
        self.assertRaises(FileExistsError, self.queue.register, self.number, OUT)

    def test_unregistered(self: Any) -> None:
        """
        Nothing is told of one that was taken out.
        """
        self.queue.register(self.number, EVERYTHING)
        self.queue.unregister(self.number)
        self.far.sendall(b"a")
        self.assertEqual(self.told(), 0)
        self.assertRaises(OSError, self.queue.unregister, self.number)

    def test_end(self: Any) -> None:
        """
        The peer's end is a hangup, and ours behind it loses the connection.
        """
        self.queue.register(self.number, EVERYTHING)
        self.told()
        self.far.shutdown(socket.SHUT_WR)
        events = self.told()
        self.assertTrue(events & HANGUP and events & IN)
        self.assertFalse(events & LOST)
        self.near.shutdown(socket.SHUT_WR)
        self.assertTrue(self.told() & LOST)

    def test_reset(self: Any) -> None:
        """
        So does a reset, whatever was asked for.
        """
        self.queue.register(self.number, HANGUP)
        self.far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.far.close()
        self.assertTrue(self.told() & LOST)

    def test_number_of_another(self: Any) -> None:
        """
        A descriptor that was closed may be somebody else's next.
        """
        self.queue.register(self.number, HANGUP)
        one, other = socket.socketpair()
        with one, other:
            os.dup2(one.fileno(), self.number)
            try:
                self.queue.register(self.number, IN)
            except FileExistsError:
                self.queue.modify(self.number, IN)
            other.sendall(b"a")
            self.assertEqual(self.told(), IN)

    def test_readable(self: Any) -> None:
        """
        The queue can be watched, too, while it is open.
        """
        self.queue.register(self.number, IN)
        poll = select.poll()
        poll.register(self.queue.fileno(), select.POLLIN)
        self.assertEqual(poll.poll(0), [])
        self.far.sendall(b"a")
        self.assertTrue(poll.poll(1000))
        self.assertFalse(self.queue.closed)
        self.queue.close()
        self.assertTrue(self.queue.closed)


class EpollTests(_Queue, SynchronousTestCase):
    """
    Linux.
    """

    def make(self) -> EventQueue:
        queue = queue_of()
        assert queue is not None
        return queue


class KqueueTests(_Queue, SynchronousTestCase):
    """
    BSD and macOS.
    """

    def make(self) -> EventQueue:
        queue = queue_of(tests.kqueue)
        assert isinstance(queue, KernelQueue)
        return queue

    def test_own_end(self) -> None:
        """
        An end of ours ends the filter of writing, which is no loss.
        """
        self.queue.register(self.number, EVERYTHING)
        script = [kevent(self.number, KQ_FILTER_WRITE, KQ_EV_EOF)]
        self.patch(self.queue._queue, "control", lambda *_: script)  # type: ignore[attr-defined]
        self.assertEqual(self.queue.poll(0, 16), [(self.number, OUT)])
        script[:] = [kevent(self.number, KQ_FILTER_READ, KQ_EV_EOF)]
        self.assertEqual(self.queue.poll(0, 16), [(self.number, IN | HANGUP | LOST)])


class NoQueueTests(SynchronousTestCase):
    """
    Elsewhere.
    """

    def test_none(self) -> None:
        """
        There is none, and that is said.
        """
        self.assertIsNone(queue_of(object()))


del _Queue
