"""
What comes from a session over TLS, however frames and records are cut.
"""

from __future__ import annotations

from typing import Any

from relaytunnel.channel.stream import FramedStream
from relaytunnel.splice.choice import PumpEngine
from relaytunnel.wire.data import data_frames
from tests.channel import FramedPeer, until
from tests.splice.contract import FRAMED, TCP, SpliceCase, stream


class CutTests(SpliceCase):
    """
    Frames that begin in one record and end in another.
    """

    own_tls = True

    def begun(self, stream: FramedStream) -> None:
        """
        Join at once, as relay and agent do.
        """
        self.splice = PumpEngine(self.edges).join(
            self.near.channel, stream, self.limits, self.clock
        )

    async def cut(self, *records: bytes) -> Any:
        """
        Let the peer send these records, the first right behind JOIN.

        @return: the client that hears what is in them.
        """
        self.data_channels = []
        self.parked = []
        self.near = await self.connect(TCP)

        class Cutting(FramedPeer):
            def __init__(self, *args: Any) -> None:
                super().__init__(*args)
                join = self._frames.pop()
                self._frames.append(join + records[0])
                self._frames.extend(records[1:])

        self.patch(self, "framed_peer", lambda *args: self._peer(Cutting, *args))
        self.far = await self.connect(FRAMED)
        return self.near.peer

    def _peer(self, kind: Any, *args: Any) -> Any:
        peer = kind(*args)
        self.peers.append(peer)
        return peer

    async def hears(self, expected: bytes) -> None:
        client, agent = self.near.peer, self.far.peer
        agent.end()
        client.end()
        await until(lambda: client.over, client, agent, what="the end")
        self.assert_received(client, expected)

    async def test_like_a_frame(self) -> None:
        """
        The rest of a frame that began behind JOIN is data, though it looks like
        a frame of its own.
        """
        inner = data_frames(b"an inner frame, to the letter")
        frame = data_frames(b"first half" + inner)
        await self.cut(frame[: -len(inner)], inner)
        await self.hears(b"first half" + inner)

    async def test_in_a_row(self) -> None:
        """
        So is the rest of one that began behind whole ones.
        """
        inner = data_frames(stream(1000, 3))
        frame = data_frames(b"the second" + inner)
        whole = data_frames(b"a whole one, ")
        await self.cut(whole, whole + frame[:5], frame[5 : -len(inner)], inner, whole)
        await self.hears(b"a whole one, " * 2 + b"the second" + inner + b"a whole one, ")

    async def test_header_alone(self) -> None:
        """
        A header may be cut anywhere.
        """
        frame = data_frames(b"payload")
        records = [frame[at : at + 1] for at in range(len(frame))]
        await self.cut(*records)
        await self.hears(b"payload")
