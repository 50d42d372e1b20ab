"""
What every splice engine has to keep, whatever the channels it joins.

L{SpliceContract} runs one engine between two real connections.  A subclass
says how the engine is made and which kinds of channels it joins; the far ends
are sockets that nothing of Twisted moves.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import hashlib
import random
import select
import struct
import termios
import weakref
from typing import Any

from zope.interface import implementer
from zope.interface.verify import verifyObject

from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.task import Clock
from twisted.trial.unittest import FailTest

from relaytunnel.channel.edges import EdgeWatch
from relaytunnel.channel.framed import DataChannel
from relaytunnel.channel.stream import FramedStream
from relaytunnel.channel.tcp import TCPChannel, socket_of
from relaytunnel.config.limits import Limits
from relaytunnel.interfaces import IRunningSplice, ISpliceEngine
from relaytunnel.splice import SpliceReport
from tests.channel import FramedPeer, Peer, Sockets, pause_for, reactor, until

__all__ = ["FRAMED", "TCP", "SpliceCase", "SpliceContract", "stream"]

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
    return random.Random(seed).randbytes(size)


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


class SpliceCase(Sockets):
    """
    Two channels to join.  Names: C{first} and C{second} are the far ends of the first
    and the second channel.

    @cvar kinds: which channels the engine joins.
    @cvar own_tls: whether our end of TLS is a L{TLSConnection}.
    @cvar machine: where the kernel's queue of events is found.
    """

    kinds = (TCP, TCP)
    own_tls = False
    machine: Any = select

    def make_engine(self) -> Any:
        """
        @return: the L{ISpliceEngine} under test.
        """
        raise NotImplementedError

    async def setUp(self) -> None:  # type: ignore[override]
        await super().setUp()
        self.edges = EdgeWatch(reactor, self.machine)
        self.limits = Limits(idle=3600, half_closed=60, linger_idle=1, linger=5, close=2)
        self.clock: Any = reactor

    async def tearDown(self) -> None:  # type: ignore[override]
        for peer in self.peers:
            peer.close()
        with contextlib.suppress(FailTest):
            await until(lambda: not self.edges._watched, within=5)
        self.edges.close()
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
                lambda: TCPChannel(reactor, self.limits, self.edges, made.append),
                buffer=buffer,
            )
            side = _Side(self.peer(port, buffer, buffer))
        else:

            def joining(channel: DataChannel, ticket: bytes) -> None:
                self.data_channels.append(channel)
                made.append(channel.begin())
                self.begun(made[-1])

            def make() -> DataChannel:
                channel = _JoinedChannel(reactor, self.limits, self.edges)
                channel.joining = joining
                channel.idle = self.parked.append
                return channel

            edges = self.edges if self.own_tls else None
            port = self.listen(make, tls=True, buffer=buffer, edges=edges)
            side = _Side(self.framed_peer(port, buffer, buffer))
        await until(lambda: made, side.peer, what="the connection")
        side.channel = made.pop()
        transport = side.channel.transport if kind == TCP else self.data_channels[-1].transport
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
        splice: IRunningSplice = self.make_engine().join(
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
        return await self.pass_rest(there, back)

    async def pass_rest(self, there: bytes, back: bytes) -> SpliceReport:
        """
        End both directions, and receive all of this.
        """
        self.first.end()
        self.second.end()
        await self.until(lambda: self.first.over and self.second.over, "both ends")
        self.assert_received(self.second, there)
        self.assert_received(self.first, back)
        return await self.clean_report()

    async def clean_report(self) -> SpliceReport:
        """
        @return: the report of a splice that ended cleanly: nobody sees a reset
            behind the end, and a data channel may carry another session.
        """
        report = await self.report()
        await pause_for(0.02, self.first, self.second)
        self.assertEqual(report.reason, "clean")
        for peer in (self.first, self.second):
            self.assertFalse(peer.was_reset)
        self.assertEqual(self.parked, self.data_channels)
        self.assertTrue(all(channel.usable for channel in self.parked))
        return report

    def assert_received(self, peer: Peer, data: bytes) -> None:
        self.assertEqual(peer.received, len(data))
        self.assertEqual(peer.digest, _sha256(data))
        self.assertTrue(peer.ended)

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

    def begun(self, stream: FramedStream) -> None:
        """
        JOIN has come, and what is behind it is about to be read.
        """


class SpliceContract(SpliceCase):
    """
    The contract.
    """

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
        self.assertEqual((report.forward, report.backward), (0, 0))

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
        chance = random.Random(3)
        there, back = stream(600, 4), stream(600, 5)
        at = 0
        while at < 600:
            step = at + chance.randint(1, 9)
            self.first.send(there[at:step])
            self.second.send(back[at:step])
            at = min(step, 600)
            await self.until(lambda at=at: self.second.received == self.first.received == at)
        await self.pass_rest(there, back)

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
        await self.clean_report()
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
        await self.pass_rest(there, back)

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
        await self.clean_report()

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
        await self.clean_report()
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
        splice = await self.join(buffer=_SMALL)
        one, other = self.sides[who].peer, self.sides[1 - who].peer
        other.reading = False
        data = stream(60_000, 12)
        one.send(data)
        one.end()
        await self.until(lambda: splice.forward + splice.backward == len(data), "the counters")
        await pause_for(0.05, one)
        Peer.reset(one)
        await pause_for(0.2)
        other.reading = True
        await self.until(lambda: other.over, "all of it")
        self.assert_received(other, data)
        self.assertNotEqual((await self.report()).reason, "clean")

    async def test_first_resets_behind_end(self) -> None:
        """
        A reset of the first behind its clean end drops nothing before the end.
        """
        await self._test_reset_behind_end(0)

    async def test_second_resets_behind_end(self) -> None:
        """
        The same for the second.
        """
        await self._test_reset_behind_end(1)

    async def _test_reset_of_half_closed(self, who: int, ended: int) -> None:
        self.limits = Limits(linger_idle=0.1, linger=1, close=2)
        await self.join()
        one, other = self.sides[who].peer, self.sides[1 - who].peer
        self.sides[ended].peer.end()
        across = self.sides[1 - ended].peer
        await self.until(lambda: across.ended, "the end")
        Peer.reset(one)
        report = await self.report(within=1)
        self.assertNotEqual(report.reason, "clean")
        if ended == who and isinstance(other, FramedPeer):
            other.ended = False  # it reads on

        def lost() -> bool:
            if other.ended:
                other.send(b".")  # TCP tells of a reset behind an end only then
            return other.was_reset or other.broken_pipe

        await self.until(lost, "the reset", within=3)

    async def test_first_resets_behind_its_quiet_end(self) -> None:
        """
        Whoever has ended and then dies is missed within a second; the other,
        which has had the end, is reset after the linger limits at the latest.
        """
        await self._test_reset_of_half_closed(0, 0)

    async def test_second_resets_behind_its_quiet_end(self) -> None:
        """
        The same for the second.
        """
        await self._test_reset_of_half_closed(1, 1)

    async def test_first_resets_behind_the_end_of_second(self) -> None:
        """
        A reset is one for somebody who has ended before, too, within a second.
        """
        await self._test_reset_of_half_closed(0, 1)

    async def test_second_resets_behind_the_end_of_first(self) -> None:
        """
        The same for the second.
        """
        await self._test_reset_of_half_closed(1, 0)

    # Whoever is gone, and what is still to be delivered

    async def leave_behind(self, one: Peer) -> None:
        """
        Let one end, and be gone behind it: data for it is answered by a reset.
        """
        one.end()
        await until(
            lambda: one.all_sent and not _queued(one.sock.fileno(), termios.TIOCOUTQ),
            one,
            what="the end to be sent",
        )
        if isinstance(one, FramedPeer):
            one.reset()  # as does an agent whose server answers so
            await until(lambda: one.all_sent, one, what="the reset to be sent")
        else:
            one.close()

    def goes_on(self, peer: Peer) -> Any:
        """
        @return: lets this peer send on and on, and says whether it knows that
            nobody listens.
        """

        def knows() -> bool:
            if not peer.broken_pipe and peer.all_sent and not peer.was_reset:
                peer.send(bytes(20_000))
            return peer.broken_pipe or peer.was_reset

        return knows

    async def _test_gone(self, who: int) -> None:
        self.limits = Limits()
        await self.join()
        one, other = self.sides[who].peer, self.sides[1 - who].peer
        one.send(b"stop it")
        await self.leave_behind(one)
        await self.until(lambda: other.ended, "the end")
        self.assertEqual(other.received, 7)
        await self.until(self.goes_on(other), "the reset", within=3)
        if isinstance(other, FramedPeer):
            self.assertTrue(other.reset_frame)
        report = await self.report(within=3)
        self.assertEqual(report.reason, ("first reset", "second reset")[who])

    async def test_first_is_gone(self) -> None:
        """
        The first ends, and is gone: the second, which sends on and on, is told
        at once.
        """
        await self._test_gone(0)

    async def test_second_is_gone(self) -> None:
        """
        The same in the other direction.
        """
        await self._test_gone(1)

    async def _test_gone_before_all_is_taken(self, who: int, last: int = 0) -> None:
        self.limits = Limits()
        splice = await self.join(buffer=_SMALL)
        one, other = self.sides[who].peer, self.sides[1 - who].peer
        other.reading = False
        data = stream(60_000 + last, 16)
        one.send(data[:60_000])
        await self.until(lambda: splice.forward + splice.backward == 60_000, "the counters")
        one.send(data[60_000:])
        await self.leave_behind(one)
        goes_on = self.goes_on(other)
        began = reactor.seconds()
        while reactor.seconds() - began < 0.5:
            goes_on()
            await pause_for(0.02, other)
        self.assertEqual(self.reports, [])
        other.reading = True
        await self.until(lambda: other.over, "all of it")
        self.assertEqual((other.received, other.digest), (len(data), _sha256(data)))
        await self.until(goes_on, "the reset", within=3)
        self.assertNotEqual((await self.report(within=3)).reason, "clean")

    async def test_first_is_gone_before_all_is_taken(self) -> None:
        """
        Nor does it lose anything that the first said before its end, if it is
        slow to take it; until then the session is not over.
        """
        await self._test_gone_before_all_is_taken(0)

    async def test_second_is_gone_before_all_is_taken(self) -> None:
        """
        The same in the other direction.
        """
        await self._test_gone_before_all_is_taken(1)

    async def test_first_is_gone_when_it_is_held_up(self) -> None:
        """
        So it is where the first is held up by the very bytes before its end.
        """
        await self._test_gone_before_all_is_taken(0, 20_000)

    async def test_second_is_gone_when_it_is_held_up(self) -> None:
        """
        The same in the other direction.
        """
        await self._test_gone_before_all_is_taken(1, 20_000)

    async def _test_gone_and_nothing_taken(self, who: int) -> None:
        self.limits = Limits(linger_idle=0.5, linger=2)
        await self.join(buffer=_SMALL)
        one, other = self.sides[who].peer, self.sides[1 - who].peer
        await self.stall(other, one)
        if isinstance(one, FramedPeer):
            one._frames.clear()
            one.end()
        else:
            one.send(b"")
            Peer.end(one)
        goes_on = self.goes_on(other)
        # It is gone with its own bytes unread, but after its end.
        await pause_for(0.2, one)
        one.close()
        await self.until(goes_on, "the reset", within=5)
        self.assertNotEqual((await self.report(within=5)).reason, "clean")

    async def test_first_is_gone_and_nothing_is_taken(self) -> None:
        """
        A second that takes nothing is waited for no longer than the limit.
        """
        await self._test_gone_and_nothing_taken(0)

    async def test_second_is_gone_and_nothing_is_taken(self) -> None:
        """
        The same in the other direction.
        """
        await self._test_gone_and_nothing_taken(1)

    async def test_close_while_one_lingers(self) -> None:
        """
        Closed from outside, what lingers is given up, and it is over at once.
        """
        self.limits = Limits()
        splice = await self.join(buffer=_SMALL)
        self.second.reading = False
        self.first.send(stream(60_000, 17))
        await self.until(lambda: splice.forward == 60_000, "the counters")
        await self.leave_behind(self.first)
        await pause_for(0.1)
        self.second.send(bytes(1000))
        await pause_for(0.3, self.second)
        self.assertEqual(self.reports, [])
        splice.close()
        self.assertNotEqual((await self.report(within=1)).reason, "clean")

    async def _test_turned_down(self, who: int, half_close: bool) -> None:
        await self.join()
        server, client = self.sides[who].peer, self.sides[1 - who].peer
        server.reading = False
        client.send(stream(32 * _MIB, 13))
        await pause_for(0.2, self.first, self.second)
        self.assertFalse(client.all_sent)
        answer = stream(200_000 if half_close else 8000, 14)
        server.send(answer)
        if half_close:
            server.end()
        await until(
            lambda: server.all_sent and not _queued(server.sock.fileno(), termios.TIOCOUTQ),
            server,
            what="the answer to be sent",
        )
        if isinstance(server, FramedPeer) and not half_close:
            server.reset()
            await until(lambda: server.all_sent, server, what="the reset to be sent")
        else:
            server.close()
        await self.until(lambda: client.received == len(answer), "the answer")
        self.assertEqual(client.digest, _sha256(answer))
        await self.until(lambda: client.over, "what comes behind it")
        self.assertEqual((client.ended, client.was_reset), (half_close, not half_close))
        client.close()
        self.assertNotEqual((await self.report()).reason, "clean")

    async def test_second_turns_down_and_ends(self) -> None:
        """
        A server answers an upload, ends, and closes with most of it unread
        (so that a reset follows its end): the client gets all of the answer.
        """
        await self._test_turned_down(1, True)

    async def test_first_turns_down_and_ends(self) -> None:
        """
        The same in the other direction.
        """
        await self._test_turned_down(0, True)

    async def test_second_turns_down_and_is_gone(self) -> None:
        """
        A server answers an upload and closes at once with most of it unread,
        which is a reset: the client gets the answer, and then the reset.
        """
        await self._test_turned_down(1, False)

    async def test_first_turns_down_and_is_gone(self) -> None:
        """
        The same in the other direction.
        """
        await self._test_turned_down(0, False)

    async def test_truncated(self) -> None:
        """
        A TLS transport that ends without EOF is a reset, never a clean end.
        """
        if FRAMED not in self.kinds:
            return
        for behind in (0, 50_000):
            await self.join()
            at = self.kinds.index(FRAMED)
            one, other = self.sides[at].peer, self.sides[1 - at].peer
            assert isinstance(one, FramedPeer)
            one.send(stream(behind, 15))
            one.truncate()
            await self.until(lambda other=other: other.over, "the reset")
            self.assertTrue(other.was_reset)
            self.assertFalse(other.ended)
            reason = (await self.report()).reason
            self.assertEqual(reason, ("first truncated", "second truncated")[at])

    # What is known of it

    async def test_live_counters(self) -> None:
        """
        The counters say at any time what has passed.
        """
        splice = await self.join()
        self.assertEqual((splice.forward, splice.backward), (0, 0))
        self.first.send(b"12345")
        await self.until(lambda: self.second.received == 5)
        self.assertEqual((splice.forward, splice.backward), (5, 0))
        self.second.send(b"123")
        await self.until(lambda: self.first.received == 3)
        self.assertEqual((splice.forward, splice.backward), (5, 3))
        self.first.end()
        self.second.end()
        report = await self.report()
        self.assertEqual((report.forward, report.backward), (5, 3))
        self.assertEqual((splice.forward, splice.backward), (5, 3))

    async def test_duration(self) -> None:
        """
        The report says how long it took.
        """
        self.clock = Clock()
        await self.join()
        self.clock.advance(2.5)
        report = await self.pass_both_ways(b"a", b"b")
        self.assertEqual(report.duration, 2.5)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    # Limits

    async def assert_both_reset(self, reason: str) -> None:
        await self.until(lambda: self.first.over and self.second.over, "both resets")
        for peer in (self.first, self.second):
            self.assertTrue(peer.was_reset)
        self.assertEqual((await self.report()).reason, reason)
        if isinstance(self.clock, Clock):
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def tick(self, seconds: float) -> None:
        """
        Let the clock of the limits run.
        """
        self.clock.pump([seconds / 100] * 100)

    async def test_idle(self) -> None:
        """
        Without a byte in either direction it ends after the idle limit, with a
        reset for both; any byte keeps it on.
        """
        self.clock = Clock()
        self.limits = Limits(idle=100, half_closed=10)
        await self.join()
        self.tick(70)
        self.first.send(b"still here")
        await self.until(lambda: self.second.received == 10)
        self.tick(90)
        self.second.send(b"me too")
        await self.until(lambda: self.first.received == 6)
        self.tick(90)
        self.assertEqual(self.reports, [])
        self.tick(40)
        await self.assert_both_reset("idle")

    async def test_half_closed_idle(self) -> None:
        """
        When one direction has ended the other may be quiet for less.
        """
        self.clock = Clock()
        self.limits = Limits(idle=100, half_closed=10)
        await self.join()
        self.tick(50)
        self.second.end()
        await self.until(lambda: self.first.ended)
        self.tick(9)
        self.first.send(b"moment")
        await self.until(lambda: self.second.received == 6)
        self.tick(9)
        self.assertEqual(self.reports, [])
        self.tick(5)
        await self.until(lambda: self.second.was_reset, "the reset")
        self.assertEqual((await self.report()).reason, "half-closed idle")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    async def test_idle_while_stalled(self) -> None:
        """
        A reader that is stalled for longer than the idle limit ends it.
        """
        self.clock = Clock()
        self.limits = Limits(idle=100, half_closed=10)
        await self.join(buffer=_SMALL)
        await self.stall(self.second, self.first)
        self.tick(130)
        self.assertEqual((await self.report()).reason, "idle")
        await self.until(lambda: self.first.was_reset, "the reset")

    async def test_close(self) -> None:
        """
        Closed from outside, both see a reset, and it is over at once.
        """
        splice = await self.join()
        self.first.send(b"before")
        await self.until(lambda: self.second.received == 6)
        splice.close()
        self.assertEqual(len(self.reports), 1)
        splice.close()
        await self.assert_both_reset("closed")

    async def test_close_while_stalled(self) -> None:
        """
        Closing from outside does not wait for a stalled reader.
        """
        for reader in (0, 1):
            splice = await self.join(buffer=_SMALL)
            await self.stall(self.sides[reader].peer, self.sides[1 - reader].peer)
            splice.close()
            for side in self.sides:
                side.peer.reading = True
            await self.assert_both_reset("closed")

    async def test_close_afterwards(self) -> None:
        """
        Closing what is over does nothing.
        """
        splice = await self.join()
        await self.pass_both_ways(b"a", b"b")
        splice.close()
        self.assertEqual(len(self.reports), 1)

    # What is left

    async def _test_collectable(self, end: Any) -> None:
        splice = await self.join()
        left = [weakref.ref(each) for each in (splice, *(side.channel for side in self.sides))]
        end(splice)
        await self.report()
        await self.until(lambda: self.first.over and self.second.over, "both ends")
        for side in self.sides:
            side.peer.close()
        self.sides.clear()
        del splice, side, end
        self.parked.clear()
        self.data_channels.clear()

        def gone() -> bool:
            gc.collect()
            return all(each() is None for each in left)

        await until(gone, what="everything is collected", within=3)

    async def test_collectable_after_clean_end(self) -> None:
        """
        After a clean end nobody keeps the splice or its channels.
        """

        def end(_: object) -> None:
            self.first.send(b"there")
            self.first.end()
            self.second.end()

        await self._test_collectable(end)

    async def test_collectable_after_reset(self) -> None:
        """
        Nor after a reset.
        """

        def end(_: object) -> None:
            self.second.reset()
            self.second.was_reset = True  # who resets observes nothing

        await self._test_collectable(end)

    async def test_collectable_after_close(self) -> None:
        """
        Nor after it was closed from outside.
        """
        await self._test_collectable(lambda splice: splice.close())
