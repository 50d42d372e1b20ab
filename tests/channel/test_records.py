"""
TLS records by OpenSSL's own functions and by pyOpenSSL's methods: no difference.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from select import select
from typing import Any

from OpenSSL import SSL

from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.channel.records import (
    CAREFUL,
    DIRECT,
    RECORD,
    Calls,
    Memory,
    Stopped,
    calls_for,
    receiver,
    sender,
)
from relaytunnel.channel.tls import DATA, AgentTLS, RelayTLS
from tests.channel import identity


class _Pair:
    """
    A pair of established connections; the tests speak at one end.
    """

    def setUp(self) -> None:
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen()
            far = socket.create_connection(listening.getsockname())
            near, _ = listening.accept()
        self.socks = (near, far)
        for sock in self.socks:
            sock.setblocking(False)
            self.addCleanup(sock.close)
        self.near = RelayTLS(identity()).connection(near)
        self.far = AgentTLS("127.0.0.1", DATA, identity().pin).connection(far)
        waiting = {self.near, self.far}
        while waiting:
            for connection in list(waiting):
                try:
                    connection.do_handshake()
                    waiting.discard(connection)
                except SSL.WantReadError:
                    pass

    def heard(self, size: int) -> bytes:
        """
        @return: so many bytes, as the peer hears them.
        """
        came = b""
        while len(came) < size:
            try:
                came += self.far.recv(size - len(came))
            except SSL.WantReadError:
                self.assertTrue(select([self.socks[1]], [], [], 5)[0], "nothing comes")
        return came

    def reset(self) -> None:
        """
        Have the peer reset the connection.
        """
        self.socks[1].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socks[1].close()

    addCleanup: Any
    assertEqual: Any
    assertIs: Any
    assertLess: Any
    assertRaises: Any
    assertTrue: Any


class _Records(_Pair):
    """
    Records in a memory.
    """

    calls: Calls

    def setUp(self) -> None:
        super().setUp()
        self.memory = Memory(2)
        self.handle = self.calls.handle(self.near)

    def read(self, place: int = 0, size: int = RECORD) -> int:
        return self.calls.read(self.handle, self.memory.at[place], size)

    def write(self, size: int) -> int:
        return self.calls.write(self.handle, self.memory.at[0], size)

    def why(self, result: int) -> Stopped:
        self.assertLess(result, 1)
        return self.calls.why(self.handle, result)

    def test_read(self) -> None:
        """
        What has come stands where it was asked for, a record at a time.
        """
        self.far.send(b"first")
        self.far.send(b"second")
        self.assertEqual(self.read(1), 5)
        self.assertEqual(bytes(self.memory.view[RECORD : RECORD + 5]), b"first")
        self.assertEqual(self.read(), 6)
        self.assertEqual(bytes(self.memory.view[:6]), b"second")

    def test_nothing_to_read(self) -> None:
        """
        Nothing has come yet, and later something has.
        """
        self.assertIs(self.why(self.read()), Stopped.WANT_READ)
        self.far.send(b"now")
        self.assertEqual(self.read(), 3)

    def test_write(self) -> None:
        """
        A full record goes at once.
        """
        sent = bytes(range(256)) * (RECORD // 256)
        self.memory.view[:RECORD] = sent
        self.assertEqual(self.write(RECORD), RECORD)
        self.assertEqual(self.heard(RECORD), sent)

    def test_no_room(self) -> None:
        """
        A record that finds no room is sent when it is offered again, once.
        """
        self.memory.view[:RECORD] = bytes(RECORD)
        sent = 0
        while (result := self.write(RECORD)) > 0:
            sent += result
        self.assertIs(self.why(result), Stopped.WANT_WRITE)
        self.assertEqual(len(self.heard(sent)), sent)
        self.assertEqual(self.write(RECORD), RECORD)
        self.assertEqual(len(self.heard(RECORD)), RECORD)
        self.assertRaises(SSL.WantReadError, self.far.recv, RECORD)

    def test_end(self) -> None:
        """
        The peer has said that it sends nothing more.
        """
        self.far.shutdown()
        self.assertIs(self.why(self.read()), Stopped.OVER)

    def test_end_of_the_socket(self) -> None:
        """
        The peer has gone without a word.
        """
        self.socks[1].close()
        self.assertIs(self.why(self.read()), Stopped.OVER)

    def test_reset(self) -> None:
        """
        The peer has reset the connection: neither direction is of use.
        """
        self.reset()
        self.assertIs(self.why(self.write(5)), Stopped.OVER)
        self.assertIs(self.why(self.read()), Stopped.OVER)

    def test_garbage(self) -> None:
        """
        What comes in is no TLS; another connection of this process does not
        take the error for its own.
        """
        case: Any = type(self)
        other = case("test_nothing_to_read")
        other.setUp()
        self.addCleanup(other.doCleanups)
        self.socks[1].send(b"\x17\x03\x03\x00\x20" + bytes(32))
        self.assertIs(self.why(self.read()), Stopped.OVER)
        self.assertIs(other.why(other.read()), Stopped.WANT_READ)


class DirectTests(_Records, SynchronousTestCase):
    """
    OpenSSL's own functions.
    """

    if DIRECT is None:
        skip = "this pyOpenSSL does not let one at them"
    else:
        calls = DIRECT


class CarefulTests(_Records, SynchronousTestCase):
    """
    pyOpenSSL's methods.
    """

    calls = CAREFUL


class _Bytes(_Pair):
    """
    Bytes and exceptions.
    """

    recv: Callable[[int], bytes]
    send: Callable[[bytes | memoryview], int]

    def test_recv(self) -> None:
        """
        What has come is read, a record at a time and no more than is asked for.
        """
        self.far.send(b"first")
        self.far.send(b"second")
        self.assertEqual(self.recv(3), b"fir")
        self.assertEqual(self.recv(RECORD), b"st")
        self.assertEqual(self.recv(10 * RECORD), b"second")
        self.assertRaises(SSL.WantReadError, self.recv, RECORD)

    def test_send(self) -> None:
        """
        Bytes and memory go, of whatever size.
        """
        for data in (b"first", memoryview(b"-second-")[1:-1], bytes(RECORD)):
            self.assertEqual(self.send(data), len(data))
            self.assertEqual(self.heard(len(data)), bytes(data))

    def test_send_much(self) -> None:
        """
        More than a record goes in part, or at once.
        """
        sent = self.send(bytes(RECORD + 5))
        self.assertTrue(RECORD <= sent <= RECORD + 5)
        self.assertEqual(self.heard(sent), bytes(sent))

    def test_no_room(self) -> None:
        """
        What finds no room is sent when it is offered again, once.
        """
        count = 0
        with self.assertRaises(SSL.WantWriteError):
            while True:
                count += self.send(bytes((count % 251,)) * 1000)
        self.assertEqual(len(self.heard(count)), count)
        again = bytes((count % 251,)) * 1000
        self.assertEqual(self.send(again), 1000)
        self.assertEqual(self.heard(1000), again)
        self.assertRaises(SSL.WantReadError, self.far.recv, RECORD)

    def test_end(self) -> None:
        """
        The peer has said that it sends nothing more.
        """
        self.far.shutdown()
        for _ in range(2):
            self.assertRaises(SSL.ZeroReturnError, self.recv, RECORD)
        self.assertEqual(self.send(b"still"), 5)

    def test_end_of_the_socket(self) -> None:
        """
        The peer has gone without a word.
        """
        self.socks[1].close()
        fault = self.assertRaises(SSL.Error, self.recv, RECORD)
        self.assertNotIsInstance(fault, (SSL.ZeroReturnError, SSL.WantReadError))

    def test_reset(self) -> None:
        """
        The peer has reset the connection, which whoever writes hears of, too.
        """
        self.reset()
        self.assertRaises(SSL.SysCallError, self.recv, RECORD)
        self.assertRaises(SSL.Error, self.send, b"more")

    def test_write_after_reset(self) -> None:
        """
        Whoever writes first hears of it first.
        """
        self.reset()
        for _ in range(2):
            self.assertRaises(SSL.Error, self.send, b"more")

    def test_garbage(self) -> None:
        """
        What comes in is no TLS, and the fault says so.
        """
        self.socks[1].send(b"\x17\x03\x03\x00\x20" + bytes(32))
        fault = self.assertRaises(SSL.Error, self.recv, RECORD)
        self.assertIn("bad record mac", str(fault))

    assertIn: Any
    assertNotIsInstance: Any


class QuickBytesTests(_Bytes, SynchronousTestCase):
    """
    Past pyOpenSSL, as far as that goes.
    """

    def setUp(self) -> None:
        super().setUp()
        self.recv, self.send = receiver(self.near), sender(self.near)

    def test_past(self) -> None:
        """
        It does.
        """
        self.assertIsNot(self.recv, self.near.recv)
        self.assertIsNot(self.send, self.near.send)


class OwnBytesTests(_Bytes, SynchronousTestCase):
    """
    pyOpenSSL's own methods, which these are to be like.
    """

    def setUp(self) -> None:
        super().setUp()
        self.recv, self.send = self.near.recv, self.near.send


class ChoiceTests(SynchronousTestCase):
    """
    Which of them is taken.
    """

    def test_fastest(self) -> None:
        """
        OpenSSL's own, wherever they are: on every version that we support.
        """
        self.assertIsNotNone(DIRECT)
        self.assertIs(calls_for(), DIRECT)
