"""
What every splice engine has to keep, whatever the channels it joins.

L{SpliceContract} runs one engine between two real connections.  A subclass
says how the engine is made and which kinds of channels it joins; the far ends
are sockets that nothing of Twisted moves.
"""

from __future__ import annotations

import fcntl
import gc
import hashlib
import random
import socket
import struct
import termios
import weakref
from typing import Any

from zope.interface import implementer
from zope.interface.verify import verifyObject

from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.task import Clock

from relaytunnel.channel.framed import DataChannel
from relaytunnel.channel.hangup import HangupWatch
from relaytunnel.channel.tcp import TCPChannel, socket_of
from relaytunnel.config.limits import Limits
from relaytunnel.interfaces import IRunningSplice, ISpliceEngine
from relaytunnel.splice import SpliceReport
from tests.channel import FramedPeer, Peer, SocketTestCase, pause_for, reactor, until

__all__ = ["FRAMED", "TCP", "SpliceContract", "stream"]

TCP = "tcp"
FRAMED = "framed"

_MIB = 1024 * 1024
_MOST_IN_USER_SPACE = 256 * 1024
_SMALL = 16 * 1024
"""A kernel buffer that is full soon."""


def stream(size: int, seed: int) -> bytes:
    """
    @return: random bytes, the same for the same seed.
    """
    return random.Random(seed).randbytes(size)  # noqa: S311  # for tests, not for secrets


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _queued(descriptor: int, which: int) -> int:
    """
    @return: bytes in a socket's receive queue (FIONREAD) or send queue
        (TIOCOUTQ), as the kernel counts them.
    """
    answer = fcntl.ioctl(descriptor, which, struct.pack("i", 0))
    return int(struct.unpack("i", answer)[0])


@implementer(IHandshakeListener)
class _JoinedChannel(DataChannel):
    """
    The relay's end of a data channel, at which a session begins at each JOIN.
    """

    def handshakeCompleted(self) -> None:
        """
        Wait for JOIN.
        """


class _Side:
    """
    One of the two channels that are joined, and its far end.
    """

    channel: Any = None
    descriptor = -1

    def __init__(self, peer: Peer) -> None:
        self.peer = peer


