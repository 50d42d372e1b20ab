"""
A session over TLS as the end of a splice, where a peer takes nothing.
"""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL

from relaytunnel.splice.choice import PumpEngine
from relaytunnel.wire.data import STOP_FRAME
from tests.channel import FramedPeer, pause_for
from tests.splice.contract import FRAMED, TCP, SpliceCase


class NoRoomTests(SpliceCase):
    """
    An end that finds no room behind the last bytes.
    """

    kinds = (TCP, FRAMED)
    own_tls = True

    def make_engine(self) -> PumpEngine:
        return PumpEngine(self.edges)

    async def test_end_waits(self) -> None:
        """
        It waits for room, what the peer says meanwhile is heard, and it arrives
        in the end.
        """
        await self.join()
        end: Any = self.sides[1].channel.receiver
        send, full = end.send, [True]

        def no_room(data: bytes) -> Any:
            if full[0]:
                raise SSL.WantWriteError
            return send(data)

        end.send = no_room
        self.first.end()
        await self.until(lambda: end.rest, "the end that waits")
        self.second.send(b"an answer")
        await self.until(lambda: self.first.received == 9, "the answer")
        self.assertFalse(self.second.ended)
        await pause_for(0.02, self.first, self.second)
        full[0] = False
        self.second.send(b", and more")
        self.second.end()
        await self.until(lambda: self.first.over and self.second.ended, "both ends")
        self.assert_received(self.first, b"an answer, and more")
        self.assertEqual((await self.clean_report()).reason, "clean")

    async def test_stopped(self) -> None:
        """
        A session that the relay aborts after its end is over, and its
        connection may carry another one.
        """
        await self.join()
        self.data_channels[0].joining = None  # as at the agent
        self.second.send(b"the last words")
        self.second.end()
        await self.until(lambda: self.first.ended, "the end")
        assert isinstance(self.second, FramedPeer)
        self.second.send_frame(STOP_FRAME)
        self.assertEqual((await self.report()).reason, "second reset")
        await self.until(lambda: self.second.ended, "the agent's end")
        await self.until(lambda: self.first.over, "the end of the server's connection")
        self.assertEqual(self.first.received, 14)
        self.assertEqual(self.parked, self.data_channels)
        self.assertTrue(self.parked[0].usable)

    async def test_stop_of_the_last_one(self) -> None:
        """
        One that is meant for the session before means nothing.
        """
        await self.join()
        self.data_channels[0].joining = None
        assert isinstance(self.second, FramedPeer)
        self.second.send_frame(STOP_FRAME)
        self.second.send(b"goes on")
        await self.until(lambda: self.first.received == 7, "the bytes behind it")
        self.assertEqual(self.reports, [])
        self.first.end()
        self.second.end()
        await self.until(lambda: self.first.over and self.second.ended, "both ends")

    async def test_lost_meanwhile(self) -> None:
        """
        A connection that fails there is lost, and the client is reset.
        """
        await self.join()
        end: Any = self.sides[1].channel.receiver

        def broken(data: bytes) -> Any:
            raise SSL.SysCallError(32, "broken pipe")

        end.send = broken
        self.first.end()
        self.assertEqual((await self.report()).reason, "second truncated")
