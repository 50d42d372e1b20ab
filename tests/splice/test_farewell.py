"""
A peer that is left hears everything first, whatever it does meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Any

from twisted.internet.task import Clock

from relaytunnel.channel.edges import EdgeWatch
from relaytunnel.config.limits import Limits
from relaytunnel.splice.farewell import Farewell, abort
from relaytunnel.splice.pipes import Pipe
from tests.channel import Sockets, pause_for, reactor, until


class FarewellTests(Sockets):
    """
    The near end is left; the far end is the peer.
    """

    async def setUp(self) -> None:  # type: ignore[override]
        await super().setUp()
        self.edges = EdgeWatch(reactor)
        self.clock = Clock()
        self.limits = Limits(linger_idle=5, linger=30)
        with socket.create_server(("127.0.0.1", 0)) as listening:
            self.far = socket.create_connection(listening.getsockname())
            self.near, _ = listening.accept()
        for sock in (self.near, self.far):
            sock.setblocking(False)
        self.heard = b""
        self.end = ""
        self.gone: list[Farewell] = []

    async def tearDown(self) -> None:  # type: ignore[override]
        self.assertEqual(self.near.fileno(), -1)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.edges._watched, {})
        self.edges.close()
        self.far.close()
        await super().tearDown()

    def leave(self, waiting: bytes = b"", pipe: Any = None, piped: int = 0) -> None:
        self.farewell = Farewell(
            self.near, self.edges, self.limits, self.clock, waiting, pipe, piped, self.gone.append
        )
        self.farewell.begin()

    async def until_gone(self) -> None:
        """
        Let the clock run until the near end is closed.
        """

        def gone() -> bool:
            self.clock.advance(0.01)
            return self.near.fileno() < 0

        await until(gone, what="the close")

    def hear(self) -> bool:
        """
        @return: whether the far end knows how it ended.
        """
        try:
            while data := self.far.recv(1 << 16):
                self.heard += data
            self.end = "end"
        except BlockingIOError:
            return False
        except ConnectionResetError:
            self.end = "reset"
        return True

    async def pass_time(self, seconds: int) -> None:
        for _ in range(seconds):
            self.clock.advance(1)
            await pause_for(0.002)

    async def test_delivers(self) -> None:
        """
        What waits is sent, however long it is, and an end behind it.
        """
        said = os.urandom(4 << 20)
        self.leave(said)
        await until(self.hear, what="the end")
        self.assertEqual((self.heard == said, self.end), (True, "end"))
        self.far.close()
        await self.until_gone()

    async def test_pipe(self) -> None:
        """
        So is what stands in a pipe, behind that.
        """
        pipe = Pipe()
        os.write(pipe.writer, b" and last")
        self.leave(b"first", pipe, 9)
        await until(self.hear, what="the end")
        self.assertEqual((self.heard, self.end), (b"first and last", "end"))
        self.far.close()
        await self.until_gone()

    async def test_unread_input(self) -> None:
        """
        What the peer has said, and says yet, is thrown away, and does not turn
        our end into a reset.
        """
        self.far.send(bytes(50_000))
        await pause_for(0.05)
        self.leave(b"goodbye")
        for _ in range(5):
            self.far.send(bytes(10_000))
            await pause_for(0.01)
        await until(self.hear, what="the end")
        self.assertEqual((self.heard, self.end), (b"goodbye", "end"))
        self.far.close()
        await self.until_gone()

    async def test_tells_at_once(self) -> None:
        """
        One that has taken everything is reset at once, and whoever waits for
        that hears of it.
        """
        self.leave(b"goodbye")
        await self.until_gone()
        await until(self.hear, what="the end")
        self.assertEqual((self.heard, self.end), (b"goodbye", "end"))
        self.assertRaises(OSError, self.far.send, b"anything")
        self.assertEqual(len(self.gone), 1)

    async def test_slow_peer(self) -> None:
        """
        One that takes what waits, however slowly, gets it, within the whole
        limit; what it says meanwhile is thrown away.
        """
        self.leave(bytes(16 << 20))
        for _ in range(26):
            with contextlib.suppress(BlockingIOError):
                self.heard += self.far.recv(1 << 18)
            self.far.send(b"blah")
            await self.pass_time(1)
        self.assertEqual(self.gone, [])
        await self.pass_time(5)
        self.assertEqual(len(self.gone), 1)
        await until(self.hear, what="the reset")
        self.assertEqual(self.end, "reset")

    async def test_peer_that_does_not_read(self) -> None:
        """
        One that takes nothing is reset after the idle limit.
        """
        self.leave(bytes(16 << 20))
        await self.pass_time(4)
        self.assertGreaterEqual(self.near.fileno(), 0)
        await self.pass_time(2)
        self.assertEqual(self.near.fileno(), -1)
        await until(self.hear, what="the reset")
        self.assertEqual(self.end, "reset")

    async def test_abort(self) -> None:
        """
        Whoever cannot wait resets it at once.
        """
        self.leave(bytes(16 << 20))
        self.farewell.abort()
        self.farewell.abort()
        self.assertEqual((self.near.fileno(), len(self.gone)), (-1, 1))

    async def test_peer_that_resets(self) -> None:
        """
        One that resets is let go of at once.
        """
        self.leave(bytes(16 << 20))
        abort(self.far)
        await self.until_gone()
