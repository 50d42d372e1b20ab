"""
Which engine joins which channels.
"""

from __future__ import annotations

from zope.interface import implementer

from twisted.internet.interfaces import IReactorTime

from relaytunnel.channel.edges import EdgeWatch
from relaytunnel.channel.framed import FramedStream
from relaytunnel.channel.records import Calls, calls_for
from relaytunnel.channel.tcp import TCPChannel
from relaytunnel.interfaces import IRunningSplice, ISpliceEngine, SpliceLimits
from relaytunnel.splice import framed
from relaytunnel.splice.paired import PairedEngine
from relaytunnel.splice.pipes import Pipes, can_splice
from relaytunnel.splice.pump import PumpSplice
from relaytunnel.splice.running import Rounds

__all__ = ["PumpEngine", "best_engine"]


@implementer(ISpliceEngine)
class PumpEngine:
    """
    Moves the bytes itself where the channels have descriptors to own, and
    leaves them to the portable engine where not.
    """

    name = "pump"

    def __init__(self, edges: EdgeWatch, calls: Calls | None = None) -> None:
        """
        @param calls: how TLS records are read and written; the fastest way that
            there is, if not given.
        """
        self._edges = edges
        self._calls = calls or calls_for()
        self._pipes = Pipes()
        self._rounds = Rounds()
        self._paired = PairedEngine()

    def join(
        self, first: object, second: object, limits: SpliceLimits, clock: IReactorTime
    ) -> IRunningSplice:
        if _ours(first) and _ours(second):
            if isinstance(first, TCPChannel) and isinstance(second, TCPChannel):
                splice = self._new(limits, clock)
                splice.start(first.release(), second.release())
                return splice
            if isinstance(first, TCPChannel) and isinstance(second, FramedStream):
                splice = self._new(limits, clock)
                framed.start(splice, first.release(), second, self._calls)
                return splice
            if isinstance(first, FramedStream) and isinstance(second, TCPChannel):
                splice = self._new(limits, clock)
                framed.start(splice, first, second.release(), self._calls)
                return splice
        return self._paired.join(first, second, limits, clock)

    def _new(self, limits: SpliceLimits, clock: IReactorTime) -> PumpSplice:
        return PumpSplice(self._rounds.of(limits, clock), self._edges, self._pipes)


def _ours(channel: object) -> bool:
    """
    Whether the channel has a descriptor that it would give away.
    """
    if isinstance(channel, TCPChannel):
        return channel.releasable
    return isinstance(channel, FramedStream) and channel.lendable


def best_engine(edges: EdgeWatch) -> ISpliceEngine:
    """
    @return: the fastest engine that there is for this platform and reactor.
    """
    return PumpEngine(edges) if edges.works and can_splice else PairedEngine()
