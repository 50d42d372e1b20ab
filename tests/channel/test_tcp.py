"""
A channel that is a plain TCP or UNIX connection.
"""

from __future__ import annotations

import os
import socket
from typing import Any

from zope.interface.verify import verifyObject

from twisted.internet.endpoints import UNIXServerEndpoint
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from relaytunnel.channel.edges import EdgeWatch
from relaytunnel.channel.tcp import TCPChannel, socket_of, tune
from relaytunnel.config.limits import Limits
from relaytunnel.interfaces import IChannel, Lost
from tests.channel import Makes, Received, Sockets, pause_for, reactor, until


class _Producer:
    def __init__(self) -> None:
        self.calls: list[str] = []

    def pauseProducing(self) -> None:
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        self.calls.append("resume")

    def stopProducing(self) -> None:
        self.calls.append("stop")


class TCPChannelTests(Sockets):
    """
    A channel and a plain socket.
    """

    async def setUp(self) -> None:  # type: ignore[override]
        await super().setUp()
        self.edges = EdgeWatch(reactor)
        self.limits = Limits(held=1000, linger_idle=0.2, linger=0.6, close=0.3)
        self.clock: Any = reactor
        self.channels: list[TCPChannel] = []

    async def tearDown(self) -> None:  # type: ignore[override]
        for channel in self.channels:
            channel.reset()
        self.edges.close()
        await super().tearDown()

    async def connect(self, attach: bool = True, buffer: int = 0) -> TCPChannel:
        made: list[TCPChannel] = []
        port = self.listen(
            lambda: TCPChannel(self.clock, self.limits, self.edges, made.append),
            buffer=buffer,
        )
        self.far = self.peer(port, buffer, buffer)
        await until(lambda: made)
        self.received = Received()
        channel = made.pop()
        self.channels.append(channel)
        if attach:
            channel.attach(self.received)
        return channel

    async def until(self, happened: Any, what: str = "", within: float = 5) -> None:
        await until(happened, self.far, what=what, within=within)

    async def test_interfaces(self) -> None:
        """
        It is a channel.
        """
        self.assertTrue(verifyObject(IChannel, await self.connect()))

    async def test_peer(self) -> None:
        """
        It knows the other end's address.
        """
        channel = await self.connect()
        host, port = self.far.sock.getsockname()
        self.assertEqual((channel.peer, channel.host), (f"{host}:{port}", host))

    async def test_tuned(self) -> None:
        """
        Its connection has keepalive and no Nagle delay; a user timeout, which
        would end readers that take a pause, only where there are none.
        """
        channel = await self.connect()
        sock = socket_of(channel.transport)
        assert sock is not None

        def options() -> list[int]:
            return [
                sock.getsockopt(level, option)
                for level, option in (
                    (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
                    (socket.IPPROTO_TCP, socket.TCP_NODELAY),
                    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
                    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL),
                    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT),
                    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
                )
            ]

        self.assertEqual(options(), [1, 1, 60, 10, 6, 0])
        tune(channel.transport, always_read=True)
        self.assertEqual(options(), [1, 1, 60, 10, 6, 60000])

    async def test_no_socket(self) -> None:
        """
        Where there is no socket there is nothing to tune.
        """
        transport = StringTransport()
        tune(transport)
        self.assertIsNone(socket_of(transport))

    async def test_held(self) -> None:
        """
        What comes before a receiver is held within the limit, and the client
        behind it is paused; then the receiver gets all of it.
        """
        channel = await self.connect(attach=False, buffer=4096)
        data = os.urandom(500_000)
        self.far.send(data)
        await self.until(lambda: len(channel.holding.held) >= 1000)
        await pause_for(0.1, self.far)
        self.assertLess(len(channel.holding.held), 1000 + 2 * 65536)
        self.far.end()
        channel.attach(self.received)
        await self.until(lambda: self.received.events)
        self.assertEqual(self.received.data, data)

    async def test_held_client_resets(self) -> None:
        """
        A reset is noticed within a second though the channel is paused.
        """
        channel = await self.connect(attach=False)
        lost: list[Lost] = []
        channel.holding.lost = lost.append
        self.far.send(b"x" * 5000)
        await self.until(lambda: channel.holding.held)
        self.far.reset()
        await self.until(lambda: lost, within=1)
        self.assertEqual(lost, [Lost.RESET])

    async def test_held_client_ends(self) -> None:
        """
        An end is none.
        """
        channel = await self.connect(attach=False)
        channel.holding.lost = lambda why: self.fail(why.value)
        self.far.send(b"x" * 500)
        self.far.end()
        await self.until(lambda: channel.holding.ended)
        await pause_for(0.1)
        channel.attach(self.received)
        self.assertEqual(self.received.events, ["end received"])

    async def _test_end_then_reset(self, size: int, pending: int) -> None:
        self.limits = Limits(held=1000, linger_idle=2, linger=5, close=0.3)
        channel = await self.connect(buffer=16384 if pending else 0)
        channel.pauseProducing()
        if pending:
            self.far.reading = False
            channel.write(b"u" * pending)
            await pause_for(0.1)
        else:
            channel.write(b"unread")
            await pause_for(0.02)
        data = os.urandom(size)
        self.far.send(data)
        self.far.end()
        self.far.reading = False
        await self.until(lambda: self.far.all_sent)
        await pause_for(0.1)
        self.far.close()
        await pause_for(0.3)
        self.assertEqual(self.received.events, [])
        channel.resumeProducing()
        await until(lambda: self.received.lost, within=2)
        self.assertEqual(self.received.data, data)
        self.assertEqual(self.received.events, ["end received", "reset"])

    async def test_end_then_reset_while_paused(self) -> None:
        """
        A peer that ended and then reset while paused loses none of its bytes.
        """
        await self._test_end_then_reset(30_000, 0)

    async def test_end_then_reset_while_paused_and_written_to(self) -> None:
        """
        Nor if there was still something to be written to it.
        """
        await self._test_end_then_reset(8000, 500_000)

    async def test_end_then_reset_and_never_taken(self) -> None:
        """
        They are not kept for ever: where nothing is taken for the limit, the
        channel is lost.
        """
        channel = await self.connect()
        channel.pauseProducing()
        channel.write(b"unread")
        self.far.send(bytes(30_000))
        self.far.end()
        self.far.reading = False
        await self.until(lambda: self.far.all_sent)
        await pause_for(0.1)
        self.far.close()
        await until(lambda: self.received.lost, within=2)
        self.assertEqual(self.received.events, ["reset"])

    async def test_deliver_and_reset(self) -> None:
        """
        The peer gets what was written, the end, and then the reset: at once,
        whatever it says itself meanwhile.
        """
        said = os.urandom(3_000_000)
        self.limits = Limits(linger_idle=5, linger=30)
        channel = await self.connect()
        gone: list[bool] = []
        channel.write(said)
        channel.deliver_and_reset(lambda: gone.append(True))
        self.far.send(bytes(1_000_000))
        began = reactor.seconds()
        await self.until(lambda: gone, "the reset")
        self.assertLess(reactor.seconds() - began, 3)
        await self.until(lambda: self.far.ended, "the end")
        self.assertEqual(self.far.received, len(said))

        def refused() -> bool:
            self.far.send(b".")
            return self.far.broken_pipe

        await self.until(refused, "the reset")

    async def test_deliver_and_reset_waits(self) -> None:
        """
        It is not reset while it has not taken everything; to give up is for
        whoever asked for it.
        """
        self.limits = Limits(linger_idle=5, linger=30)
        channel = await self.connect(buffer=16384)
        self.far.reading = False
        gone: list[bool] = []
        channel.write(bytes(3_000_000))
        channel.deliver_and_reset(lambda: gone.append(True))
        await pause_for(0.5, self.far)
        self.assertEqual(gone, [])
        channel.abort()
        await until(lambda: gone, within=2)
        self.far.reading = True
        await self.until(lambda: self.far.was_reset, "the reset")

    async def test_deliver_and_reset_to_nobody(self) -> None:
        """
        A peer that takes nothing is waited for no longer than the limit.
        """
        channel = await self.connect(buffer=16384)
        self.far.reading = False
        gone: list[bool] = []
        channel.write(bytes(3_000_000))
        channel.deliver_and_reset(lambda: gone.append(True))
        await until(lambda: gone, within=2)

    async def test_end_then_reset_after_ours(self) -> None:
        """
        Nor if we had ended too, when the reset looks like any other.
        """
        channel = await self.connect(buffer=8192)
        channel.pauseProducing()
        self.far.reading = False
        self.far.send(b"the last words")
        self.far.end()
        await self.until(lambda: self.far.all_sent)
        await pause_for(0.05)
        # More than the peer takes, so that our end waits in the kernel.
        channel.write(b"u" * 24_000)
        channel.end()
        await until(lambda: "end sent" in self.received.events)
        self.far.close()
        await pause_for(0.1)
        channel.resumeProducing()
        await until(lambda: self.received.lost, within=2)
        self.assertEqual(self.received.data, b"the last words")
        self.assertEqual(self.received.events, ["end sent", "end received", "reset"])

    async def test_reset_of_paused(self) -> None:
        """
        The reset of a paused peer is noticed within a second.
        """
        channel = await self.connect()
        self.far.send(b"a")
        await self.until(lambda: self.received.data)
        channel.pauseProducing()
        self.far.send(b"b" * 1000)
        self.far.move()
        self.far.reset()
        await until(lambda: self.received.lost, within=1)
        self.assertEqual(self.received.events, ["reset"])

    async def test_reset_found_by_write(self) -> None:
        """
        A reset that a write is told of is none the less a reset.
        """
        channel = await self.connect()
        self.far.send(b"answer")
        self.far.move()
        self.far.reset()
        # This send() is what learns of it, before any recv() could.
        channel.write(b"too late")
        assert channel.transport is not None
        channel.transport.doWrite()  # type: ignore[attr-defined]
        await until(lambda: self.received.lost, within=1)
        self.assertEqual(self.received.data, b"answer")
        self.assertEqual(self.received.events, ["reset"])

    async def test_reset_of_half_closed(self) -> None:
        """
        A peer that has ended and resets later is noticed within a second.
        """
        channel = await self.connect()
        self.far.end()
        await self.until(lambda: self.received.events == ["end received"])
        await pause_for(0.05)
        self.far.reset()
        await until(lambda: self.received.lost, within=1)
        channel.write(b"nobody is there")
        channel.end()

    async def test_ends_apart(self) -> None:
        """
        Each direction ends by itself.
        """
        channel = await self.connect()
        channel.write(b"question")
        channel.end()
        channel.end()
        channel.write(b"ignored")
        await self.until(lambda: self.far.ended)
        self.assertEqual((self.far.last, self.received.events), (b"question", ["end sent"]))
        self.far.send(b"answer")
        self.far.end()
        await self.until(lambda: len(self.received.events) == 2)
        self.assertEqual(self.received.data, b"answer")
        channel.close()

    async def test_producer(self) -> None:
        """
        A producer is paused while the peer does not read, resumed when it
        does, and then forgotten.
        """
        channel = await self.connect(buffer=16384)
        producer = _Producer()
        channel.registerProducer(producer, True)
        self.far.reading = False
        channel.write(b"x" * 500_000)
        self.assertEqual(producer.calls, ["pause"])
        await pause_for(0.1, self.far)
        self.far.reading = True
        await self.until(lambda: self.far.received == 500_000)
        self.assertEqual(producer.calls, ["pause", "resume"])
        channel.unregisterProducer()
        channel.reset()
        await self.until(lambda: self.far.was_reset)
        self.assertEqual(producer.calls, ["pause", "resume"])

    async def test_silent_after_reset(self) -> None:
        """
        After a reset every method does nothing and the receiver hears nothing.
        """
        channel = await self.connect()
        channel.reset()
        for call in (channel.reset, channel.end, channel.finish, channel.close):
            call()
        channel.write(b"ignored")
        channel.pauseProducing()
        channel.resumeProducing()
        channel.stopProducing()
        channel.registerProducer(_Producer(), True)
        channel.unregisterProducer()
        await self.until(lambda: self.far.was_reset)
        self.assertEqual(self.received.events, [])

    async def test_reset_gives_what_fits(self) -> None:
        """
        What was written right before a reset gets to a peer that reads.
        """
        channel = await self.connect()
        channel.write(b"the last words")
        channel.reset()
        await self.until(lambda: self.far.was_reset)
        self.assertEqual(self.far.last, b"the last words")

    # Finishing

    async def test_finish(self) -> None:
        """
        Finishing delivers all, discards what comes, and closes behind the
        peer's end: nothing is lost to a reset.
        """
        channel = await self.connect()
        answer = os.urandom(3_000_000)
        self.far.send(b"u" * 3_000_000)
        await pause_for(0.02, self.far)
        channel.write(answer)
        channel.finish()
        await self.until(lambda: self.far.ended)
        self.assertEqual(self.far.received, len(answer))
        await self.until(lambda: self.far.all_sent)
        self.far.end()
        await self.until(lambda: channel.transport.disconnected)  # type: ignore[union-attr]
        self.assertFalse(self.far.was_reset)
        self.assertEqual(self.received.events, [])

    async def test_finish_paused(self) -> None:
        """
        A paused channel reads again to discard.
        """
        channel = await self.connect()
        channel.pauseProducing()
        self.far.send(b"u" * 3_000_000)
        channel.finish()
        await self.until(lambda: self.far.all_sent and self.far.ended)
        self.far.end()
        await self.until(lambda: channel.transport.disconnected)  # type: ignore[union-attr]

    async def _time_to_finish(self, ready: Any = None) -> float:
        channel = await self.connect(buffer=16384)
        if ready is not None:
            ready(channel)
        began = reactor.seconds()
        channel.finish()
        await self.until(lambda: channel.transport.disconnected, "the end")  # type: ignore
        return float(reactor.seconds() - began)

    async def test_finish_silent_peer(self) -> None:
        """
        A peer that says nothing more and does not close is left when it has
        been quiet for the limit.
        """
        took = await self._time_to_finish()
        self.assertTrue(0.15 < took < 0.5, took)

    async def test_finish_endless_peer(self) -> None:
        """
        A peer that sends on and on is left after the whole limit.
        """
        took = await self._time_to_finish(lambda _: self.far.send(b"u" * 500_000_000))
        self.assertTrue(0.5 < took < 1.5, took)

    async def test_finish_stalled_peer(self) -> None:
        """
        So is one that does not take what was written.
        """

        def ready(channel: TCPChannel) -> None:
            self.far.reading = False
            channel.write(b"x" * 1_000_000)

        took = await self._time_to_finish(ready)
        self.assertTrue(0.5 < took < 1.5, took)

    async def test_finish_ended(self) -> None:
        """
        When both have ended already there is no limit to wait for, and no
        reset.
        """
        self.clock = Clock()
        channel = await self.connect()
        self.far.end()
        channel.end()
        await self.until(lambda: len(self.received.events) == 2)
        channel.finish()
        await self.until(lambda: channel.transport.disconnected)  # type: ignore[union-attr]
        await self.until(lambda: self.far.over)
        self.assertTrue(self.far.ended)

    async def test_close_of_stalled_peer(self) -> None:
        """
        A close that the peer does not let happen is an abort in the end.
        """
        channel = await self.connect(buffer=16384)
        self.far.reading = False
        channel.write(b"x" * 1_000_000)
        channel.close()
        await self.until(lambda: channel.transport.disconnected, within=2)  # type: ignore

    async def test_fake_clock(self) -> None:
        """
        Limits are of the clock that was given, and nothing is left on it.
        """
        self.clock = Clock()
        channel = await self.connect()
        channel.finish()
        self.far.end()
        await self.until(lambda: channel.transport.disconnected)  # type: ignore[union-attr]
        self.assertEqual(self.clock.getDelayedCalls(), [])

    async def test_unix(self) -> None:
        """
        A UNIX socket is a channel too.
        """
        made: list[TCPChannel] = []
        path = f"/tmp/{os.getpid()}-{id(self):x}.sock"  # paths are short there
        port = await UNIXServerEndpoint(reactor, path).listen(
            Makes(lambda: TCPChannel(reactor, self.limits, self.edges, made.append))
        )
        far = socket.socket(socket.AF_UNIX)
        far.connect(path)
        await until(lambda: made)
        channel = made.pop()
        received = Received()
        channel.attach(received)
        self.assertEqual((channel.peer, channel.host), ("unix", ""))
        far.sendall(b"question")
        far.shutdown(socket.SHUT_WR)
        await until(lambda: received.events)
        self.assertEqual(received.data, b"question")
        channel.write(b"answer")
        channel.end()
        await until(lambda: len(received.events) == 2)
        self.assertEqual(far.recv(100), b"answer")
        self.assertEqual(far.recv(100), b"")
        channel.close()
        far.close()
        await port.stopListening()
