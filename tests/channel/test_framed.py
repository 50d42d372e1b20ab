"""
A data channel over TLS: sessions one after another, in frames.
"""

from __future__ import annotations

import os
from typing import Any

from zope.interface import implementer
from zope.interface.verify import verifyObject

from twisted.internet.interfaces import IHandshakeListener, IPushProducer
from twisted.internet.testing import StringTransport

from relaytunnel.channel.edges import EdgeWatch
from relaytunnel.channel.framed import DataChannel
from relaytunnel.channel.stream import FramedStream
from relaytunnel.config.limits import Limits
from relaytunnel.interfaces import IChannel, Lost
from relaytunnel.wire.data import EOF_FRAME, RESET_FRAME, STOP_FRAME, data_frames, join_frame
from tests.channel import (
    TICKET,
    Peer,
    Received,
    Sockets,
    pause_for,
    reactor,
    until,
)


@implementer(IHandshakeListener)
class _Channel(DataChannel):
    def handshakeCompleted(self) -> None:
        """
        Wait for JOIN.
        """


class DataChannelTests(Sockets):
    """
    The relay's end, and an agent that speaks the frames.
    """

    async def setUp(self) -> None:  # type: ignore[override]
        await super().setUp()
        self.edges = EdgeWatch(reactor)
        self.limits = Limits(close=0.4, linger=3)
        self.made: list[_Channel] = []
        self.streams: list[FramedStream] = []
        self.idle: list[DataChannel] = []
        self.lost: list[DataChannel] = []
        self.tickets: list[bytes] = []

    async def tearDown(self) -> None:  # type: ignore[override]
        for channel in self.made:
            channel.abort()
        self.edges.close()
        await super().tearDown()

    def make(self) -> _Channel:
        channel = _Channel(reactor, self.limits, self.edges)
        channel.joining = self.joining
        channel.idle = self.idle.append
        channel.lost = self.lost.append
        self.made.append(channel)
        return channel

    def joining(self, channel: DataChannel, ticket: bytes) -> None:
        self.tickets.append(ticket)
        self.received = Received()
        stream = channel.begin()
        stream.attach(self.received)
        self.streams.append(stream)

    async def connect(self, buffer: int = 0) -> FramedStream:
        """
        @return: the stream of the session that the far end has joined.
        """
        port = self.listen(self.make, tls=True, buffer=buffer)
        self.far = self.framed_peer(port, buffer, buffer)
        await self.until(lambda: self.streams, "JOIN")
        self.channel = self.made[0]
        return self.streams[-1]

    async def until(self, happened: Any, what: str = "", within: float = 5) -> None:
        await until(happened, self.far, what=what, within=within)

    async def congest(self, stream: FramedStream) -> bytes:
        """
        Write to a peer that does not read more than it takes.
        """
        self.far.reading = False
        data = os.urandom(500_000)
        stream.write(data)
        await pause_for(0.1, self.far)
        self.assertTrue(self.channel.congested)
        return data

    async def test_interfaces(self) -> None:
        """
        A stream is a channel, and its connection a producer.
        """
        stream = await self.connect()
        self.assertTrue(verifyObject(IChannel, stream))
        self.assertTrue(verifyObject(IPushProducer, self.channel))
        self.assertEqual(stream.peer, "{}:{}".format(*self.far.sock.getsockname()))

    async def test_joins(self) -> None:
        """
        JOIN presents the ticket.
        """
        await self.connect()
        self.assertEqual(self.tickets, [TICKET])
        self.assertFalse(self.channel.usable)

    async def test_session_after_session(self) -> None:
        """
        When a session has ended both ways the same connection carries the next.
        """
        await self.connect()
        for number in range(3):
            stream, received = self.streams[-1], self.received
            question, answer = os.urandom(40_000 + number), os.urandom(70_000 + number)
            self.far.send(question)
            self.far.end()
            stream.write(answer)
            await self.until(lambda received=received: received.events == ["end received"])
            stream.end()
            stream.close()
            await self.until(lambda: self.far.ended)
            self.assertEqual(received.data, question)
            self.assertEqual(received.events, ["end received", "end sent"])
            self.assertEqual(self.far.received, len(answer))
            self.assertEqual(self.idle, [self.channel] * (number + 1))
            self.assertTrue(self.channel.usable)
            self.far.new_session()
            await self.until(lambda number=number: len(self.streams) == number + 2)
        self.assertFalse(self.far.was_reset)
        self.assertEqual(len(self.made), 1)

    async def test_old_streams_are_mute(self) -> None:
        """
        Whoever still holds the stream of an ended session cannot disturb the next.
        """
        old = await self.connect()
        self.far.end()
        old.end()
        await self.until(lambda: self.far.ended and self.idle)
        self.far.new_session()
        await self.until(lambda: len(self.streams) == 2)
        for call in (old.end, old.reset, old.finish, old.close, old.pauseProducing):
            call()
        old.write(b"from the past")
        self.streams[1].write(b"now")
        await self.until(lambda: self.far.received)
        self.assertEqual(self.far.last, b"now")
        self.assertFalse(self.far.was_reset)

    async def test_paused_session_does_not_pause_the_next(self) -> None:
        """
        A session that ended while paused leaves a channel that reads.
        """
        stream = await self.connect()
        self.far.send(b"a")
        self.far.end()
        stream.pauseProducing()
        stream.end()
        await pause_for(0.05, self.far)
        stream.resumeProducing()
        await self.until(lambda: self.idle)
        stream.pauseProducing()
        self.far.new_session()
        await self.until(lambda: len(self.streams) == 2)

    async def test_not_idle_while_congested(self) -> None:
        """
        A session whose end the peer has not taken yet is not offered for
        parking, where it would be closed with what is left of it.
        """
        stream = await self.connect(buffer=16384)
        data = await self.congest(stream)
        stream.end()
        self.far.end()
        await self.until(lambda: "end received" in self.received.events)
        self.assertEqual(self.idle, [])
        self.far.reading = True
        await self.until(lambda: self.far.ended and self.idle)
        self.assertEqual(self.far.received, len(data))
        self.assertEqual(self.idle, [self.channel])

    async def _test_out_of_turn(self, *frames: bytes, lost: Lost = Lost.TRUNCATED) -> None:
        await self.connect()
        for frame in frames:
            self.far.send_frame(frame)
        await self.until(lambda: self.lost, "the abort", within=1)
        self.assertIs(self.received.lost, lost)
        self.assertEqual(self.lost, [self.channel])

    async def test_second_join(self) -> None:
        """
        JOIN during a session aborts the channel.
        """
        await self._test_out_of_turn(join_frame(TICKET))

    async def test_data_after_end(self) -> None:
        """
        So does DATA behind EOF.
        """
        await self._test_out_of_turn(EOF_FRAME, data_frames(b"more"))

    async def test_second_end(self) -> None:
        """
        And a second EOF.
        """
        await self._test_out_of_turn(EOF_FRAME, EOF_FRAME)

    async def test_unknown_frame(self) -> None:
        """
        And a frame of no known type.
        """
        await self._test_out_of_turn(b"\x09\x00\x00")

    async def test_wrong_length(self) -> None:
        """
        And one that is longer than its type allows.
        """
        await self._test_out_of_turn(b"\x03\x00\x01x")

    async def test_data_between_sessions(self) -> None:
        """
        DATA on an idle channel aborts it.
        """
        stream = await self.connect()
        self.far.end()
        stream.end()
        await self.until(lambda: self.idle)
        self.far.send_frame(data_frames(b"for nobody"))
        await self.until(lambda: self.lost, "the abort", within=1)
        self.assertIsNone(self.received.lost)

    async def test_join_at_the_agent(self) -> None:
        """
        The relay presents no tickets: JOIN aborts where none is expected.
        """
        stream = await self.connect()
        self.far.end()
        stream.end()
        await self.until(lambda: self.idle)
        self.channel.joining = None
        self.far.new_session()
        await self.until(lambda: self.lost, "the abort", within=1)

    async def test_refused(self) -> None:
        """
        A ticket that joins nothing is answered with RESET, and the channel ends.
        """

        def joining(channel: DataChannel, ticket: bytes) -> None:
            channel.refuse()

        def make() -> _Channel:
            channel = self.make()
            channel.joining = joining
            return channel

        self.far = self.framed_peer(self.listen(make, tls=True))
        await self.until(lambda: self.far.reset_frame)
        self.assertFalse(self.made[0].usable)
        # An agent closes then; one that does not is left.
        await self.until(lambda: self.lost, within=2)

    async def test_reset_from_there(self) -> None:
        """
        RESET behind data: the data is read, the session lost, the channel closed.
        """
        await self.connect()
        self.far.send(b"before")
        self.far.reset()
        await self.until(lambda: self.received.lost)
        self.assertEqual((self.received.data, self.received.lost), (b"before", Lost.RESET))
        await self.until(lambda: self.far.closed and self.lost)

    async def test_reset_from_there_while_paused(self) -> None:
        """
        A session that is paused right when its RESET comes does not keep the
        channel from closing.
        """
        stream = await self.connect()
        taken = self.received.data_received

        def data_received(data: bytes) -> None:
            taken(data)
            stream.pauseProducing()

        self.received.data_received = data_received  # type: ignore[method-assign]
        self.far.send_frame(data_frames(b"before") + RESET_FRAME)
        began = reactor.seconds()
        await self.until(lambda: self.received.lost and self.lost)
        self.assertTrue(self.far.closed)
        self.assertLess(reactor.seconds() - began, 0.3)

    async def test_reset_from_here(self) -> None:
        """
        A reset is a RESET frame behind what was written.
        """
        stream = await self.connect()
        stream.write(b"the last words")
        stream.reset()
        stream.reset()
        await self.until(lambda: self.far.reset_frame)
        self.assertEqual(self.far.last, b"the last words")
        self.assertFalse(self.far.ended)
        self.far.close()
        await self.until(lambda: self.lost)
        self.assertEqual(self.received.events, [])

    async def test_reset_from_here_with_input(self) -> None:
        """
        What the peer still sends does not keep it from reading RESET.
        """
        stream = await self.connect()
        stream.pauseProducing()
        self.far.send(os.urandom(2_000_000))
        await pause_for(0.1, self.far)
        stream.reset()
        await self.until(lambda: self.far.reset_frame)
        self.assertEqual(self.received.events, [])

    async def test_reset_of_congested(self) -> None:
        """
        Where the peer has stopped reading, a reset is one of the transport.
        """
        stream = await self.connect(buffer=16384)
        await self.congest(stream)
        stream.reset()
        await until(lambda: self.lost, within=1)
        self.far.reading = True
        await self.until(lambda: self.far.over)
        self.assertTrue(self.far.was_reset)
        self.assertFalse(self.far.ended or self.far.closed)

    async def test_reset_that_is_not_answered(self) -> None:
        """
        A peer that does not close after RESET is left after the close limit.
        """
        stream = await self.connect()
        stream.reset()
        began = reactor.seconds()
        await self.until(lambda: self.lost)
        self.assertTrue(0.3 < reactor.seconds() - began < 1)

    async def test_stop_crosses_the_end(self) -> None:
        """
        Who aborts a session after its end, when the peer has ended it as well,
        does not touch the session that comes next on this connection.
        """
        stream = await self.connect()
        stream.end()
        await self.until(lambda: self.far.ended, "the end")
        self.far.end()
        self.far.new_session()
        self.far.send(b"the next one")
        stream.reset()
        await self.until(lambda: len(self.streams) == 2, "the next session")
        await self.until(lambda: self.received.data == b"the next one", "its bytes")
        self.streams[-1].write(b"served")
        await self.until(lambda: self.far.received == 6, "the answer")
        self.assertFalse(self.far.was_reset)
        self.assertIs(self.received.lost, None)
        self.assertEqual(self.lost, [])

    async def test_stop(self) -> None:
        """
        Otherwise the peer ends the session, what it said meanwhile is
        discarded, and the connection may carry another one.
        """
        stream = await self.connect()
        stream.end()
        await self.until(lambda: self.far.ended, "the end")
        self.far.send(os.urandom(100_000))
        stream.reset()
        self.assertFalse(self.channel.usable)
        await self.until(lambda: self.idle, "the answer")
        self.assertTrue(self.far.reset_frame)
        self.assertEqual(self.idle, [self.channel])
        self.assertTrue(self.channel.usable)
        self.far.new_session()
        await self.until(lambda: len(self.streams) == 2, "the next session")

    async def test_stop_finishes(self) -> None:
        """
        The same after all that was written, where nobody listens any more.
        """
        stream = await self.connect()
        stream.write(b"the last words")
        stream.finish()
        await self.until(lambda: self.idle, "the answer")
        self.assertEqual(self.far.received, 14)
        self.assertTrue(self.far.ended and self.far.reset_frame)
        self.assertTrue(self.channel.usable)

    async def test_stop_that_is_not_answered(self) -> None:
        """
        A peer that does not end in time is hung up on.
        """
        stream = await self.connect()
        stream.end()
        await self.until(lambda: self.far.ended, "the end")
        self.far._end_said = True
        stream.reset()
        await self.until(lambda: self.lost, "it is hung up on")
        self.assertEqual(self.idle, [])

    async def test_joins_while_stopping(self) -> None:
        """
        Nothing but the end may come then.
        """
        stream = await self.connect()
        stream.end()
        self.far.send_frame(join_frame(TICKET))
        stream.reset()
        await self.until(lambda: self.lost, "it is hung up on")
        self.assertEqual(len(self.streams), 1)

    async def test_stop_at_the_relay(self) -> None:
        """
        An agent does not say that.
        """
        await self.connect()
        self.far.send_frame(STOP_FRAME)
        await self.until(lambda: self.lost, "it is hung up on")

    async def test_finish_while_congested(self) -> None:
        """
        Finishing delivers everything first, however slow its reader.
        """
        stream = await self.connect(buffer=16384)
        data = await self.congest(stream)
        stream.finish()
        await pause_for(0.6)
        self.far.reading = True
        await self.until(lambda: self.far.ended)
        self.assertEqual(self.far.received, len(data))
        self.far.close()
        await until(lambda: self.lost)
        self.assertEqual(self.received.events, ["end sent"])

    async def test_finish_and_nobody_reads(self) -> None:
        """
        But not beyond the linger limit.
        """
        self.limits = Limits(close=0.2, linger=0.5)
        stream = await self.connect(buffer=16384)
        await self.congest(stream)
        stream.finish()
        await until(lambda: self.lost, within=1.5)

    async def test_truncated(self) -> None:
        """
        A transport that ends without EOF is a truncation.
        """
        await self.connect()
        self.far.send(b"half of")
        self.far.truncate()
        await self.until(lambda: self.received.lost)
        self.assertEqual(self.received.data, b"half of")
        self.assertIs(self.received.lost, Lost.TRUNCATED)

    async def test_transport_reset_while_paused(self) -> None:
        """
        The reset of a paused channel's transport is noticed within a second.
        """
        stream = await self.connect()
        stream.pauseProducing()
        self.far.send(b"unread")
        await pause_for(0.05, self.far)
        Peer.reset(self.far)
        await until(lambda: self.received.lost, within=1)
        self.assertIs(self.received.lost, Lost.RESET)
        await until(lambda: self.lost)

    async def test_producer(self) -> None:
        """
        A producer is paused with the connection, also one that comes later,
        and resumed when everything was taken.
        """
        calls: list[str] = []

        class Producer:
            def pauseProducing(self) -> None:
                calls.append("pause")

            def resumeProducing(self) -> None:
                calls.append("resume")

        stream = await self.connect(buffer=16384)
        await self.congest(stream)
        stream.registerProducer(Producer(), True)
        self.assertEqual(calls, ["pause"])
        self.far.reading = True
        await self.until(lambda: self.far.received == 500_000)
        self.assertEqual(calls, ["pause", "resume"])
        stream.unregisterProducer()
        await self.congest(stream)
        self.assertEqual(calls, ["pause", "resume"])

    async def test_pausing_stalls_the_peer(self) -> None:
        """
        A paused stream reads no more than one chunk, and all of it later.
        """
        stream = await self.connect(buffer=16384)
        stream.pauseProducing()
        data = os.urandom(1_000_000)
        self.far.send(data)
        await pause_for(0.2, self.far)
        self.assertLess(self.far.sent, 300_000)
        self.assertLess(len(self.received.data), 100_000)
        stream.resumeProducing()
        await self.until(lambda: self.received.data == data)

    async def test_close(self) -> None:
        """
        Closing delivers what was written, and closes TLS in order.
        """
        stream = await self.connect()
        stream.write(b"x" * 300_000)
        self.channel.close()
        self.channel.close()
        await self.until(lambda: self.far.closed and self.lost)
        self.assertEqual(self.far.received, 300_000)

    async def test_close_that_is_not_answered(self) -> None:
        """
        A close that the peer does not answer is an abort in the end.
        """
        stream = await self.connect(buffer=16384)
        await self.congest(stream)
        self.channel.close()
        await until(lambda: self.lost, within=1.5)

    async def test_abort_is_final(self) -> None:
        """
        After an abort nothing is called any more but C{lost}, once.
        """
        stream = await self.connect()
        self.channel.abort()
        self.channel.abort()
        await until(lambda: self.lost)
        self.channel.abort()
        self.channel.close()
        stream.write(b"ignored")
        stream.reset()
        self.assertEqual(self.received.events, ["truncated"])
        self.assertEqual(len(self.lost), 1)

    async def test_stream_without_receiver(self) -> None:
        """
        A stream that nobody listens to yet may be lost.
        """
        await self.connect()
        self.channel.stream = FramedStream(self.channel)
        self.channel.abort()
        await until(lambda: self.lost)

    async def test_end_before_attach(self) -> None:
        """
        Who listens only after the end was sent is told then.
        """
        await self.connect()
        stream = self.channel.begin()
        stream.end()
        received = Received()
        stream.attach(received)
        self.assertEqual(received.events, ["end sent"])