class SpliceContract(SocketTestCase):
    """
    The contract.  Names: C{first} and C{second} are the far ends of the first
    and the second channel.

    @cvar kinds: which channels the engine joins.
    """

    kinds = (TCP, TCP)

    def make_engine(self) -> Any:
        """
        @return: the L{ISpliceEngine} under test.
        """
        raise NotImplementedError

    def setUp(self) -> None:
        super().setUp()
        self.hangups = HangupWatch(reactor)
        self.limits = Limits(idle=3600, half_closed=60, linger_idle=1, linger=5, close=2)
        self.clock: Any = reactor

    async def tearDown(self) -> None:  # type: ignore[override]
        self.hangups.close()
        self.sides: list[_Side] = []
        await super().tearDown()

    # The topology

    async def connect(self, kind: str, buffer: int = 0) -> _Side:
        """
        @return: a channel of this kind and its far end, joined and silent.
        """
        made: list[Any] = []
        if kind == TCP:
            port = self.listen(
                lambda: TCPChannel(reactor, self.limits, self.hangups, made.append),
                buffer=buffer,
            )
            side = _Side(self.peer(port, buffer, buffer))
        else:

            def joining(channel: DataChannel, ticket: bytes) -> None:
                self.data_channels.append(channel)
                made.append(channel.begin())

            def make() -> DataChannel:
                channel = _JoinedChannel(reactor, self.limits, self.hangups)
                channel.joining = joining
                channel.idle = self.parked.append
                return channel

            port = self.listen(make, tls=True, buffer=buffer)
            side = _Side(self.framed_peer(port, buffer, buffer))
        await until(lambda: made, side.peer, what="the connection")
        side.channel = made[0]
        transport = (
            side.channel.transport if kind == TCP else self.data_channels[-1].transport
        )
        sock = socket_of(transport)
        assert sock is not None
        side.descriptor = sock.fileno()
        return side

    async def join(self, buffer: int = 0) -> IRunningSplice:
        """
        Make the two connections and join them.

        @param buffer: how large the kernel's buffers are.
        """
        self.data_channels: list[DataChannel] = []
        self.parked: list[DataChannel] = []
        self.sides = [await self.connect(kind, buffer) for kind in self.kinds]
        self.first, self.second = (side.peer for side in self.sides)
        self.reports: list[SpliceReport] = []
        splice = self.make_engine().join(
            self.sides[0].channel, self.sides[1].channel, self.limits, self.clock
        )
        splice.done.addCallback(self.reports.append)
        return splice

    async def until(self, happened: Any, what: str = "", within: float = 15) -> None:
        await until(happened, self.first, self.second, what=what, within=within)

    async def report(self, within: float = 15) -> SpliceReport:
        await self.until(lambda: self.reports, "the report", within)
        self.assertEqual(len(self.reports), 1)
        return self.reports[0]

    async def pass_both_ways(self, there: bytes, back: bytes) -> SpliceReport:
        """
        Send, end, and receive, in both directions at once.
        """
        self.first.send(there)
        self.second.send(back)
        self.first.end()
        self.second.end()
        await self.until(lambda: self.first.over and self.second.over, "both ends")
        self.assert_received(self.second, there)
        self.assert_received(self.first, back)
        return await self.report()

    def assert_received(self, peer: Peer, data: bytes) -> None:
        self.assertEqual(peer.received, len(data))
        self.assertEqual(peer.digest, _sha256(data))
        self.assertTrue(peer.ended)

    def far(self, kind: str) -> tuple[Peer, Peer] | None:
        """
        @return: a peer of a channel of this kind and the one across, if there
            is such a channel.
        """
        if kind not in self.kinds:
            return None
        at = self.kinds.index(kind)
        return self.sides[at].peer, self.sides[1 - at].peer

    async def stall(self, peer: Peer, across: Peer) -> bytes:
        """
        Let C{across} send to a C{peer} that does not read, until nothing moves.

        @return: what is being sent.
        """
        peer.reading = False
        data = stream(6 * _MIB, 7)
        across.send(data)
        sent = -1
        while sent != across.sent:
            sent = across.sent
            await pause_for(0.15, self.first, self.second)
        self.assertLess(sent, len(data))
        return data

    # Bytes and their order

    async def test_interfaces(self) -> None:
        """
        The engine and its splices are what everybody takes them for.
        """
        splice = await self.join()
        self.assertTrue(verifyObject(ISpliceEngine, self.make_engine()))
        self.assertTrue(verifyObject(IRunningSplice, splice))
        splice.close()

    async def test_nothing_at_all(self) -> None:
        """
        Two ends without a byte before them are passed on.
        """
        await self.join()
        report = await self.pass_both_ways(b"", b"")
        self.assertEqual((report.forward, report.backward, report.reason), (0, 0, "clean"))

    async def test_sizes(self) -> None:
        """
        Streams of all sizes arrive as they were sent, in both directions.
        """
        for seed, (there, back) in enumerate(
            [(1, 0), (0, 1), (16381, 16382), (65536, 65537), (1_000_003, 131_071)]
        ):
            await self.join()
            report = await self.pass_both_ways(stream(there, seed), stream(back, seed + 100))
            self.assertEqual((report.forward, report.backward), (there, back))
            self.assertEqual(report.reason, "clean")

    async def test_large(self) -> None:
        """
        8 MiB pass in both directions at once.
        """
        await self.join()
        await self.pass_both_ways(stream(8 * _MIB, 1), stream(8 * _MIB, 2))

    async def test_tiny_writes(self) -> None:
        """
        A byte or a few at a time come through in order, each when it is sent.
        """
        await self.join()
        chance = random.Random(3)  # noqa: S311
        there, back = stream(600, 4), stream(600, 5)
        at = 0
        while at < 600:
            step = at + chance.randint(1, 9)
            self.first.send(there[at:step])
            self.second.send(back[at:step])
            at = min(step, 600)
            await self.until(lambda at=at: self.second.received == self.first.received == at)
        report = await self.pass_both_ways(b"", b"") if False else None
        self.first.end()
        self.second.end()
        report = await self.report()
        self.assertEqual(report.reason, "clean")
        self.assert_received(self.second, there)
        self.assert_received(self.first, back)

    # Backpressure

    async def _test_stalled(self, reader: int) -> None:
        splice = await self.join(buffer=_SMALL)
        peer, across = self.sides[reader], self.sides[1 - reader]
        data = await self.stall(peer.peer, across.peer)
        in_kernel = (
            _queued(across.peer.sock.fileno(), termios.TIOCOUTQ)
            + _queued(across.descriptor, termios.FIONREAD)
            + _queued(peer.descriptor, termios.TIOCOUTQ)
            + _queued(peer.peer.sock.fileno(), termios.FIONREAD)
        )
        in_user_space = across.peer.sent - in_kernel
        self.assertLessEqual(in_user_space, _MOST_IN_USER_SPACE)
        # The other direction does not wait for this one.
        peer.peer.send(b"still here")
        await self.until(lambda: across.peer.received == 10, "the other direction")

        peer.peer.reading = True
        across.peer.end()
        await self.until(lambda: peer.peer.ended, "all of it")
        self.assert_received(peer.peer, data)
        peer.peer.end()
        report = await self.report()
        self.assertEqual(report.reason, "clean")
        self.assertEqual(
            (splice.forward, splice.backward), (10, len(data)) if reader == 0 else (len(data), 10)
        )

    async def test_second_stalls(self) -> None:
        """
        While the second peer does not read, the first is made to wait, within
        the bound; later everything arrives.
        """
        await self._test_stalled(1)

    async def test_first_stalls(self) -> None:
        """
        The same in the other direction.
        """
        await self._test_stalled(0)

    async def test_both_stall(self) -> None:
        """
        Two peers that do not read do not lock each other out for good.
        """
        await self.join(buffer=_SMALL)
        self.first.reading = self.second.reading = False
        there, back = stream(3 * _MIB, 8), stream(3 * _MIB, 9)
        self.first.send(there)
        self.second.send(back)
        await pause_for(0.3, self.first, self.second)
        self.first.reading = True
        await pause_for(0.1, self.first, self.second)
        self.second.reading = True
        report = await self.pass_more(there, back)
        self.assertEqual(report.reason, "clean")

    async def pass_more(self, there: bytes, back: bytes) -> SpliceReport:
        self.first.end()
        self.second.end()
        await self.until(lambda: self.first.over and self.second.over, "both ends")
        self.assert_received(self.second, there)
        self.assert_received(self.first, back)
        return await self.report()

    async def test_stalled_behind_the_end(self) -> None:
        """
        What was sent before an end is not lost because its reader is slow.
        """
        await self.join(buffer=_SMALL)
        self.second.reading = False
        data = stream(150_000, 10)
        self.first.send(data)
        self.first.end()
        self.second.end()
        await pause_for(0.3, self.first, self.second)
        self.second.reading = True
        await self.until(lambda: self.second.over, "the end")
        self.assert_received(self.second, data)
        self.assertEqual((await self.report()).reason, "clean")

    # Half-close

    async def _test_half_close(self, asks: int) -> None:
        splice = await self.join()
        client, server = self.sides[asks].peer, self.sides[1 - asks].peer
        client.send(b"give me all you have")
        client.end()
        await self.until(lambda: server.ended, "the end of the question")
        self.assertFalse(client.over)
        answer = stream(20 * _MIB, 11)
        server.send(answer)
        server.end()
        await self.until(lambda: client.over, "the answer")
        self.assert_received(client, answer)
        self.assertEqual((await self.report()).reason, "clean")
        counts = (splice.forward, splice.backward)
        self.assertEqual(counts if asks == 0 else counts[::-1], (20, 20 * _MIB))

    async def test_first_half_closes(self) -> None:
        """
        The first ends its question and still reads an answer of 20 MiB.
        """
        await self._test_half_close(0)

    async def test_second_half_closes(self) -> None:
        """
        The same from the second.
        """
        await self._test_half_close(1)

    # Reset

    async def _test_reset(self, who: int) -> None:
        await self.join()
        one, other = self.sides[who].peer, self.sides[1 - who].peer
        one.send(b"some")
        await self.until(lambda: other.received == 4)
        one.reset()
        await self.until(lambda: other.over, "the reset", within=2)
        self.assertTrue(other.was_reset)
        self.assertFalse(other.ended)
        if isinstance(other, FramedPeer):
            self.assertTrue(other.reset_frame)
        report = await self.report()
        self.assertEqual(report.reason, "first reset" if who == 0 else "second reset")

    async def test_first_resets(self) -> None:
        """
        A reset of the first arrives at the second as a reset, never as an end.
        """
        await self._test_reset(0)

    async def test_second_resets(self) -> None:
        """
        A reset of the second arrives at the first as a reset.
        """
        await self._test_reset(1)

    async def _test_reset_of_paused(self, who: int) -> None:
        await self.join(buffer=_SMALL)
        one, other = self.sides[who].peer, self.sides[1 - who].peer
        await self.stall(other, one)
        # Tell it apart from frames: the transport itself is reset.
        Peer.reset(one)
        report = await self.report(within=1)
        self.assertIn(report.reason.split()[0], ("first", "second")[who])
        other.reading = True
        await self.until(lambda: other.over or other.sock.fileno() < 0, "the reset")
        self.assertTrue(other.was_reset)
        self.assertFalse(other.ended)

    async def test_first_resets_while_paused(self) -> None:
        """
        A reset is noticed within a second although nobody reads from there.
        """
        await self._test_reset_of_paused(0)

    async def test_second_resets_while_paused(self) -> None:
        """
        The same for the second.
        """
        await self._test_reset_of_paused(1)

    async def _test_reset_while_sent_to(self, who: int) -> None:
        await self.join(buffer=_SMALL)
        one, other = self.sides[who].peer, self.sides[1 - who].peer
        await self.stall(one, other)
        Peer.reset(one)
        await self.until(lambda: other.over, "the reset", within=2)
        self.assertTrue(other.was_reset)
        self.assertFalse(other.ended)
        self.assertNotEqual((await self.report()).reason, "clean")

    async def test_first_resets_while_sent_to(self) -> None:
        """
        A reset is a reset also when it is a write that finds out.
        """
        await self._test_reset_while_sent_to(0)

    async def test_second_resets_while_sent_to(self) -> None:
        """
        The same for the second.
        """
        await self._test_reset_while_sent_to(1)

    async def _test_reset_behind_end(self, who: int) -> None:
        await self.join(buffer=_SMALL)
        one, other = self.sides[who].peer, self.sides[1 - who].peer
        other.reading = False
        data = stream(150_000, 12)
        one.send(data)
        one.end()
        await self.until(lambda: one.all_sent, "what there is to send")
        # Past what the kernel holds the splice must read on; wait until it did.
        await self.until(
            lambda: sum((self.splice_counts())) == len(data), "the end to be taken", within=5
        )
        await pause_for(0.05, one)
        Peer.reset(one)
        await pause_for(0.2)
        other.reading = True
        await self.until(lambda: other.over, "all of it")
        self.assert_received(other, data)

    def splice_counts(self) -> tuple[int, int]:
        return self.splice.forward, self.splice.backward

    # Whoever is gone, and what is still to be delivered

    async def _test_answer_and_gone(self, who: int, size: int, half_close: bool) -> None:
        await self.join(buffer=_SMALL)
        server, client = self.sides[who].peer, self.sides[1 - who].peer
        server.reading = False
        client.send(stream(2 * _MIB, 13))
        await pause_for(0.2, self.first, self.second)
        answer = stream(size, 14)
        server.send(answer)
        await self.until(lambda: server.all_sent, "the answer to be sent")
        if half_close:
            server.end()
            await self.until(lambda: server.all_sent, "the end to be sent")
        await pause_for(0.05, client)
        server.close()
        await self.until(
            lambda: client.received == size, f"the answer ({client.received} of {size})"
        )
        self.assertEqual(client.digest, _sha256(answer))
        if half_close:
            await self.until(lambda: client.ended, "its end")
        await self.report()

    async def test_closed_with_unread_input(self) -> None:
        """
        A server turns an upload down, ends, and closes with most of it unread
        (and so with a reset behind its end): the client gets all of the answer.
        """
        if self.kinds[1] == TCP:
            await self._test_answer_and_gone(1, 100_000, True)
        if self.kinds[0] == TCP:
            await self._test_answer_and_gone(0, 100_000, True)
