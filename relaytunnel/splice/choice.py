"""
Which engine joins which channels.
"""

from __future__ import annotations

import sys

from zope.interface import implementer

from twisted.internet.interfaces import IReactorTime

from relaytunnel.channel.edges import EdgeWatch
from relaytunnel.channel.records import Calls, calls_for
from relaytunnel.channel.stream import FramedStream
from relaytunnel.channel.tcp import Released, TCPChannel
from relaytunnel.interfaces import IRunningSplice, ISpliceEngine, SpliceLimits
from relaytunnel.splice.framed import FramedEnd
from relaytunnel.splice.framing import FramingFlow
from relaytunnel.splice.paired import PairedEngine
from relaytunnel.splice.pipes import Pipes, can_splice
from relaytunnel.splice.plain import PlainEnd, PlainFlow
from relaytunnel.splice.pump import PumpSplice
from relaytunnel.splice.running import Rounds
from relaytunnel.splice.unframing import UnframingFlow

__all__ = ["PumpEngine", "best_engine"]


@implementer(ISpliceEngine)
class PumpEngine:
    """
    Moves the bytes itself where the channels have descriptors to own, and
    leaves them to the portable engine where not.
    """

    name = "pump"

    def __init__(
        self, edges: EdgeWatch, calls: Calls | None = None, pipes: int = sys.maxsize
    ) -> None:
        """
        @param calls: how TLS records are read and written; the fastest way that
            there is, if not given.
        @param pipes: how many there may be.
        """
        self._edges = edges
        self._calls = calls or calls_for()
        self._pipes = Pipes(pipes)
        self._rounds = Rounds()
        self._paired = PairedEngine()

    def join(
        self, first: object, second: object, limits: SpliceLimits, clock: IReactorTime
    ) -> IRunningSplice:
        both_framed = isinstance(first, FramedStream) and isinstance(second, FramedStream)
        if _ours(first) and _ours(second) and not both_framed:
            splice = PumpSplice(self._rounds.of(limits, clock), self._edges, self._pipes)
            released = [each.release() for each in (first, second) if isinstance(each, TCPChannel)]
            try:
                self._join(splice, first, second, released)
            except Exception:
                splice.fail()
                for each in released:
                    self._edges.closed(each.sock.fileno())
                    each.sock.close()
                for channel in (first, second):
                    if isinstance(channel, FramedStream):
                        channel.channel.abort()
                raise
            return splice
        return self._paired.join(first, second, limits, clock)

    def _join(
        self, splice: PumpSplice, first: object, second: object, released: list[Released]
    ) -> None:
        if isinstance(second, FramedStream):
            self._join_framed(splice, released[0], second, True)
        elif isinstance(first, FramedStream):
            self._join_framed(splice, released[0], first, False)
        else:
            _join_plain(splice, *released)

    def _join_framed(
        self, splice: PumpSplice, plain: Released, stream: FramedStream, plain_first: bool
    ) -> None:
        """
        Let the bytes flow between a socket and a session.
        """
        names = ("first", "second") if plain_first else ("second", "first")
        near = PlainEnd(splice, names[0], plain.sock)
        far = FramedEnd(splice, names[1], stream, self._calls)
        out, back = FramingFlow(splice, near, far), UnframingFlow(splice, far, near)
        out.begin(far.transport.lend(far.happened), plain.held, plain.ended)
        back.begin(plain.unsent, b"", False)
        if plain_first:
            splice.join(near, far, out, back)
        else:
            splice.join(far, near, back, out)


def _join_plain(splice: PumpSplice, first: Released, second: Released) -> None:
    """
    Let the bytes flow between two sockets.
    """
    one, two = PlainEnd(splice, "first", first.sock), PlainEnd(splice, "second", second.sock)
    there, back = PlainFlow(splice, one, two), PlainFlow(splice, two, one)
    there.begin(second.unsent, first.held, first.ended)
    back.begin(first.unsent, second.held, second.ended)
    splice.join(one, two, there, back)


def _ours(channel: object) -> bool:
    """
    Whether the channel has a descriptor that it would give away.
    """
    if isinstance(channel, TCPChannel):
        return channel.releasable
    return isinstance(channel, FramedStream) and channel.lendable


def best_engine(edges: EdgeWatch, pipes: int = sys.maxsize) -> ISpliceEngine:
    """
    @param pipes: how many there may be; without one it is slower, but works.
    @return: the fastest engine that there is for this platform and reactor.
    """
    return PumpEngine(edges, pipes=pipes) if edges.works and can_splice else PairedEngine()