class StoppedTests(Sockets):
    """
    The agent's end of a session that the relay aborts after its end.
    """

    async def setUp(self) -> None:  # type: ignore[override]
        await super().setUp()
        self.idle: list[DataChannel] = []
        self.channel = DataChannel(reactor, Limits(), None)
        self.channel.idle = self.idle.append
        self.transport = StringTransport()
        self.channel.makeConnection(self.transport)
        self.join()

    def join(self) -> None:
        self.received = Received()
        self.stream = self.channel.join(TICKET)
        self.stream.attach(self.received)
        self.transport.clear()

    async def test_of_this_session(self) -> None:
        """
        The session is lost, its end is sent, and the connection is kept.
        """
        self.channel.dataReceived(EOF_FRAME + STOP_FRAME)
        self.assertIs(self.received.lost, Lost.RESET)
        self.assertEqual(self.transport.value(), EOF_FRAME)
        self.assertEqual(self.idle, [self.channel])
        self.assertTrue(self.channel.usable)

    async def test_of_the_last_session(self) -> None:
        """
        The next session does not notice.
        """
        self.stream.end()
        self.channel.dataReceived(EOF_FRAME)
        self.join()
        self.channel.dataReceived(STOP_FRAME + data_frames(b"hello"))
        self.assertIs(self.received.lost, None)
        self.assertEqual(self.received.data, b"hello")

    async def test_of_an_idle_channel(self) -> None:
        """
        Nor does a connection that carries none.
        """
        self.stream.end()
        self.channel.dataReceived(EOF_FRAME)
        self.channel.dataReceived(STOP_FRAME)
        self.assertTrue(self.channel.usable)


class AgentsEndTests(Sockets):
    """
    The frames as the agent's end writes them.
    """

    async def test_join(self) -> None:
        """
        C{join} presents the ticket, and begins.
        """
        channel = DataChannel(reactor, Limits(), None)
        transport = StringTransport()
        channel.makeConnection(transport)
        self.assertTrue(channel.usable)
        stream = channel.join(TICKET)
        self.assertFalse(channel.usable)
        stream.write(b"hello")
        stream.write(b"")
        self.assertEqual(transport.value(), join_frame(TICKET) + data_frames(b"hello"))
